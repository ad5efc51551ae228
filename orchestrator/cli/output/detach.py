"""Messages for a person who stops waiting: the run goes on, and here is how to see it again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from orchestrator.cli.output import show
from orchestrator.errors import ConnectionLost, SpellError

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes after detaching from a run: 128 + SIGINT, 128 + SIGPIPE, as in shells."""
_DETACHED = (
    "✨ Your run is still running remotely.",
    "✨ Use 'spell stop {number}' to save outputs and stop your run.",
    "✨ Use 'spell kill {number}' to terminate your run. All outputs will be lost.",
    "✨ Use 'spell logs -f {number}' to view logs again",
)


def detached(number: int | str, *, err: bool = False) -> None:
    """Print that the run goes on, and the commands to follow or end it."""
    for line in _DETACHED:
        show.say(line.format(number=number), err=err)


@contextlib.contextmanager
def casting(listed_by: str) -> Iterator[None]:
    """Surround a request to cast. If ^C or a lost connection cuts it off, name the command that shows the result.

    Args:
        listed_by: that command.
    """
    words = f"Check whether it was cast: {listed_by}"
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
    """Surround a wait for runs. ^C ends only the wait."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nAborted. The runs go on.", err=True)
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def going_on(number: str) -> Iterator[None]:
    """Surround the following of a run. If the server is lost, its error also says that the run goes on."""
    try:
        yield
    except SpellError as error:
        see = f"spell logs -f {number}"
        if see not in error.cure:
            error.cure = f"{error.cure}\nRun {number} goes on without the server. Follow it later with: {see}".lstrip()
        raise
