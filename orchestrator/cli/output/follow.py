"""Follows a run to its end: prints its log as it comes, or its record, and returns the exit code."""

from __future__ import annotations

from orchestrator.cli.output import show
from orchestrator.cli.output.console import Console, exit_code
from orchestrator.cli.output.detach import going_on
from orchestrator.client.client import connect


def follow(number: str, *, verbose: bool) -> int:
    """Show the log of a run until it has ended; with `verbose` also all states and their logs."""
    show.say("✨ Stop viewing logs with ^C")
    console = Console(verbose=verbose)
    with connect() as client, going_on(number):
        ended = console.follow(client.runs.follow(number))
    console.end(ended)
    return exit_code(ended)


def record(number: str, *, wait: bool) -> int:
    """Print the record of a run as JSON: at once, or with `wait` when it has ended."""
    with connect() as client:
        with going_on(number):
            code = exit_code(client.runs.wait(number)) if wait else 0
        show.as_json(client.runs.get(number))
    return code
