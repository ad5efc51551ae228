"""Values for shell completion: runs, states, labels, metrics, machine types, resources and more, asked of the home's server.

Completion never starts a server, and completes nothing when there is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.client.client import Client, connect
from orchestrator.errors import SpellError
from orchestrator.records.run_summary import RunSummary
from orchestrator.records.searches import SearchSummary
from orchestrator.records.workflows import WorkflowSummary
from orchestrator.spec.filters import Filter
from orchestrator.states import ACTIVE, SearchState, State, WorkflowState

_RUNS = 100
_RUNS_WITH_METRICS = 5  # one request for each


class Typed(NamedTuple):
    """What a person has typed.

    Attributes:
        incomplete: the beginning of the word.
        params: the words before it, by the names of their parameters.
    """

    incomplete: str
    params: Mapping[str, Any]


def ask(find: Callable[[Client, Typed], Iterator[tuple[str, str]]], typed: Typed) -> dict[str, str]:
    """The words that one of the functions below finds, and a help text for each."""
    try:
        with connect(start=False) as client:
            return dict(find(client, typed))
    except SpellError:
        return {}


def runs(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Numbers and names, newest first."""
    found = client.runs.list(limit=_RUNS)
    yield from _named(found)
    if found:
        yield "latest", "the newest run"


def active(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Runs that have not ended."""
    found = client.runs.list(Filter(states=tuple(sorted(ACTIVE))), limit=_RUNS)
    yield from _named(found)
    if found and found[-1].number == client.runs.get("latest").number:
        yield "latest", "the newest run"


def archived(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Archived runs."""
    yield from _named(client.runs.list(Filter(archived=True), limit=_RUNS))


def _named(found: Sequence[RunSummary]) -> Iterator[tuple[str, str]]:
    for item in reversed(found):
        words = " ".join(f"{item.state}: {item.command}".split())
        yield str(item.number), words
        if item.name:
            yield item.name, words


def names(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Names of runs."""
    for item in reversed(client.runs.list(limit=_RUNS)):
        if item.name:
            yield item.name, item.description


def labels(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Labels of runs."""
    for item in reversed(client.runs.list(limit=_RUNS)):
        yield from ((label, "") for label in item.labels)


def searches(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Numbers of searches, newest first."""
    yield from _searches(client, lambda _item: True)


def active_searches(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Searches that have not ended."""
    yield from _searches(client, lambda item: item.state == SearchState.RUNNING)


def _searches(client: Client, wanted: Callable[[SearchSummary], bool]) -> Iterator[tuple[str, str]]:
    found = client.searches.list(limit=_RUNS)
    for item in filter(wanted, reversed(found)):
        yield str(item.number), " ".join(f"{item.kind}, {item.state}: {item.command}".split())
    if found and wanted(found[-1]):
        yield "latest", "the newest search"


def workflows(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Numbers and names of workflows, newest first."""
    yield from _workflows(client, lambda _item: True)


def active_workflows(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Workflows that have not ended."""
    yield from _workflows(client, lambda item: item.state == WorkflowState.RUNNING)


def _workflows(client: Client, wanted: Callable[[WorkflowSummary], bool]) -> Iterator[tuple[str, str]]:
    found = client.workflows.list(limit=_RUNS)
    for item in filter(wanted, reversed(found)):
        yield str(item.number), f"{item.state}: {item.name}"
        yield item.name, item.state
    if found and wanted(found[-1]):
        yield "latest", "the newest workflow"


def metrics(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Metrics of the newest runs."""
    yield from _sent_by(client, [str(item.number) for item in client.runs.list(limit=_RUNS_WITH_METRICS)])


def metrics_of_run(client: Client, typed: Typed) -> Iterator[tuple[str, str]]:
    """Metrics of the run before, then further runs."""
    yield from _sent_by(client, [str(typed.params["run"])])
    yield from runs(client, typed)


def metrics_of_search(client: Client, typed: Typed) -> Iterator[tuple[str, str]]:
    """Metrics of the search before."""
    trials = [str(item.run) for item in client.searches.get(str(typed.params["search"])).trials if item.run]
    yield from _sent_by(client, trials[:_RUNS_WITH_METRICS])


def _sent_by(client: Client, references: Sequence[str]) -> Iterator[tuple[str, str]]:
    for reference in references:
        for item in client.metrics.summaries(reference):
            yield item.name, f"{item.count} values, the last {item.last:g}"


def sort_keys(client: Client, typed: Typed) -> Iterator[tuple[str, str]]:
    """The keys that `ps --sort` takes."""
    found = {"number": "", "duration": "", **{f"metric:{name}": words for name, words in metrics(client, typed)}}
    yield from found.items()
    yield from ((f"-{key}", f"{words} (the smallest last)".lstrip()) for key, words in found.items())


def executors(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Executors."""
    yield from ((name, "") for name in client.server.get().executors)


def frameworks(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Sets of packages."""
    yield from ((name, "") for name in client.server.get().frameworks)


def uploads(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Uploads, as resources."""
    for item in client.uploads.list():
        yield f"uploads/{item.name}", f"{item.count} file{'s' * (item.count != 1)}"


def machine_types(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Machine types."""
    for item in client.machines.list():
        yield item.name, f"{item.cpus:g} core{'s' * (item.cpus != 1)}, {item.gpus} GPU{'s' * (item.gpus != 1)}"


def resources(client: Client, typed: Typed) -> Iterator[tuple[str, str]]:
    """Paths of outputs and uploads, one folder at a time."""
    folder = typed.incomplete.rpartition("/")[0]
    for item in client.resources.list(folder):
        if "\n" in item.path:  # a shell reads a completion to the end of its line
            continue
        path = f"{folder}/{item.path}" if folder else item.path
        yield path + "/" * item.is_dir, ""


def secrets(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Names of secrets."""
    for item in client.secrets.list():
        yield item.name, ""


def projects(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Names of projects."""
    for item in client.projects.list():
        yield item.name, item.description


def links(client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """Aliases of resources."""
    for item in client.links.list():
        yield item.alias, item.resource


def states(_client: Client, _typed: Typed) -> Iterator[tuple[str, str]]:
    """The states that `ps --state` takes."""
    yield from ((word, "") for word in ("active", "queued", *State))
