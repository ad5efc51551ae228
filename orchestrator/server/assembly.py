"""Everything of a server put together. The only place that names concrete executors."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from orchestrator import config as configuration
from orchestrator import machine
from orchestrator.config import Config
from orchestrator.controllers.loop import Conductor
from orchestrator.controllers.searches import Searches
from orchestrator.controllers.webhooks import Notifier
from orchestrator.controllers.workflows import Workflows
from orchestrator.data.blobs import BlobStore
from orchestrator.data.hashing import Hasher
from orchestrator.data.secrets import Vault
from orchestrator.data.uploads import Uploads
from orchestrator.engine import Engine
from orchestrator.environments import Environments
from orchestrator.errors import InvalidConfig, NotFound, SaveFailed
from orchestrator.executors.base import Executor
from orchestrator.executors.docker.executor import DockerExecutor
from orchestrator.executors.process import ProcessExecutor
from orchestrator.home import Home
from orchestrator.images.images import Images
from orchestrator.lifecycle import variables, workdir
from orchestrator.lifecycle.context import Workshop
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.lifecycle.watchdog import Watcher
from orchestrator.records.runs import RunRecord
from orchestrator.server.follow import Hub
from orchestrator.service import gc_runs
from orchestrator.service.images import Baker
from orchestrator.service.organise import Organising
from orchestrator.service.quota import Room
from orchestrator.service.runs import Service
from orchestrator.states import FINAL, State
from orchestrator.store import Store
from orchestrator.store.database import Database
from orchestrator.telemetry.samples import Sampler

_log = logging.getLogger(__name__)


def executors(engine: Engine, images: Images, config: Config) -> dict[str, Executor]:
    """Every executor that there is, by name; those that are preferred first."""
    found: list[Executor] = [
        DockerExecutor(engine, images, config.docker, variables.certificates(os.environ)),
        ProcessExecutor(namespaces=os.environ.get("SPELL_NAMESPACES") != "never"),
    ]
    return {executor.name: executor for executor in found}


class Assembly:
    """The parts of the server of one home, which must exist and be locked by the caller.

    Args:
        found: the executors; None for all that there are.

    Attributes:
        service: the verbs.
        hub: wakes followers.
        workflows: casts their steps.
        searches: casts their trials.
        uploads: takes them in.

    Raises:
        InvalidConfig, HomeUnusable: when configuration or store cannot be used.
    """

    def __init__(self, home: Home, found: Mapping[str, Executor] | None = None) -> None:
        config = configuration.load(home.config)
        engine = Engine(home, config.docker.host, reach=config.docker.reach)
        self._images = images = Images(engine, config.docker)
        self.hub = Hub()
        store = Store(Database(home.database), self.hub.changed, self._ended)
        self._shop = Workshop(
            store=store,
            home=home,
            config=config,
            blobs=BlobStore(home),
            environments=Environments(home, engine=engine, built=self._built),
            vault=Vault(home, store),
            executors=found if found is not None else executors(engine, images, config),
            hasher=Hasher(store, home),
            server_env=dict(os.environ),
            closing=threading.Event(),
        )
        if config.executor and config.executor not in self._shop.executors:
            raise InvalidConfig(f"{home.config}: executor: there is no executor {config.executor!r}.")
        self._room = Room(self._shop)
        defaults = [config.executor] if config.executor else list(self._shop.executors)
        self._scheduler = Scheduler(self._shop, machine.detect())
        self.service = Service(self._shop, self._scheduler, defaults, Baker(self._shop, engine, images), self._room)
        self.organising = Organising(store, self.service.resources)
        self.workflows = Workflows(self.service, self._lead_on)
        self.searches = Searches(self.service, self._lead_on)
        self._conductor = Conductor([self.workflows.advance, self.searches.advance])
        self._notifier = Notifier(store, home)
        self.uploads = Uploads(home, store.uploads, self._room.check_quota)

    def _lead_on(self) -> None:
        self._conductor.wake()

    def _built(self) -> None:
        self._room.built()

    def _ended(self, _number: int) -> None:
        self._lead_on()
        self._notifier.wake()

    def start(self) -> None:
        """Clear up after a server that was killed, go on where it was, and serve."""
        shop = self._shop
        _sweep(shop)
        self.uploads.recover()
        variables.install_runtime(shop.home)
        shop.environments.start()
        self._images.start()
        self._scheduler.start()
        self._conductor.start()
        self._sampler = Sampler(shop.store, shop.home, shop.config.sample_interval_s, self._scheduler.running)
        self._watcher = Watcher(shop.store, shop.home, self._scheduler.lives, self._scheduler.stop)
        self._notifier.start()
        self._room.start()

    def close(self) -> None:
        """End; active runs go on."""
        self._conductor.close()
        self._scheduler.close()
        self._sampler.close()
        self._watcher.close()
        self._notifier.close()
        self._room.close()
        self._shop.hasher.close()
        self._shop.environments.close()


def _may_hold_outputs(shop: Workshop, run: RunRecord) -> bool:
    """Whether something may lie in the work dir of a run that has ended which was to be saved, and was not."""
    if run.state in (State.COMPLETE, State.KILLED) or not any(shop.home.log_dir(run.number).glob("attempt-*")):
        return False
    return State.PUSHING not in {event.state for event in shop.store.events(run.number) if event.kind == "state"}


def _sweep(shop: Workshop) -> None:
    """Remove what a killed server left behind: half-written blobs, work dirs of runs that have ended."""
    shop.blobs.sweep()
    gc_runs.finish(shop)
    for path in shop.home.work.iterdir():
        try:
            run = shop.store.record(int(path.name))
        except (ValueError, NotFound):
            continue  # not ours
        if run.state in FINAL and not _may_hold_outputs(shop, run):
            try:
                workdir.remove(shop.home, run.number)
            except SaveFailed:  # whatever a run left, the server starts
                _log.exception("%s stays", path)
