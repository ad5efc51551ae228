"""Makes all parts of a server and connects them. The only module that names concrete executors."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from orchestrator import config as configuration
from orchestrator import machine
from orchestrator.config import Config
from orchestrator.content import scratch
from orchestrator.content.files import remove_tree
from orchestrator.controllers.searches import SearchController
from orchestrator.controllers.webhooks import Webhooks
from orchestrator.controllers.workflows import WorkflowController
from orchestrator.data import identity, imports
from orchestrator.data.blobs import BlobStore
from orchestrator.data.hashing import Hasher
from orchestrator.data.secrets import Secrets
from orchestrator.data.uploads import Uploads
from orchestrator.engine import Engine
from orchestrator.environments import Environments
from orchestrator.errors import InvalidConfig, NotFound, SaveFailed
from orchestrator.executors.base import Executor
from orchestrator.executors.docker.executor import DockerExecutor
from orchestrator.executors.process import ProcessExecutor
from orchestrator.home import Home
from orchestrator.images.images import Images
from orchestrator.lifecycle import copied, notices, runtime_files, variables, workdir
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.lifecycle.watchdog import Watchdog
from orchestrator.loops import Loop
from orchestrator.records.runs import RunRecord
from orchestrator.server.follow import Hub
from orchestrator.service import Service, gc_runs
from orchestrator.service.quota import Quota
from orchestrator.states import FINAL, State
from orchestrator.store import Store
from orchestrator.store.database import Database
from orchestrator.telemetry.samples import Sampler
from orchestrator.telemetry.trackers.watcher import TrackerWatcher

_log = logging.getLogger(__name__)


def executors(engine: Engine, images: Images, config: Config) -> dict[str, Executor]:
    """All executors by name; the preferred ones first."""
    found: list[Executor] = [
        DockerExecutor(engine, images, config.docker, variables.certificates(os.environ)),
        ProcessExecutor(namespaces=os.environ.get("SPELL_NAMESPACES") != "never"),
    ]
    return {executor.name: executor for executor in found}


class Assembly:
    """The parts of the server of one home, which must exist and be locked by the caller.

    Args:
        found: the executors; None for all.
        capacity: of the machine; None for the detected one.

    Attributes:
        service: the verbs.
        hub: wakes followers.

    Raises:
        InvalidConfig, HomeUnusable: the configuration or the store cannot be used.
        DiskFull: when a new home has no room for its identity and its store.
    """

    def __init__(
        self, home: Home, found: Mapping[str, Executor] | None = None, capacity: machine.Capacity | None = None
    ) -> None:
        config = configuration.load(home.config)
        home.open_to(config.home_mode)
        self._identity = identity.identify(home)
        if not self._identity.is_copy:  # before the store is made, which without a note would be of an old version
            identity.note(home, self._identity)
        engine = Engine(home, config.docker.host, reach=config.docker.reach, key=self._identity.key)
        self._images = images = Images(engine, config.docker)
        self.hub = Hub()
        store = Store(Database(home.database), self.hub.changed, self._ended)
        self._context = Context(
            store=store,
            home=home,
            config=config,
            blobs=BlobStore(home),
            environments=Environments(home, engine=engine, built=self._built, torch_backend=config.torch_backend),
            secrets=Secrets(home, store),
            executors=found if found is not None else executors(engine, images, config),
            hasher=Hasher(store, home),
            server_env=dict(os.environ),
            closing=threading.Event(),
        )
        if config.executor and config.executor not in self._context.executors:
            raise InvalidConfig(f"{home.config}: executor: there is no executor {config.executor!r}.")
        self._quota = Quota(self._context)
        defaults = [config.executor] if config.executor else list(self._context.executors)
        self._scheduler = Scheduler(self._context, capacity or machine.detect())
        self._uploads = Uploads(home, store.uploads, self._quota.check_quota)
        self.service = Service(
            self._context,
            self._scheduler,
            self._quota,
            defaults,
            engine=engine,
            bases=images,
            incoming=self._uploads,
            wake=self._advance,
        )
        searches = SearchController(store, self.service, self._advance)
        workflows = WorkflowController(store, self.service)
        self._loop = Loop("controllers", workflows.advance, searches.advance)
        self._webhooks = Webhooks(store, home)

    def _advance(self) -> None:
        self._loop.wake()

    def _built(self) -> None:
        self._quota.built()

    def _ended(self, _number: int) -> None:
        self._advance()
        self._webhooks.wake()

    def start(self) -> None:
        """Clean up after a server that was killed, take over its runs, and start all loops.

        Raises:
            DiskFull: when a copy of a home cannot record that it is one.
        """
        context = self._context
        if self._identity.is_copy:
            copied.disown(context)
            identity.note(context.home, self._identity)
        if self._identity.moved_from:
            notices.tell_moved(context, self._identity.moved_from)
        _sweep(context)
        self._uploads.recover()
        imports.recover(context.home, context.store.imports.number)
        runtime_files.install(context.home)
        context.environments.start()
        self._images.start()
        self._scheduler.start()
        self._loop.start()
        self._sampler = Sampler(context.store, context.home, context.config.sample_interval_s, self._scheduler.running)
        self._trackers = TrackerWatcher(context.store, context.home, self._scheduler.commands)
        self._watchdog = Watchdog(context.store, context.home, self._scheduler.lives, self._scheduler.stop)
        self._webhooks.start()
        self._quota.start()
        with context.store.way_out():  # what the start has left of the room that was kept for it
            pass

    def close(self) -> None:
        """End all loops; active runs go on."""
        self._loop.close()
        self._scheduler.close()
        self._sampler.close()
        self._trackers.close()
        self._watchdog.close()
        self._webhooks.close()
        self._quota.close()
        self._context.hasher.close()
        self._context.environments.close()


def _may_hold_outputs(context: Context, run: RunRecord) -> bool:
    """Whether the work dir of a run that has ended may contain outputs that could not be saved."""
    if run.state in (State.COMPLETE, State.KILLED) or not any(context.home.log_dir(run.number).glob("attempt-*")):
        return False
    return State.PUSHING not in {event.state for event in context.store.events(run.number) if event.kind == "state"}


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        try:
            remove_tree(path)
        except (OSError, SaveFailed):  # the server must start
            _log.exception("%s stays", path)


def _sweep(context: Context) -> None:
    """Remove remains of a server or client that was killed: half-written files, work dirs of runs that have ended."""
    context.blobs.sweep()
    scratch.sweep()
    _empty(context.home.scratch)
    for half in context.home.store.glob("*.key.*"):  # beside `webhook.key` and `secrets.key`
        half.unlink(missing_ok=True)
    gc_runs.finish(context)
    for path in context.home.work.iterdir():
        try:
            run = context.store.record(int(path.name))
        except (ValueError, NotFound):
            continue  # not made by spell
        if run.state in FINAL and not _may_hold_outputs(context, run):
            workdir.remove(context.home, run.number)
