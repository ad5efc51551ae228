"""Names of completions, for the options of verbs. `completions` asks the server for their values.

Every verb with options loads this module, and few are typed with a Tab: so it imports nothing of the client.
"""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _found_by(name: str) -> _Complete:
    """A completion by the function of this name in `completions`."""

    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from orchestrator.cli.input import completions  # 40 ms: the client; most commands are typed without a Tab

        typed = completions.Typed(incomplete, ctx.params)
        found = completions.ask(getattr(completions, name), typed)
        return [CompletionItem(word, help=words) for word, words in found.items() if word.startswith(incomplete)]

    return complete


runs, names, labels, searches = _found_by("runs"), _found_by("names"), _found_by("labels"), _found_by("searches")
active, archived, workflows, uploads = (
    _found_by("active"), _found_by("archived"), _found_by("workflows"), _found_by("uploads"),
)  # fmt: skip
projects, links, secrets = _found_by("projects"), _found_by("links"), _found_by("secrets")
machine_types, resources, states = _found_by("machine_types"), _found_by("resources"), _found_by("states")
executors, frameworks, sort_keys = _found_by("executors"), _found_by("frameworks"), _found_by("sort_keys")
metrics, metrics_of_run, metrics_of_search = (
    _found_by("metrics"), _found_by("metrics_of_run"), _found_by("metrics_of_search"),
)  # fmt: skip
active_searches, active_workflows = _found_by("active_searches"), _found_by("active_workflows")


def files(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files of this machine: the shell knows them."""
    return [CompletionItem(incomplete, type="file")]
