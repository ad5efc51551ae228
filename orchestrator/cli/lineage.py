"""`spell lineage`: prints the runs that a run mounted, and those that mounted it, as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.client.client import connect
from orchestrator.records.compare import EdgeRecord, LineageRecord, NodeRecord

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_CELLS = 60
_MOST_LINES = 1000


@click.command(context_settings=_HELP)
@click.argument("run", shell_complete=complete.runs)
@click.option("--up", is_flag=True, help="Show only the resources that it mounted, theirs, and so on.")
@click.option("--down", is_flag=True, help="Show only the runs that mounted its outputs, theirs, and so on.")
@click.option("--depth", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Depth of the tree.")
@click.option("--json", "json_", is_flag=True, help="Print nodes and edges of any depth as JSON.")
def lineage(run: str, up: bool, down: bool, depth: int, json_: bool) -> None:
    """Show the runs and uploads that RUN mounted, and the runs that mounted it, as a tree."""
    both = up == down
    with connect() as client:
        found = client.lineage.get(run, up=up or both, down=down or both)
    if json_:
        show.as_json(found)
        return
    lines = [*_tree(found, up=up or both, down=down or both, depth=depth)]
    click.echo("\n".join(show.plain(show.line(line)) for line in lines[:_MOST_LINES]))
    if len(lines) > _MOST_LINES or not found.complete:
        show.warn("The tree is not complete. Use --json to see up to 10,000 mounts.")


def _tree(found: LineageRecord, *, up: bool, down: bool, depth: int) -> Iterator[str]:
    nodes = {node.id: node for node in found.nodes}
    yield _described(nodes[found.root])
    sources: dict[str, list[EdgeRecord]] = {}
    users: dict[str, list[EdgeRecord]] = {}
    for edge in found.edges:
        sources.setdefault(edge.target, []).append(edge)
        users.setdefault(edge.source, []).append(edge)
    if up:
        yield "Made of" if found.root in sources else "It has no mounts."
        yield from _branches(found.root, nodes, sources, lambda edge: edge.source, depth)
    if down:
        yield "Used by" if found.root in users else "No run mounted its outputs."
        yield from _branches(found.root, nodes, users, lambda edge: edge.target, depth)


def _branches(
    root: str,
    nodes: Mapping[str, NodeRecord],
    edges: Mapping[str, Sequence[EdgeRecord]],
    other_end: Callable[[EdgeRecord], str],
    depth: int,
) -> Iterator[str]:
    """Yield the lines below a run, without recursion, because chains may be very long."""
    seen = {root}
    todo = [(edge, "", place == 0, 1) for place, edge in enumerate(reversed(edges.get(root, ())))]
    while todo:
        edge, before, is_last, level = todo.pop()
        name = other_end(edge)
        below = edges.get(name, ())
        line = f"{before}{'└─' if is_last else '├─'} {edge.resource} {'copied to' if edge.copied else 'at'} {edge.path}: {_described(nodes[name])}"
        if name in seen and below:
            yield f"{line} (see above)"
            continue
        is_cut = bool(below) and level >= depth
        yield f"{line} … (deeper: --depth {level + 10})" if is_cut else line
        if is_cut:
            continue
        seen.add(name)
        deeper = before + ("   " if is_last else "│  ")
        todo += [(item, deeper, place == 0, level + 1) for place, item in enumerate(reversed(below))]


def _described(node: NodeRecord) -> str:
    if node.kind != "run":
        return f"{node.id} (gone)" if node.kind == "gone" else node.id
    name = f" {node.name}" if node.name else ""
    facts = [show.state(node.state, node.exit_code, None, None)]
    facts += ["archived"] if node.archived else []
    facts += ["outputs removed"] if node.outputs_gone else []
    facts += [f"rerun of {node.rerun_of}"] if node.rerun_of else []
    facts += [f"workflow {node.workflow}, step {node.step}"] if node.workflow else []
    facts += [f"link {alias}" for alias in node.links]
    return f"run {node.run}{name} ({', '.join(facts)}): {show.cut(node.command, _CELLS)}"
