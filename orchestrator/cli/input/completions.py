"""Values for shell completion: runs, states, labels, searches, machine types and resources, asked of the home's server.

Completion never starts a server, and completes nothing when there is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from orchestrator.client.client import Client, connect
from orchestrator.errors import SpellError
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.filters import Filter
from orchestrator.states import State

_RUNS = 100


def ask(find: Callable[[Client, str], Iterator[tuple[str, str]]], incomplete: str) -> dict[str, str]:
    """The words that one of the functions below finds, and a help text for each."""
    try:
        with connect(start=False) as client:
            return dict(find(client, incomplete))
    except SpellError:
        return {}


def runs(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Numbers and names, newest first."""
    yield from _named(client.runs.list(limit=_RUNS))
    yield "latest", "the newest run"


def active(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Runs that have not ended."""
    yield from _named(client.runs.list(Filter(states=("active",)), limit=_RUNS))
    yield "latest", "the newest run"


def archived(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Archived runs."""
    yield from _named(client.runs.list(Filter(archived=True), limit=_RUNS))


def _named(found: Sequence[RunSummary]) -> Iterator[tuple[str, str]]:
    for item in reversed(found):
        words = " ".join(f"{item.state}: {item.command}".split())
        yield str(item.number), words
        if item.name:
            yield item.name, words


def names(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of runs."""
    for item in reversed(client.runs.list(limit=_RUNS)):
        if item.name:
            yield item.name, item.description


def labels(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Labels of runs."""
    for item in reversed(client.runs.list(limit=_RUNS)):
        yield from ((label, "") for label in item.labels)


def searches(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Numbers of searches, newest first."""
    for item in reversed(client.searches.list(limit=_RUNS)):
        yield str(item.number), " ".join(f"{item.kind}, {item.state}: {item.command}".split())
    yield "latest", "the newest search"


def workflows(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Numbers and names of workflows, newest first."""
    for item in reversed(client.workflows.list(limit=_RUNS)):
        yield str(item.number), f"{item.state}: {item.name}"
        yield item.name, item.state
    yield "latest", "the newest workflow"


def uploads(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Uploads, as resources."""
    for item in client.uploads.list():
        yield f"uploads/{item.name}", f"{item.count} file{'s' * (item.count != 1)}"


def machine_types(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Machine types."""
    for item in client.machines.list():
        yield item.name, f"{item.cpus:g} core{'s' * (item.cpus != 1)}, {item.gpus} GPU{'s' * (item.gpus != 1)}"


def resources(client: Client, incomplete: str) -> Iterator[tuple[str, str]]:
    """Paths of outputs and uploads, one folder at a time."""
    folder = incomplete.rpartition("/")[0]
    for item in client.resources.list(folder):
        if "\n" in item.path:  # a shell reads a completion to the end of its line
            continue
        path = f"{folder}/{item.path}" if folder else item.path
        yield path + "/" * item.is_dir, ""


def secrets(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of secrets."""
    for item in client.secrets.list():
        yield item.name, ""


def projects(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of projects."""
    for item in client.projects.list():
        yield item.name, item.description


def links(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Aliases of resources."""
    for item in client.links.list():
        yield item.alias, item.resource


def states(_client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    """The states that `ps --state` takes."""
    yield from ((word, "") for word in ("active", "queued", *State))
