"""Who stops following a run is told that it goes on without them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from orchestrator.cli.output import show
from orchestrator.errors import ConnectionLost, SpellError

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes of who detached from a run: 128 + SIGINT, 128 + SIGPIPE, as shells have them."""
_DETACHED = (
    "✨ Your run is still running remotely.",
    "✨ Use 'spell stop {number}' to save outputs and stop your run.",
    "✨ Use 'spell kill {number}' to terminate your run. All outputs will be lost.",
    "✨ Use 'spell logs -f {number}' to view logs again",
)


def detached(number: int | str, *, err: bool = False) -> None:
    """Say that the run goes on without us, and what can be done with it."""
    for line in _DETACHED:
        show.say(line.format(number=number), err=err)


@contextlib.contextmanager
def casting(listed_by: str) -> Iterator[None]:
    """While the server is asked to cast something: who is cut off then is told where to see whether it was."""
    words = f"Whether it was cast, this shows: {listed_by}"
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nAborted. {words}", err=True)
        sys.exit(INTERRUPTED)
    except ConnectionLost as error:
        error.cure = f"{words}\n{error.cure}".rstrip()
        raise


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """While runs are waited for: ^C ends that, and nothing else."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nAborted. What was waited for goes on.", err=True)
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def going_on(number: str) -> Iterator[None]:
    """While a run is followed: whoever loses its server for good is told that the run needs none."""
    try:
        yield
    except SpellError as error:
        see = f"spell logs -f {number}"
        if see not in error.cure:
            error.cure = f"{error.cure}\nRun {number} goes on without it; then see: {see}".lstrip()
        raise
