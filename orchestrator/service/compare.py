"""Compares two runs: their specs, logged parameters, environments, code, outputs, metrics and results.

Values of variables and webhooks are compared, but never shown. Of outputs only the records are compared, not the files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from packaging.utils import canonicalize_name

from orchestrator.content.manifest import Manifest
from orchestrator.errors import CodeFailed, SnapshotMissing, UsageError
from orchestrator.lifecycle.context import Context
from orchestrator.records.compare import (
    ChangeRecord,
    CodeChangeRecord,
    DiffRecord,
    MetricChangeRecord,
    OutputChangeRecord,
)
from orchestrator.records.runs import RunRecord
from orchestrator.service.access import Access, Who
from orchestrator.service.code_changes import code_changes
from orchestrator.service.metrics import Metrics
from orchestrator.spec.fields import BY_NAME
from orchestrator.spec.mounts import normal_path
from orchestrator.spec.run import to_wire
from orchestrator.spec.validate import read_spec
from orchestrator.states import ACTIVE, spoken
from orchestrator.store.lineage import OutputRow

SECTIONS = ("spec", "logged", "environment", "code", "outputs", "metrics", "result")
_HASHES_LIMIT_S, _POLL_S = 2.0, 0.02
_ORIGIN = ("subdir", "repository", "commit", "dirty", "url", "ref")
_RESULT = ("state", "exit_code", "signal", "reason", "duration_s")


class Compare:
    """Compares runs of one home."""

    def __init__(self, context: Context, access: Access, metrics: Metrics) -> None:
        self._context, self._access, self._sent = context, access, metrics

    def diff(self, who: Who, before: str, after: str, sections: Collection[str] = ()) -> DiffRecord:
        """The differences between two runs.

        Args:
            before, after: references of them.
            sections: some of `SECTIONS`; empty for all.

        Raises:
            NotFound: a run does not exist.
            UsageError: a section does not exist.
        """
        for name in sections:
            if name not in SECTIONS:
                raise UsageError(f"There is no section {name!r}.", f"There are: {', '.join(SECTIONS)}.")
        store = self._context.store
        old, new = (store.record(number) for number in self._access.resolve_all(who, (before, after)))
        wanted = set(sections or SECTIONS)
        notes = [f"Run {run.number} is still {spoken(run.state)}." for run in (old, new) if run.state in ACTIVE]
        changes: dict[str, list[ChangeRecord]] = {
            "spec": [item for item in _hidden(_differing(_spec_of(old), _spec_of(new))) if not _is_pinned(item)],
            "logged": list(_differing(old.logged, new.logged)),
            "environment": list(_differing(_environment(old), _environment(new))),
            "result": list(_differing(_result(old), _result(new))),
        }
        changes = {name: found if name in wanted else [] for name, found in changes.items()}
        code = self._code(old, new, notes) if "code" in wanted else []
        outputs, same, unhashed = self._outputs(old, new) if "outputs" in wanted else ([], 0, [])
        metrics = self._metrics(old, new) if "metrics" in wanted else []
        counted = [item for item in changes["result"] if item.name != "duration_s"]
        return DiffRecord(
            before=old.number,
            after=new.number,
            differs=bool(
                changes["spec"] or changes["logged"] or changes["environment"] or counted or code or outputs or metrics
            ),
            **changes,
            code=code,
            outputs=outputs,
            outputs_same=same,
            outputs_unhashed=unhashed,
            metrics=metrics,
            notes=notes,
        )

    def _code(self, old: RunRecord, new: RunRecord, notes: list[str]) -> list[CodeChangeRecord]:
        trees = [(run.spec.get("code") or {}).get("tree") for run in (old, new)]
        if trees[0] == trees[1]:
            return []
        manifests = []
        for run, tree in zip((old, new), trees, strict=True):
            try:
                manifests.append(self._context.blobs.tree(tree) if tree else Manifest(()))
            except (SnapshotMissing, CodeFailed):
                notes.append(f"The code of run {run.number} is not kept any more; it is not the same.")
        return code_changes(self._context.home, *manifests) if len(manifests) == 2 else []

    def _outputs(self, old: RunRecord, new: RunRecord) -> tuple[list[OutputChangeRecord], int, list[str]]:
        """The outputs that differ, the number of equal ones, and the paths of those that have no hash yet."""
        if old.number == new.number:
            return [], old.outputs_count, []
        deadline = time.monotonic() + _HASHES_LIMIT_S
        while True:
            before, after = (self._context.store.lineage.outputs(run.number) for run in (old, new))
            unhashed = [path for path, item in before.items() if _unknown(item, after.get(path))]
            if not unhashed or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)  # the hasher sends no signal; for most runs it needs a moment only
        waiting = set(unhashed)
        found, same = [], 0
        for path in sorted(before.keys() | after.keys()):
            one, other = before.get(path), after.get(path)
            if one and other and _is_same(one, other):
                same += 1
            elif path not in waiting:
                found.append(_output(path, one, other))
        return found, same, unhashed

    def _metrics(self, old: RunRecord, new: RunRecord) -> list[MetricChangeRecord]:
        one, other = (self._sent.last(run.number) for run in (old, new))
        names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        return [MetricChangeRecord(name, one.get(name), other.get(name)) for name in names]


def _unknown(one: OutputRow, other: OutputRow | None) -> bool:
    """Whether both have the same size and mode, and a hash is missing that would tell them apart."""
    looks_same = other is not None and (one.size, one.mode) == (other.size, other.mode)
    return looks_same and (one.sha256 is None or (other is not None and other.sha256 is None))


def _is_same(one: OutputRow, other: OutputRow) -> bool:
    return bool(one.sha256) and (one.mode, one.sha256) == (other.mode, other.sha256)


def _output(path: str, one: OutputRow | None, other: OutputRow | None) -> OutputChangeRecord:
    kind = "changed" if one and other else "removed" if one else "added"
    return OutputChangeRecord(
        path,
        kind,
        one.size if one else None,
        other.size if other else None,
        (one.sha256 or None) if one else None,
        (other.sha256 or None) if other else None,
    )


def _differing(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> Iterator[ChangeRecord]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield ChangeRecord(name, old.get(name), new.get(name))


def _is_pinned(item: ChangeRecord) -> bool:
    """Whether only one spec names the executor or image, as that of a rerun does: both runs may have had the same."""
    return item.name in ("executor", "image") and None in (item.before, item.after)


def _hidden(changes: Iterator[ChangeRecord]) -> Iterator[ChangeRecord]:
    for item in changes:
        field = BY_NAME[item.name.partition(".")[0]]
        yield ChangeRecord(item.name, *(value and field.shown(value) for value in (item.before, item.after)))


def _spec_of(run: RunRecord) -> dict[str, str | None]:
    """The spec as a flat mapping: one name for each field, variable, parameter and mount."""
    found: dict[str, str | None] = {}
    for name, value in to_wire(read_spec(run.spec)).items():
        if name == "code":
            found |= {f"code.{field}": _text(value[field]) for field in _ORIGIN} if value else {}
        elif name == "mounts":
            found |= {f"mounts.{normal_path(item['path'])}": item["resource"] for item in value}
        elif name == "requirements":
            found |= {f"requirements.{item['name']}": item["text"] or None for item in value}
        elif isinstance(value, dict):
            # an empty value differs from no variable
            found |= {f"{name}.{key}": str(item) or '""' for key, item in value.items()}
        else:
            found[name] = _text(value)
    return found


def _environment(run: RunRecord) -> dict[str, str | None]:
    found = {"executor": _text(run.executor), "python": _text(run.python), "image": run.image}
    for line in run.packages:
        name, _, version = line.partition("==") if "==" in line and " @ " not in line else line.partition(" @ ")
        found[f"packages.{canonicalize_name(name)}"] = version
    return found


def _result(run: RunRecord) -> dict[str, str | None]:
    return {name: _text(getattr(run, name)) for name in _RESULT}


def _text(value: Any) -> str | None:
    """A value as text; None for an empty one."""
    if value is None or value in ("", [], {}):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
