"""Casts, lists, follows and ends runs. Every cast loads this module, so it loads little."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.client.code import CapturedCode, Code
from orchestrator.client.transport import Transport, quote
from orchestrator.errors import SnapshotMissing
from orchestrator.records import from_wire
from orchestrator.records.casts import CastRecord
from orchestrator.records.position import Position
from orchestrator.spec.run import RunSpec, to_wire

if TYPE_CHECKING:
    from orchestrator.client.follow import Followed
    from orchestrator.records.events import EventRecord
    from orchestrator.records.files import ArtifactRecord
    from orchestrator.records.plans import PlanRecord
    from orchestrator.records.run_summary import RunSummary
    from orchestrator.records.runs import RunRecord
    from orchestrator.spec.filters import Filter

_QUERY_NAMES = {"states": "state", "labels": "label", "machine_types": "machine_type", "metrics": "metric"}


class Runs:
    """Casts, lists, follows and ends runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._call = transport, transport.call

    def cast(self, spec: RunSpec, code: CapturedCode | None = None, *, reuse: bool = False) -> CastRecord:
        """Cast a run.

        Args:
            code: of the run, as `orchestrator.capture.snapshot` captures it; only blobs that the server lacks are sent.
            reuse: return an identical complete run if there is one, instead of casting a new one.

        Raises:
            SpellError: of the class that the server raised.
        """
        if code is not None and spec.code is None:
            spec = dataclasses.replace(spec, code=code.code)
        body, query = to_wire(spec), {"reuse": "true"} if reuse else {}
        ask = functools.partial(self._transport.cast, "/runs", body, query)
        try:
            return from_wire(CastRecord, ask())
        except SnapshotMissing:
            if code is None:
                raise
        Code(self._transport).send(code)
        return from_wire(CastRecord, ask())

    def plan(self, spec: RunSpec, code: CapturedCode | None = None, *, reuse: bool = False) -> PlanRecord:
        """Return what `cast` would do now, without casting. Raises as `cast`."""
        from orchestrator.records.plans import PlannedMount, PlanRecord  # 0.5 ms, which no cast needs

        if code is not None and spec.code is None:
            spec = dataclasses.replace(spec, code=code.code)
        body = {"spec": to_wire(spec), "blobs": sorted(code.sizes) if code else []}
        if code and spec.editables:  # the packages that its projects need
            body["manifest"] = code.manifest.to_json()
        query = {"reuse": "true"} if reuse else {}
        found = self._call("POST", "/runs/plan", json=body, params=query, may_repeat=True)
        mounts = [from_wire(PlannedMount, item) for item in found.pop("mounts")]
        return from_wire(PlanRecord, {**found, "mounts": mounts})

    def rerun(self, reference: int | str, changes: Mapping[str, Any] | None = None) -> CastRecord:
        """Cast a run again: same code, package versions, image and mounts.

        Args:
            changes: fields of a spec as JSON values. A mapping or list adds to the run's value, any other replaces it.

        Raises:
            SpellError: of the class that the server raised.
        """
        return from_wire(CastRecord, self._transport.cast(f"{_path(reference)}/rerun", changes or {}))

    def resume(
        self,
        reference: int | str,
        changes: Mapping[str, Any] | None = None,
        code: CapturedCode | None = None,
    ) -> CastRecord:
        """Cast a run again that begins with the checkpoints of the earlier one, which are copied.

        Args:
            reference: the run, or a folder of its outputs that has checkpoints: `runs/7/output`.
            changes: as of `rerun`; also another `command`.
            code: takes the place of the earlier code, as in `cast`.

        Raises:
            SpellError: of the class that the server raised.
        """
        named, wanted = str(reference), dict(changes or {})
        if named.startswith("runs/"):
            wanted = {"resume": named, **wanted}
            named = named.split("/")[1]
        if code is not None:
            wanted["code"] = to_wire(code.code)
        ask = functools.partial(self._transport.cast, f"{_path(named)}/resume", wanted)
        try:
            return from_wire(CastRecord, ask())
        except SnapshotMissing:
            if code is None:
                raise
        Code(self._transport).send(code)
        return from_wire(CastRecord, ask())

    def get(self, reference: int | str) -> RunRecord:
        """Return the whole record of one run."""
        from orchestrator.records.runs import run_from_wire  # 5 ms, which no cast needs

        return run_from_wire(self._call("GET", _path(reference)))

    def stop(self, reference: int | str) -> str:
        """Stop a run and keep its outputs. Returns its state afterwards."""
        return str(self._transport.change(_path(reference), "stop", wish="stop")["state"])

    def kill(self, reference: int | str) -> str:
        """End a run at once; its outputs are lost. Returns its state afterwards."""
        return str(self._transport.change(_path(reference), "kill", wish="kill")["state"])

    def wait(self, reference: int | str, timeout_s: float | None = None) -> RunSummary:
        """Wait until a run has ended.

        Raises:
            TimeoutError: if it has not ended after `timeout_s` seconds.
        """
        from orchestrator.states import FINAL  # 2 ms, and a cast in the background needs none of it

        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if timeout_s is not None:
            run = self.get(reference)
            if run.state in FINAL:
                return run  # also if `timeout_s` is 0
            reference = run.number  # `latest` may be another run by now
        for item in self.follow(reference, Position.END, deadline):
            if item.run:
                return item.run
        raise AssertionError("the stream ended without an `end` item")

    def follow(
        self, reference: int | str, position: Position = Position.START, deadline: float | None = None
    ) -> Iterator[Followed]:
        """Yield the events and log of a run in order, until it has ended.

        After a lost connection or a restart of the server it continues; no item is missed or yielded twice.

        Args:
            position: of the last item that was seen.
            deadline: a value of `time.monotonic()` after which TimeoutError is raised.

        Raises:
            ServerUnavailable: if no server answers for a minute.
            TimeoutError: after `deadline`.
        """
        from orchestrator.client.follow import follow  # 2 ms, and a cast in the background needs none of it

        number = str(reference)
        if not number.isdecimal():
            number = str(self.get(reference).number)
        yield from follow(self._transport, number, position, deadline)

    def events(self, reference: int | str) -> list[EventRecord]:
        """Return the events of a run, in order."""
        from orchestrator.records.events import EventRecord  # 2 ms, which no cast needs

        return [from_wire(EventRecord, item) for item in self._call("GET", f"{_path(reference)}/events")]

    def artifacts(self, reference: int | str) -> list[ArtifactRecord]:
        """Return the records of a run's outputs."""
        from orchestrator.records.files import ArtifactRecord  # 2 ms, which no cast needs

        return [from_wire(ArtifactRecord, item) for item in self._call("GET", f"{_path(reference)}/artifacts")]

    def list(
        self, wanted: Filter | None = None, sort: str = "", *, limit: int = 50, before: int = 0, skip: int = 0
    ) -> list[RunSummary]:
        """Return the runs that match, the last `limit` of them in this order.

        Args:
            sort: a key of `orchestrator.spec.filters`; "" puts the newest last.
            limit: maximum number of runs.
            before: only runs with smaller numbers, to page through runs by number; 0 for no bound.
            skip: leave out this many at the end, to page through runs in another order.

        Raises:
            UsageError, InvalidConfig: if the filter or the key is invalid.
        """
        from orchestrator.records.run_summary import RunSummary  # 2 ms, which no cast needs

        given = dataclasses.asdict(wanted) if wanted else {}
        query = {_QUERY_NAMES.get(name, name): value for name, value in given.items()}
        query |= {"sort": sort, "limit": limit, "before": before, "skip": skip}
        return [from_wire(RunSummary, item) for item in self._call("GET", "/runs", params=query)]


def _path(reference: int | str) -> str:
    return f"/runs/{quote(reference)}"
