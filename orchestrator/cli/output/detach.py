"""Messages for a person who presses ^C: what goes on, what was not done, and what to do now."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from orchestrator.cli.output import show
from orchestrator.errors import ConnectionLost, SpellError

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes after detaching from a run: 128 + SIGINT, 128 + SIGPIPE, as in shells."""
NOTHING_CAST = "Nothing was cast."
_DETACHED = (
    "✨ Your run goes on without this terminal.",
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
        with interruptible(words):
            yield
    except ConnectionLost as error:
        error.cure = f"{words}\n{error.cure}".rstrip()
        raise


@contextlib.contextmanager
def interruptible(words: str) -> Iterator[None]:
    """Surround something that ^C, or a no to a question, may end.

    Args:
        words: what has become of it then, and what to do.
    """
    try:
        yield
    except (KeyboardInterrupt, click.Abort) as error:
        by_key = interrupted(error)
        show.say(f"\n{words}" if by_key else words, err=True)
        sys.exit(INTERRUPTED if by_key else 1)


def interrupted(error: BaseException) -> bool:
    """Return whether ^C was pressed, also at a question."""
    return isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)


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
