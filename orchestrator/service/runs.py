"""Runs: cast, listed, inspected, stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator import machine
from orchestrator.content import manifest as manifests
from orchestrator.data import caches
from orchestrator.data.outputs import check_patterns
from orchestrator.errors import Conflict, ImpossibleRequest, InvalidConfig, SnapshotMissing
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.records.casts import CastRecord
from orchestrator.records.events import EventRecord
from orchestrator.records.files import ArtifactRecord
from orchestrator.records.machines import MachineType
from orchestrator.records.plans import PlanRecord
from orchestrator.records.run_summary import RunSummary
from orchestrator.records.runs import RunRecord
from orchestrator.service.access import Access, Who
from orchestrator.service.executors import Executors
from orchestrator.service.plan import planned
from orchestrator.service.quota import Quota
from orchestrator.service.rerun import repeat
from orchestrator.service.resume import Resume
from orchestrator.service.reuse import Reuse
from orchestrator.spec.fields import redacted_spec
from orchestrator.spec.filters import Filter, Sort
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import RunSpec
from orchestrator.states import State, StopRequest
from orchestrator.store import CastBefore, NewRun, WithRun


class Runs:
    """The runs of one home.

    Args:
        context: store, home and tools.
        scheduler: woken by new runs and stop requests.
        access: resolves references.
        executors: chooses the executor of a run.
        quota: refuses a cast when the home is full.
        resume: finds the checkpoints that a run begins with.
    """

    def __init__(
        self,
        context: Context,
        scheduler: Scheduler,
        access: Access,
        executors: Executors,
        quota: Quota,
        resume: Resume,
    ) -> None:
        self._context, self._store = context, context.store
        self._scheduler, self._access, self._executors, self._quota = scheduler, access, executors, quota
        self._reuse, self._resume = Reuse(context), resume

    def cast(
        self,
        who: Who,
        spec: RunSpec,
        *,
        reuse: bool = False,
        key: str = "",
        with_run: WithRun = lambda _connection, _number: None,
    ) -> CastRecord:
        """Record a run and queue it. Everything that can be checked is checked now, before the run exists.

        Args:
            key: of the request. One with the key of an earlier request casts nothing, and gets that run.
            reuse: return an identical complete run, if one exists; its code need not have been sent.
            with_run: see `Store.add`.

        Raises:
            UsageError: the machine type is unknown.
            InvalidConfig: the executor is unknown, or cannot do what the spec asks for.
            ImpossibleRequest: it asks for more than this machine has.
            NotFound, Conflict: a mount or secret does not exist.
            SnapshotMissing: the code has not been sent.
            DiskFull: see `Quota.check`.
        """
        if before := self._cast_before(key):
            return before
        new, warnings = self._new_run(who, spec, lambda resource: self._access.mountable(who, resource))
        new = dataclasses.replace(new, fingerprint=self._reuse.fingerprint(new), key=key)
        if reuse and (earlier := self._reuse.find(new)):
            return CastRecord(earlier, new.spec.machine_type, self._reuse.warnings(spec, earlier), reused=True)
        return self._add(new, warnings, with_run)

    def _add(
        self, new: NewRun, warnings: list[str], with_run: WithRun = lambda _connection, _number: None
    ) -> CastRecord:
        self._require_code(new.spec)
        mounts_upload = any(mount.resource.startswith("uploads/") for mount in new.spec.mounts)

        def recorded(connection: Any, number: int) -> None:
            # The fingerprint covers the content of uploads; from now on no upload that the run mounts can be replaced.
            if mounts_upload and self._reuse.fingerprint(new) != new.fingerprint:
                raise Conflict("An upload that the run mounts was replaced meanwhile.", "Cast it again.")
            with_run(connection, number)

        try:
            number = self._store.add(new, recorded)
        except CastBefore as before:  # the same request, which is being served a second time
            return CastRecord(before.number, new.spec.machine_type, warnings)
        self._scheduler.wake()
        return CastRecord(number, new.spec.machine_type, warnings)

    def _cast_before(self, key: str) -> CastRecord | None:
        """What an earlier request with this key has cast. Its warnings went with the answer that was lost."""
        try:
            self._store.casts.check_new(key, "run")
        except CastBefore as before:
            return CastRecord(before.number, self._store.record(before.number).machine_type, [])
        return None

    def rerun(self, who: Who, reference: str, changes: Mapping[str, Any], *, key: str = "") -> CastRecord:
        """Cast a run again: same code, package versions, image and mounts.

        Args:
            key: as of `cast`.
            changes: fields of a spec, as JSON values; see `rerun.repeat`.

        Raises:
            NotFound: the run does not exist.
            Conflict: its code was removed.
            SpellError: as `cast`.
        """
        if before := self._cast_before(key):
            return before
        return self._again(who, self._access.resolve(who, reference), changes, key)

    def resume(self, who: Who, reference: str, changes: Mapping[str, Any], *, key: str = "") -> CastRecord:
        """Cast a run again that begins with the checkpoints of the earlier one.

        Args:
            key: as of `cast`.
            changes: as of `rerun`; also another command, code, or folder of its outputs (`resume`).

        Raises:
            NotFound: the run does not exist, or left no checkpoints.
            Conflict: it has not ended or was killed, or its code was removed.
            SpellError: as `cast`.
        """
        if before := self._cast_before(key):
            return before
        number = self._access.resolve(who, reference)
        return self._again(who, number, {"resume": str(number), **changes}, key, is_resumed=True)

    def _again(
        self, who: Who, number: int, changes: Mapping[str, Any], key: str, *, is_resumed: bool = False
    ) -> CastRecord:
        run = self._store.record(number)
        may_change = ("command", "code") if is_resumed else ()
        changes = {"project": run.project, **changes}  # it may have changed since then
        repeated = repeat(self._context, run, changes, may_change=may_change)
        new, warnings = self._new_run(who, repeated.spec, lambda resource: self._access.mountable(who, resource))
        new = dataclasses.replace(
            new,
            fingerprint=self._reuse.fingerprint(new),
            rerun_of=None if is_resumed else run.number,
            key=key,
            environment=repeated.environment,
            image=repeated.image,
        )
        try:
            return self._add(new, [*warnings, *repeated.warnings])
        except SnapshotMissing:
            if "code" in changes:
                raise
            words = f"The code of run {run.number} is not kept any more."
            cure = f"Take that of this folder: spell resume {run.number} --current-code"
            raise Conflict(words, cure if is_resumed else "Cast it again with: spell run") from None

    def plan(
        self, who: Who, spec: RunSpec, digests: Sequence[str], manifest: str = "", *, reuse: bool = False
    ) -> PlanRecord:
        """What casting a run would do now. Casts nothing; raises as `cast`, where that does not come from its code.

        Args:
            digests: of the blobs of its code, which need not have been sent.
            manifest: of its code, as JSON; "" for one that was sent.
            reuse: as of `cast`.
        """
        new, warnings = self._new_run(who, spec, lambda resource: self._access.mountable(who, resource))
        earlier = (
            self._reuse.find(dataclasses.replace(new, fingerprint=self._reuse.fingerprint(new))) if reuse else None
        )
        files = manifests.from_json(manifest.encode()) if manifest else None
        return planned(self._context, self._scheduler, new, digests, files, warnings, earlier)

    def check(self, who: Who, spec: RunSpec, mountable: Callable[[str], str]) -> tuple[NewRun, list[str]]:
        """The run that a spec would become, and warnings for the person. Raises as `cast`.

        Args:
            mountable: the canonical form of a resource that can be mounted.
        """
        new, warnings = self._new_run(who, spec, mountable)
        self._require_code(new.spec)
        return new, warnings

    def _new_run(self, who: Who, spec: RunSpec, mountable: Callable[[str], str]) -> tuple[NewRun, list[str]]:
        wanted = self._machine_for(spec)
        name = spec.executor or self._executors.default
        executor = self._executors.usable(name)
        self._check(spec)
        self._quota.check()
        self._context.secrets.require(spec.secrets)
        caches.check(self._context.config.caches, spec.caches)
        if spec.project:
            self._store.projects.require(spec.project)
        mounts = tuple(Mount(mountable(mount.resource), mount.path) for mount in spec.mounts)
        spec = self._resume.found(who, dataclasses.replace(spec, mounts=mounts, machine_type=wanted.name))
        executor.refuse(spec)
        warnings = [*([] if spec.executor else self._executors.passed_over(name)), *executor.warnings(spec, wanted)]
        warnings += self._quota.warnings() if self._context.config.caches.is_on(spec.caches) else ()
        return NewRun(spec, name, wanted.cpus, wanted.memory_bytes, wanted.gpus), warnings

    def _require_code(self, spec: RunSpec) -> None:
        code = spec.code
        if code and not self._context.blobs.has(code.tree, code.diff):
            raise SnapshotMissing(f"The server does not have snapshot {code.tree[:12]}.")
        self._context.projects(spec)  # it refuses folders that hold no project

    def _machine_for(self, spec: RunSpec) -> MachineType:
        wanted = self._context.config.machine_for(spec)
        lack = machine.lacks(self._scheduler.capacity, wanted)
        if lack:
            by_word = (spec.cpus, spec.memory_bytes, spec.gpus, spec.gpu_type, spec.gpu_memory_bytes)
            asks = any(by_word)
            who = "This run can never start here" if asks else f"Machine type {wanted.name!r} can never run here"
            raise ImpossibleRequest(f"{who}: {lack}.")
        return wanted

    def _check(self, spec: RunSpec) -> None:
        for framework in spec.frameworks or ():
            self._context.config.framework(framework)
        if spec.python or spec.pip or spec.requirements:
            self._context.environments.check(self._context.request(spec))
        try:
            check_patterns(spec.ignore)
        except ValueError as error:
            raise InvalidConfig(f"A pattern of --ignore cannot be read: {error}") from error

    def request_stop(self, who: Who, reference: str, request: StopRequest) -> State:
        """Stop (outputs are kept) or kill (they are lost) a run. Returns its new state; raises as `Store.request_stop`."""
        number = self._access.resolve(who, reference)
        with self._store.way_out():
            state = self._store.request_stop(number, request)
        self._scheduler.stop_requested(number)
        return state

    def list(
        self, who: Who, wanted: Filter, order: Sort, *, limit: int, before: int, skip: int
    ) -> Sequence[RunSummary]:
        """The last `limit` runs of this order that match; see `Store.summaries`."""
        found = self._store.summaries(wanted, order, limit=limit, before=before, skip=skip)
        waits = self._waits([run.number for run in found if run.state == State.MACHINE_REQUESTED])
        return [dataclasses.replace(run, waits_for=waits.get(run.number, "")) for run in found] if waits else found

    def get(self, who: Who, reference: str) -> RunRecord:
        """The whole record of a run, with the redacted spec."""
        record = self._store.record(self._access.resolve(who, reference))
        waits = self._waits([record.number] if record.state == State.MACHINE_REQUESTED else [])
        return dataclasses.replace(record, spec=redacted_spec(record.spec), waits_for=waits.get(record.number, ""))

    def _waits(self, queued: Sequence[int]) -> Mapping[int, str]:
        """What these runs, and all that cannot go on, wait for."""
        return {**self._scheduler.waiting(queued), **self._context.waits}

    def events(self, who: Who, reference: str) -> Sequence[EventRecord]:
        """The events of a run, in order."""
        return self._store.events(self._access.resolve(who, reference))

    def artifacts(self, who: Who, reference: str) -> Sequence[ArtifactRecord]:
        """The outputs of a run, and the files that were not kept."""
        return self._store.artifacts(self._access.resolve(who, reference))
