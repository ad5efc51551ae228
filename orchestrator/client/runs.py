"""Runs of a server: cast, list, follow and end them. A cast loads this module, and so it loads little."""

from __future__ import annotations

import dataclasses
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
    from orchestrator.records.run_summary import RunSummary
    from orchestrator.records.runs import RunRecord, SampleRecord
    from orchestrator.spec.filters import Filter

_QUERY_NAMES = {"states": "state", "labels": "label", "machine_types": "machine_type", "metrics": "metric"}


class Runs:
    """Casts runs, finds them, follows them and ends them."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._call = transport, transport.call

    def cast(self, spec: RunSpec, code: CapturedCode | None = None, *, reuse: bool = False) -> CastRecord:
        """Cast a run.

        Args:
            code: what it is to see, as `orchestrator.capture.snapshot` takes it; sent only as far as the server lacks it.
            reuse: take an identical run that is complete, where there is one.

        Raises:
            SpellError: whatever the server refuses, as the class that it raised.
        """
        if code is not None and spec.code is None:
            spec = dataclasses.replace(spec, code=code.code)
        body, query = to_wire(spec), {"reuse": "true"} if reuse else {}
        try:
            return from_wire(CastRecord, self._call("POST", "/runs", json=body, params=query))
        except SnapshotMissing:
            if code is None:
                raise
        Code(self._transport).send(code)
        return from_wire(CastRecord, self._call("POST", "/runs", json=body, params=query))

    def rerun(self, reference: str, changes: Mapping[str, Any] | None = None) -> CastRecord:
        """Cast a run again: same code, package versions, image and mounts.

        Args:
            changes: fields of a spec, as JSON values: a mapping or list adds to what the run has, another value replaces.

        Raises:
            SpellError: whatever the server refuses, as the class that it raised.
        """
        return from_wire(CastRecord, self._call("POST", f"{_path(reference)}/rerun", json=changes or {}))

    def get(self, reference: str) -> RunRecord:
        """All about one run."""
        from orchestrator.records.runs import run_from_wire  # 5 ms, which no cast needs

        return run_from_wire(self._call("GET", _path(reference)))

    def stop(self, reference: str) -> str:
        """End a run; its outputs are kept. Returns its state after that."""
        return str(self._call("POST", f"{_path(reference)}/stop")["state"])

    def kill(self, reference: str) -> str:
        """End a run at once; its outputs are lost. Returns its state after that."""
        return str(self._call("POST", f"{_path(reference)}/kill")["state"])

    def wait(self, reference: str, timeout_s: float | None = None) -> RunSummary:
        """Wait until a run has ended.

        Raises:
            TimeoutError: when `timeout_s` passed before.
        """
        from orchestrator.states import FINAL  # 2 ms, which a cast in the background need not wait for

        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if timeout_s is not None and (run := self.get(reference)).state in FINAL:
            return run  # however little time there was
        for item in self.follow(reference, Position.END, deadline):
            if item.run:
                return item.run
        raise AssertionError("a stream ends with its end")

    def follow(
        self, reference: str, position: Position = Position.START, deadline: float | None = None
    ) -> Iterator[Followed]:
        """Everything that a run does, in order, from a position on, until it has ended.

        A lost connection, or a server that restarts, is waited for; nothing is missed and nothing told twice.

        Args:
            position: that of the last item that was seen.
            deadline: a value of `time.monotonic()` after which TimeoutError is raised.

        Raises:
            ServerUnavailable: when no server answered for a minute.
            TimeoutError: see `deadline`.
        """
        from orchestrator.client.follow import follow  # 2 ms, which a cast in the background need not wait for

        number = reference if reference.isdecimal() else str(self.get(reference).number)
        yield from follow(self._transport, number, position, deadline)

    def events(self, reference: str) -> list[EventRecord]:
        """What happened to a run, in order."""
        from orchestrator.records.events import EventRecord  # 2 ms, which no cast needs

        return [from_wire(EventRecord, item) for item in self._call("GET", f"{_path(reference)}/events")]

    def artifacts(self, reference: str) -> list[ArtifactRecord]:
        """The manifest of a run's outputs."""
        from orchestrator.records.files import ArtifactRecord  # 2 ms, which no cast needs

        return [from_wire(ArtifactRecord, item) for item in self._call("GET", f"{_path(reference)}/artifacts")]

    def samples(self, reference: str) -> list[SampleRecord]:
        """What a run used of the machine."""
        from orchestrator.records.runs import SampleRecord  # 5 ms, which no cast needs

        return [from_wire(SampleRecord, item) for item in self._call("GET", f"{_path(reference)}/samples")]

    def list(
        self, wanted: Filter | None = None, sort: str = "", *, limit: int = 50, before: int = 0, skip: int = 0
    ) -> list[RunSummary]:
        """Runs that match, the last `limit` of them in this order.

        Args:
            sort: see `orchestrator.spec.filters`; the newest comes last for "".
            before: only runs with smaller numbers (for paging); 0 for no bound.
            skip: leave out so many at the end (for paging where they are sorted otherwise).

        Raises:
            UsageError, InvalidConfig: what cannot be asked.
        """
        from orchestrator.records.run_summary import RunSummary  # 2 ms, which no cast needs

        given = dataclasses.asdict(wanted) if wanted else {}
        query = {_QUERY_NAMES.get(name, name): value for name, value in given.items()}
        query |= {"sort": sort, "limit": limit, "before": before, "skip": skip}
        return [from_wire(RunSummary, item) for item in self._call("GET", "/runs", params=query)]


def _path(reference: str) -> str:
    return f"/runs/{quote(reference)}"
