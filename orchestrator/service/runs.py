"""The verbs, each once: what the API's routes call, and nothing else does the work."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orchestrator
from orchestrator import machine
from orchestrator.data.outputs import check_patterns
from orchestrator.data.resources import Resources
from orchestrator.environments import check_requirement
from orchestrator.errors import (
    Conflict,
    ExecutorFailed,
    ImpossibleRequest,
    InvalidConfig,
    SnapshotMissing,
)
from orchestrator.executors.base import Session
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.records import API_VERSION
from orchestrator.records.casts import CastRecord
from orchestrator.records.gc import CollectionRecord
from orchestrator.records.machines import CheckRecord, MachineRecord, MachineType, ServerRecord
from orchestrator.records.metrics import MetricPage, MetricRecord, MetricSummary
from orchestrator.records.runs import RunRecord, StatRecord
from orchestrator.service import doctor
from orchestrator.service.gc import collect
from orchestrator.service.images import Baker
from orchestrator.service.quota import Quota
from orchestrator.service.rerun import repeat
from orchestrator.service.reuse import Reuse
from orchestrator.service.stats import Meter, not_running
from orchestrator.spec.run import Mount, RunSpec
from orchestrator.states import FINAL, State, StopRequest
from orchestrator.store import NewRun, WithRun
from orchestrator.telemetry.metrics import ingest_metrics

_METRICS_AT_ONCE = 10_000


class Service:
    """What a person can do with one home.

    Args:
        context: store, home and tools.
        scheduler: woken by new runs and stop requests.
        baker: bakes images.
        room: how much the home takes, and may take.
        defaults: executors for specs that name none: the first of them that lacks nothing is taken.
    """

    def __init__(
        self, context: Context, scheduler: Scheduler, defaults: Sequence[str], baker: Baker, quota: Quota
    ) -> None:
        self.context, self.scheduler, self._quota = context, scheduler, quota
        self.store, self.home = context.store, context.home
        self.resources = Resources(context.home, context.store)
        self._defaults = defaults
        self.baker = baker
        self._meter = Meter(self.store, scheduler)
        self._reuse = Reuse(context)
        self._started_at = time.time()
        self._collecting = threading.Lock()  # two at once would tell of the same things

    def cast(
        self, spec: RunSpec, *, reuse: bool = False, with_run: WithRun = lambda _connection, _number: None
    ) -> CastRecord:
        """Record a run, and queue it. What can be known to be wrong with it is refused now, before there is a run.

        Args:
            reuse: take an identical run that is complete, where there is one; its code need not have been sent.
            with_run: see `Store.add`.

        Raises:
            UsageError: an unknown machine type.
            InvalidConfig: an unknown executor, or something that the executor cannot do.
            ImpossibleRequest: more than this machine has.
            NotFound, Conflict: a mount or secret that is not there.
            SnapshotMissing: the code has not been sent.
            DiskFull: see `Quota.check`.
        """
        new, warnings = self._new_run(spec, self.resources.mountable)
        new = dataclasses.replace(new, fingerprint=self._reuse.fingerprint(new))
        if reuse and (earlier := self._reuse.find(new)):
            return CastRecord(earlier, new.spec.machine_type, self._reuse.warnings(spec, earlier), reused=True)
        return self._add(new, warnings, with_run)

    def _add(
        self, new: NewRun, warnings: list[str], with_run: WithRun = lambda _connection, _number: None
    ) -> CastRecord:
        self._require_code(new.spec)
        mounts_upload = any(mount.resource.startswith("uploads/") for mount in new.spec.mounts)

        def recorded(connection: Any, number: int) -> None:
            # Its fingerprint says what the uploads held; from now on none that it mounts is replaced.
            if mounts_upload and self._reuse.fingerprint(new) != new.fingerprint:
                raise Conflict("An upload that it mounts was replaced meanwhile.", "Cast it again.")
            with_run(connection, number)

        number = self.store.add(new, recorded)
        self.scheduler.wake()
        return CastRecord(number, new.spec.machine_type, warnings)

    def rerun(self, reference: str, changes: Mapping[str, Any]) -> CastRecord:
        """Cast a run again: same code, package versions, image and mounts.

        Args:
            changes: fields of a spec, as JSON values; see `rerun.repeat`.

        Raises:
            NotFound: there is no such run.
            Conflict: its code is not kept any more.
            SpellError: as `cast`.
        """
        run = self.store.record(self.store.find(reference))
        repeated = repeat(self.context, run, {"project": run.project, **changes})  # it may have changed since
        new, warnings = self._new_run(repeated.spec, self.resources.mountable)
        new = dataclasses.replace(
            new,
            fingerprint=self._reuse.fingerprint(new),
            rerun_of=run.number,
            environment=repeated.environment,
            image=repeated.image,
        )
        try:
            return self._add(new, [*warnings, *repeated.warnings])
        except SnapshotMissing:
            words = f"The code of run {run.number} is not kept any more."
            raise Conflict(words, "Cast it anew with: spell run") from None

    def check(self, spec: RunSpec, mountable: Callable[[str], str]) -> tuple[NewRun, list[str]]:
        """The run that a spec would become, and what to tell the person. Raises as `cast`.

        Args:
            mountable: the canonical form of a resource that can be mounted.
        """
        new, warnings = self._new_run(spec, mountable)
        self._require_code(new.spec)
        return new, warnings

    def _new_run(self, spec: RunSpec, mountable: Callable[[str], str]) -> tuple[NewRun, list[str]]:
        wanted = self._machine_type(spec.machine_type)
        name = spec.executor or self.default_executor
        executor = self.context.executors.get(name)
        if executor is None:
            there = ", ".join(sorted(self.context.executors))
            raise InvalidConfig(f"There is no executor {name!r}.", f"There are: {there}.")
        if lack := executor.lacks():
            others = [other for other in self._defaults if other != name]
            cure = "See what works here: spell doctor" + "".join(f"; or cast it with --executor {o}" for o in others)
            raise ExecutorFailed(f"The {name} executor can run nothing now: {lack}", cure)
        self._check(spec)
        self._quota.check()
        self.context.secrets.require(spec.secrets)
        if spec.project:
            self.store.projects.require(spec.project)
        mounts = tuple(Mount(mountable(mount.resource), mount.path) for mount in spec.mounts)
        spec = dataclasses.replace(spec, mounts=mounts, machine_type=wanted.name)
        executor.refuse(spec)
        warnings = [*([] if spec.executor else self._passed_over(name)), *executor.warnings(spec, wanted)]
        return NewRun(spec, name, wanted.cpus, wanted.memory_bytes, wanted.gpus), warnings

    def _passed_over(self, taken: str) -> Iterator[str]:
        """Why not an executor that is preferred, and that a person may take for granted."""
        for name in self._defaults[: self._defaults.index(taken)]:
            executor = self.context.executors[name]
            if executor.is_expected and (lack := executor.lacks()):
                yield f"This run does not go to the {name} executor: {lack}"

    @property
    def default_executor(self) -> str:
        """The executor of specs that name none, at this moment."""
        for name in self._defaults:
            executor = self.context.executors[name]
            if executor.is_chosen or not executor.lacks():
                return name
        return self._defaults[-1]

    def _require_code(self, spec: RunSpec) -> None:
        code = spec.code
        if code and not self.context.blobs.has(code.tree, code.diff):
            raise SnapshotMissing(f"The server does not have snapshot {code.tree[:12]}.")

    def _machine_type(self, name: str) -> MachineType:
        wanted = self.context.config.machine_type(name)
        lack = machine.lacks(self.scheduler.capacity, wanted)
        if lack:
            raise ImpossibleRequest(f"Machine type {wanted.name!r} can never run here: {lack}.")
        return wanted

    def _check(self, spec: RunSpec) -> None:
        for line in spec.pip:
            check_requirement(line)
        for framework in spec.frameworks or ():
            self.context.config.framework(framework)
        try:
            check_patterns(spec.ignore)
        except ValueError as error:
            raise InvalidConfig(f"A pattern of --ignore cannot be read: {error}") from error

    def request_stop(self, reference: str, request: StopRequest) -> State:
        """Stop (outputs kept) or kill (outputs lost) a run. Returns its state after that; raises as `Store.request_stop`."""
        number = self.store.find(reference)
        state = self.store.request_stop(number, request)
        self.scheduler.stop_requested(number)
        return state

    def record(self, reference: str) -> RunRecord:
        """All about the run that a person means. The values of its environment variables are hidden."""
        record = self.store.record(self.store.find(reference))
        env = dict.fromkeys(record.spec.get("env", {}), "***")
        notify = ["***"] * len(record.spec.get("notify", ()))
        return dataclasses.replace(record, spec=record.spec | {"env": env, "notify": notify})

    def metrics(self, reference: str, name: str = "") -> Iterator[list[MetricRecord]]:
        """The metrics of a run, up to this moment, some at a time. Raises at once."""
        number = self.store.find(reference)
        ingest_metrics(self.store, self.home, number)
        return self._metrics(number, name)

    def _metrics(self, number: int, name: str) -> Iterator[list[MetricRecord]]:
        position = 0
        while page := self.store.metrics_after(number, position, _METRICS_AT_ONCE, name):
            position = page[-1][0]
            yield [item for _, item in page]

    def metric_summaries(self, reference: str) -> list[MetricSummary]:
        """One line for each metric of a run, up to this moment."""
        number = self.store.find(reference)
        ingest_metrics(self.store, self.home, number)
        return self.store.metric_summaries(number)

    def metric_page(self, reference: str, after: int, limit: int) -> MetricPage:
        """The values that a run has sent, from a place on."""
        number = self.store.find(reference)
        over = self.store.summary(number).state in FINAL  # looked at first: what it sent before its end is read after
        ingest_metrics(self.store, self.home, number)
        found = self.store.metrics_after(number, after, limit)
        values, end = [item for _, item in found], found[-1][0] if found else after
        return MetricPage(values, end, over and len(found) < limit)

    def open_session(self, reference: str, command: Sequence[str], term: str, *, terminal: bool) -> Session:
        """Start a command, or a shell, beside a run's own.

        Args:
            command: program and arguments; one word is a line for a shell, none the shell itself.
            term: the kind of terminal that somebody sits at; "" for the usual.
            terminal: whether it gets a terminal.

        Raises:
            NotFound, Conflict: there is no such run; it does not run, or not in a container.
        """
        number = self.store.find(reference)
        life = self.scheduler.life(number)
        if life is None or life.handle is None:
            raise not_running(self.store, number)
        return life.open_session(command, term, terminal=terminal)

    def stats(self, references: Sequence[str]) -> list[StatRecord]:
        """What these runs use now; all that run, when none is named. Raises as `Meter.stats`."""
        return self._meter.stats(references)

    def examine(self) -> list[CheckRecord]:
        """What works here, and what does not."""
        return [*doctor.examine(self.context, self.default_executor), *self._quota.checks()]

    def collect(self, older_than_s: float, keep_bytes: int | None, *, dry_run: bool) -> CollectionRecord:
        """Remove what earlier runs have left and nobody uses any more; see `collect.collect`."""
        with self._collecting:
            found = collect(self.context, self.scheduler, older_than_s, dry_run=dry_run, keep_bytes=keep_bytes)
        self._quota.changed()
        return found

    def machines(self) -> list[MachineRecord]:
        """All machine types, and how many more runs of each would start at once."""
        free, found = self.scheduler.free(), []
        for wanted in self.context.config.types().values():
            possible = not machine.lacks(self.scheduler.capacity, wanted)
            fits = [(free.cpus + 1e-9) // wanted.cpus]
            fits += [free.memory_bytes // wanted.memory_bytes] if wanted.memory_bytes else []
            fits += [len(free.gpus) // wanted.gpus] if wanted.gpus else []
            found.append(
                MachineRecord(
                    wanted.name, wanted.cpus, wanted.memory_bytes, wanted.gpus, possible, max(0, int(min(fits)))
                )
            )
        return found

    def server(self) -> ServerRecord:
        """Which server this is."""
        return ServerRecord(
            version=orchestrator.__version__,
            api=API_VERSION,
            pid=os.getpid(),
            home=str(self.home.root),
            started_at=self._started_at,
            executors=sorted(self.context.executors),
            active_runs=self.store.active_count(),
        )
