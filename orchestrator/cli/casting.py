"""What a person sees of a run that was just cast: its number, then its log to the end, or its record."""

from __future__ import annotations

import contextlib
import sys

import click

from orchestrator.cli import show
from orchestrator.cli.console import BROKEN_PIPE, INTERRUPTED, Console, detached, exit_code
from orchestrator.cli.streams import close_stdout
from orchestrator.client import Client, connect
from orchestrator.errors import Conflict, NotFound
from orchestrator.naming import check_project
from orchestrator.records import CastRecord
from orchestrator.remote.projects import Projects

__all__ = ["announce", "connect", "see_project"]


def announce(client: Client, cast: CastRecord, *, background: bool, verbose: bool, json_: bool) -> int:
    """Say which run was cast and, unless it is to stay in the background, show it to its end.

    Returns:
        The exit code of the command.
    """
    for warning in cast.warnings:
        show.warn(warning)
    number = str(cast.number)
    if json_ and (background or cast.reused):
        show.as_json(client.run(number))
        return 0
    if cast.reused:
        show.say(f"💫 Run {number} is identical, and complete: nothing is cast")
        show.say(f"View its logs with `spell logs {number}`")
        return 0
    if not json_:
        show.say(f"💫 Casting spell #{number}…")
    if background:
        show.say(f"View logs with `spell logs -f {number}`")
        return 0
    try:
        return _wait_as_json(client, number) if json_ else _follow(client, number, verbose)
    except KeyboardInterrupt:
        click.echo(err=json_)
        detached(number, err=json_)
        return INTERRUPTED
    except BrokenPipeError:  # `spell run … | head`: nobody reads on
        close_stdout()
        detached(number, err=True)
        return BROKEN_PIPE


def see_project(client: Client, name: str, *, force: bool) -> None:
    """See that there is a project of this name; else one is made, when a person says so, or with `force`.

    Raises:
        NotFound: there is none, and nobody can be asked.
    """
    projects = Projects(client.transport)
    try:
        projects.get(name)
    except NotFound as error:
        if not (force or (sys.stdin.isatty() and sys.stderr.isatty())):
            error.cure += "\nOr cast it with --force, which creates it."
            raise
        if force:
            show.warn(f"A project named {name!r} could not be found: it is created.")
        elif not click.confirm(show.safe(f"{error.message} Would you like to create a new one?"), err=True):
            raise click.Abort from None
        with contextlib.suppress(Conflict):  # somebody else did meanwhile
            projects.create(check_project(name))


def _wait_as_json(client: Client, number: str) -> int:
    ended = client.wait(number)
    show.as_json(client.run(number))
    return exit_code(ended)


def _follow(client: Client, number: str, verbose: bool) -> int:
    show.say("✨ Stop viewing logs with ^C")
    console = Console(verbose=verbose)
    ended = console.follow(client.follow(number))
    console.end(ended)
    return exit_code(ended)
