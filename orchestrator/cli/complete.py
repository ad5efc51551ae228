"""What a shell is told to complete: runs, states, labels, searches, machine types and resources, as the server of the home has
them. A server is never started for it, and an error is nothing to complete."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from orchestrator.errors import SpellError
from orchestrator.remote.links import Links
from orchestrator.remote.projects import Projects
from orchestrator.remote.searches import Searches
from orchestrator.remote.secrets import Secrets
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.client import Client

_RUNS = 100
_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _asking(find: Callable[[Client, str], Iterator[tuple[str, str]]]) -> _Complete:
    """A completion that asks the server: of pairs of a word and its help, those that begin as what is typed."""

    def complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        # Every verb with options has us; most are typed without a Tab, and need no client before they have asked git.
        client_module: Any = importlib.import_module("orchestrator.client")
        try:
            with client_module.connect(start=False) as client:
                found = dict(find(client, incomplete))
        except SpellError:
            return []
        return [CompletionItem(word, help=words) for word, words in found.items() if word.startswith(incomplete)]

    return complete


def _runs(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    for item in reversed(client.runs(limit=_RUNS)):
        words = " ".join(f"{item.state}: {item.command}".split())
        yield str(item.number), words
        if item.name:
            yield item.name, words
    yield "latest", "the newest run"


def _names(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    for item in reversed(client.runs(limit=_RUNS)):
        if item.name:
            yield item.name, item.description


def _labels(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    for item in reversed(client.runs(limit=_RUNS)):
        yield from ((label, "") for label in item.labels)


def _searches(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    for item in reversed(Searches(client.transport).list(limit=_RUNS)):
        yield str(item.number), " ".join(f"{item.kind}, {item.state}: {item.command}".split())
    yield "latest", "the newest search"


def _machine_types(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    for item in client.machine_types():
        yield item.name, f"{item.cpus:g} cores, {item.gpus} GPUs"


def _resources(client: Client, incomplete: str) -> Iterator[tuple[str, str]]:
    folder = incomplete.rpartition("/")[0]
    for item in client.ls(folder):
        path = f"{folder}/{item.path}" if folder else item.path
        yield path + "/" * item.is_dir, ""


def _secrets(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    for item in Secrets(client.transport).list():
        yield item.name, ""


runs, names, labels, searches = _asking(_runs), _asking(_names), _asking(_labels), _asking(_searches)


def _projects(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    for item in Projects(client.transport).list():
        yield item.name, item.description


def _links(client: Client, _incomplete: str) -> Iterator[tuple[str, str]]:
    for item in Links(client.transport).list():
        yield item.alias, item.resource


projects, links = _asking(_projects), _asking(_links)
machine_types, resources = _asking(_machine_types), _asking(_resources)
secrets = _asking(_secrets)


def states(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The states that `ps --state` takes."""
    words = ["active", "queued", *(state.value for state in State)]
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
