"""Lineage: the resources that a run mounted, and the runs that mounted its outputs."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.lifecycle.context import Context
from orchestrator.records.compare import EdgeRecord, LineageRecord, NodeRecord
from orchestrator.service.access import Access, Who
from orchestrator.store.lineage import MountRow

MOST_NODES = 10_000


class Lineage:
    """Follows the mounts of one home."""

    def __init__(self, context: Context, access: Access) -> None:
        self._home, self._store, self._access = context.home, context.store.lineage, access

    def get(self, who: Who, reference: str, *, up: bool, down: bool) -> LineageRecord:
        """The lineage of a run.

        Args:
            up: include the resources that it mounted, those that their runs mounted, and so on.
            down: include the runs that mounted its outputs, and so on.

        Raises:
            NotFound: the run does not exist.
        """
        root = self._access.resolve(who, reference)
        found = [self._follow(root, up=True)] if up else []
        found += [self._follow(root, up=False)] if down else []
        edges = list(dict.fromkeys(edge for mounts, _ in found for edge in mounts))
        return LineageRecord(
            root=f"runs/{root}",
            nodes=self._nodes(root, edges),
            edges=[
                EdgeRecord(_source(item), f"runs/{item.run}", item.resource, item.path, item.copied) for item in edges
            ],
            complete=all(complete for _, complete in found),
        )

    def _follow(self, root: int, *, up: bool) -> tuple[list[MountRow], bool]:
        """The mounts in one direction, nearest first, and whether these are all."""
        edges: list[MountRow] = []
        seen, front = {root}, {root}
        while front:
            rows = list(self._store.mounts_of(front) if up else self._store.mounts_from(front))
            if len(edges) + len(rows) > MOST_NODES:
                return edges + rows[: MOST_NODES - len(edges)], False
            edges += rows
            front = {item.source_run if up else item.run for item in rows if item.source_run is not None} - seen
            seen |= front
        return edges, True

    def _nodes(self, root: int, edges: Iterable[MountRow]) -> list[NodeRecord]:
        edges = list(edges)
        numbers = {root} | {item.run for item in edges}
        numbers |= {item.source_run for item in edges if item.source_run is not None}
        runs, steps, links = self._store.runs(numbers), self._store.steps(numbers), self._store.links(numbers)
        nodes = []
        for number in sorted(numbers):
            run = runs.get(number)
            if run is None:
                nodes.append(_bare(f"runs/{number}", "gone", number))
                continue
            workflow, step = steps.get(number, (None, ""))
            nodes.append(
                NodeRecord(
                    id=f"runs/{number}",
                    kind="run",
                    run=number,
                    name=run.name,
                    state=run.state,
                    exit_code=run.exit_code,
                    command=run.command,
                    archived=run.archived,
                    outputs_gone=bool(run.outputs_count) and not self._home.run_dir(number).exists(),
                    rerun_of=run.rerun_of,
                    links=links.get(number, []),
                    workflow=workflow,
                    step=step,
                )
            )
        leaves = sorted({_source(item) for item in edges if item.source_run is None})
        return nodes + [_leaf(self._home.uploads.parent.joinpath(name).exists(), name) for name in leaves]


def _source(item: MountRow) -> str:
    if item.source_run is not None:
        return f"runs/{item.source_run}"
    return "/".join(item.resource.split("/")[:2])


def _leaf(is_there: bool, name: str) -> NodeRecord:  # noqa: FBT001
    return _bare(name, "upload" if is_there else "gone")


def _bare(name: str, kind: str, run: int | None = None) -> NodeRecord:
    return NodeRecord(
        id=name,
        kind=kind,
        run=run,
        name="",
        state="",
        exit_code=None,
        command="",
        archived=False,
        outputs_gone=kind == "gone",
        rerun_of=None,
        links=[],
        workflow=None,
        step="",
    )
