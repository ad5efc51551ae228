"""What the API answers of runs that are compared, traced and verified. As in `orchestrator.records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records import from_wire


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One thing that differs between two runs; None where one of them does not have it, `***` for what is hidden."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class CodeChangeRecord:
    """One file of the code that differs.

    Attributes:
        kind: `added`, `removed`, `changed` (its content), `renamed` (content and mode stay), or `mode`.
        before_path: what it was called; "" for an added file.
        before_mode, after_mode: as git has them; "" where there is no file.
        patch: hunks of a unified diff; "" where there is nothing to show.
        note: why no patch is shown: `binary`, `too big`, …; "" otherwise.
    """

    path: str
    kind: str
    before_path: str
    before_mode: str
    after_mode: str
    patch: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class OutputChangeRecord:
    """One output that differs: `added`, `removed` or `changed`. A hash is None where it is not known."""

    path: str
    kind: str
    before_size: int | None
    after_size: int | None
    before_sha256: str | None
    after_sha256: str | None


@dataclass(frozen=True, slots=True)
class MetricChangeRecord:
    """A metric whose last value differs; None where it was never sent."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class DiffRecord:
    """What differs between two runs; a part that was not asked for is empty.

    Attributes:
        differs: whether anything does, how long they took left aside.
        outputs_same: how many outputs are the same in both.
        outputs_unhashed: paths of outputs that may be the same: their hashes are still being computed.
        notes: what could not be compared, in words.
    """

    before: int
    after: int
    differs: bool
    spec: list[ChangeRecord]
    environment: list[ChangeRecord]
    code: list[CodeChangeRecord]
    outputs: list[OutputChangeRecord]
    outputs_same: int
    outputs_unhashed: list[str]
    metrics: list[MetricChangeRecord]
    result: list[ChangeRecord]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One thing of a lineage.

    Attributes:
        id: `runs/3`, `uploads/cifar`.
        kind: `run`, `upload`, or `gone`: nothing is known of it any more.
        run: the number of a run.
        outputs_gone: whether the outputs that a run left were removed.
        links: names of links that lead to it.
        workflow, step: the workflow that cast it, and as what.
    """

    id: str
    kind: str
    run: int | None
    name: str
    state: str
    exit_code: int | None
    command: str
    archived: bool
    outputs_gone: bool
    rerun_of: int | None
    links: list[str]
    workflow: int | None
    step: str


@dataclass(frozen=True, slots=True)
class EdgeRecord:
    """A mount: the run `target` sees `resource` of `source` at `path`."""

    source: str
    target: str
    resource: str
    path: str


@dataclass(frozen=True, slots=True)
class LineageRecord:
    """What a run was made of, and what was made of it: a graph without cycles.

    Attributes:
        root: the run that was asked about.
        complete: whether this is all; False when there is more than is ever told.
    """

    root: str
    nodes: list[NodeRecord]
    edges: list[EdgeRecord]
    complete: bool


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """An output that is not as it was recorded.

    Attributes:
        problem: `missing`, `changed`, `extra`, `unhashed` (nothing is known to compare it with) or `unreadable`.
        expected, found: SHA-256 of what was recorded, and of what is there; "" where there is none.
    """

    path: str
    problem: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class VerifyRecord:
    """What comparing a run's outputs with its manifest has shown."""

    run: int
    ok: bool
    files: int
    bytes: int
    problems: list[ProblemRecord]


def diff_from_wire(body: Mapping[str, Any]) -> DiffRecord:
    """The record in a JSON object."""
    kinds: dict[str, type] = {
        "spec": ChangeRecord,
        "environment": ChangeRecord,
        "code": CodeChangeRecord,
        "outputs": OutputChangeRecord,
        "metrics": MetricChangeRecord,
        "result": ChangeRecord,
    }
    lists: dict[str, Any] = {name: [from_wire(kind, item) for item in body[name]] for name, kind in kinds.items()}
    return from_wire(DiffRecord, {**body, **lists})


def lineage_from_wire(body: Mapping[str, Any]) -> LineageRecord:
    """The record in a JSON object."""
    nodes = [from_wire(NodeRecord, item) for item in body["nodes"]]
    edges = [from_wire(EdgeRecord, item) for item in body["edges"]]
    return from_wire(LineageRecord, {**body, "nodes": nodes, "edges": edges})


def verify_from_wire(body: Mapping[str, Any]) -> VerifyRecord:
    """The record in a JSON object."""
    problems = [from_wire(ProblemRecord, item) for item in body["problems"]]
    return from_wire(VerifyRecord, {**body, "problems": problems})
