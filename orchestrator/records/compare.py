"""Comparisons, lineage and verification of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records import from_wire


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One difference between two runs; None for a run that lacks the field, `***` for hidden values."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class CodeChangeRecord:
    """One file of the code that differs.

    Attributes:
        kind: `added`, `removed`, `changed` (its content), `renamed` (same content and mode), or `mode`.
        before_path: its earlier path; "" for an added file.
        before_mode, after_mode: as in git; "" for no file.
        patch: hunks of a unified diff; "" for none.
        note: the reason for no patch: `binary`, `too big`, …; "" otherwise.
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
    """One output that differs: `added`, `removed` or `changed`. An unknown hash is None."""

    path: str
    kind: str
    before_size: int | None
    after_size: int | None
    before_sha256: str | None
    after_sha256: str | None


@dataclass(frozen=True, slots=True)
class MetricChangeRecord:
    """A metric whose last value differs; None for a run that never sent it."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class DiffRecord:
    """The differences between two runs; sections that were not requested are empty.

    Attributes:
        differs: whether anything differs, except the duration.
        outputs_same: the number of equal outputs.
        outputs_unhashed: paths of outputs that may be equal: their hashes are still being computed.
        notes: sentences about parts that could not be compared.
    """

    before: int
    after: int
    differs: bool
    spec: list[ChangeRecord]
    logged: list[ChangeRecord]
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
    """A node of a lineage.

    Attributes:
        id: `runs/3`, `uploads/cifar`.
        kind: `run`, `upload`, or `gone` if no record of it exists.
        run: the number of a run.
        outputs_gone: whether its outputs were removed.
        links: names of links that lead to it.
        workflow, step: the workflow that cast it, and as which step.
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
    """A mount: the run `target` sees `resource` of `source` at `path`; or has begun with a copy of it there (`copied`)."""

    source: str
    target: str
    resource: str
    path: str
    copied: bool = False


@dataclass(frozen=True, slots=True)
class LineageRecord:
    """The resources that a run mounted, and the runs that mounted its outputs: a graph without cycles.

    Attributes:
        root: the requested run.
        complete: whether the graph is complete; False if it was cut at its limit.
    """

    root: str
    nodes: list[NodeRecord]
    edges: list[EdgeRecord]
    complete: bool


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """An output that differs from its record.

    Attributes:
        problem: `missing`, `changed`, `extra`, `unhashed` (the record has no hash) or `unreadable`.
        expected, found: SHA-256 of the record, and of the file; "" for none.
    """

    path: str
    problem: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class VerifyRecord:
    """The result of comparing the outputs of a run with its manifest."""

    run: int
    ok: bool
    files: int
    bytes: int
    problems: list[ProblemRecord]


def diff_from_wire(body: Mapping[str, Any]) -> DiffRecord:
    """The record in a JSON object."""
    kinds: dict[str, type] = {
        "spec": ChangeRecord,
        "logged": ChangeRecord,
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
