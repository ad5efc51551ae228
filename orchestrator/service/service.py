"""The service of one home: all verbs, by noun."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.data import resources, uploads
from orchestrator.engine import Engine
from orchestrator.images import images
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.service.access import Access
from orchestrator.service.archive import Archive
from orchestrator.service.code import Code
from orchestrator.service.compare import Compare
from orchestrator.service.doctor import Doctor
from orchestrator.service.environments import Environments
from orchestrator.service.exec import Exec
from orchestrator.service.executors import Executors
from orchestrator.service.export import Export
from orchestrator.service.gc import Gc
from orchestrator.service.images import Images
from orchestrator.service.imports import Imports
from orchestrator.service.labels import Labels
from orchestrator.service.lineage import Lineage
from orchestrator.service.links import Links
from orchestrator.service.logs import Logs
from orchestrator.service.machines import Machines
from orchestrator.service.metrics import Metrics
from orchestrator.service.ports import Ports
from orchestrator.service.projects import Projects
from orchestrator.service.quota import Quota
from orchestrator.service.resources import Resources
from orchestrator.service.resume import Resume
from orchestrator.service.runs import Runs
from orchestrator.service.searches import Searches
from orchestrator.service.secrets import Secrets
from orchestrator.service.server import Server
from orchestrator.service.stats import Stats
from orchestrator.service.unsaved import UnsavedFiles
from orchestrator.service.uploads import Uploads
from orchestrator.service.verify import Verify
from orchestrator.service.workflows import Workflows


class Service:
    """Everything that a person can do with one home.

    Args:
        context: store, home and tools.
        scheduler: starts and attends runs.
        quota: enforces the space limits of the home.
        defaults: executors for specs that name none; the first one that lacks nothing is chosen.
        engine, bases: make baked images, and the images that they are based on.
        incoming: receives uploads.
        wake: wakes the controllers' loop.
    """

    def __init__(
        self,
        context: Context,
        scheduler: Scheduler,
        quota: Quota,
        defaults: Sequence[str],
        *,
        engine: Engine,
        bases: images.Images,
        incoming: uploads.Uploads,
        wake: Callable[[], None],
    ) -> None:
        store, found = context.store, resources.Resources(context.home, context.store)
        access, executors = Access(store, found), Executors(context, defaults)
        self.runs = Runs(context, scheduler, access, executors, quota, Resume(store, access, found))
        self.logs = Logs(context, scheduler, access)
        self.metrics = Metrics(context, access)
        self.stats = Stats(store, scheduler, access)
        self.exec = Exec(store, scheduler, access)
        self.ports = Ports(store, scheduler, access)
        self.code = Code(context)
        self.resources = Resources(found, access, UnsavedFiles(context))
        self.uploads = Uploads(incoming, store, access)
        self.secrets = Secrets(context.secrets, access)
        self.searches = Searches(store, access, self.runs, wake)
        self.workflows = Workflows(store, access, self.runs, wake)
        self.labels = Labels(store, access)
        self.archive = Archive(store, access)
        self.projects = Projects(store, access)
        self.links = Links(store, access, found)
        self.compare = Compare(context, access, self.metrics)
        self.lineage = Lineage(context, access)
        self.verify = Verify(context, access)
        self.export = Export(context, access, self.metrics)
        self.imports = Imports(context, access, quota, self.metrics)
        self.environments = Environments(context, executors)
        self.images = Images(context, engine, bases)
        self.gc = Gc(context, scheduler, quota.changed)
        self.server = Server(context)
        self.doctor = Doctor(context, executors, quota, self.server)
        self.machines = Machines(context.config, scheduler)
