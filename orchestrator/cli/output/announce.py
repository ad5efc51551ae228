"""Announces a run that was just cast: prints its number, then its log to the end, or its record."""

from __future__ import annotations

import click

from orchestrator.cli.output import show
from orchestrator.cli.output.detach import BROKEN_PIPE, INTERRUPTED, detached
from orchestrator.cli.output.streams import close_stdout
from orchestrator.records.casts import CastRecord


def announce(cast: CastRecord, *, background: bool, verbose: bool, json_: bool) -> int:
    """Say which run was cast and, unless it is in the background, follow it to its end over another connection.

    Returns:
        The exit code of the command.
    """
    number = str(cast.number)
    try:
        for warning in cast.warnings:
            show.warn(warning)
        if cast.reused and not json_:
            show.say(f"💫 Run {number} is identical and complete, so no run was cast")
            show.say(f"View its logs with `spell logs {number}`")
            return 0
        if not json_:
            show.say(f"💫 Casting spell #{number}…")
        if background and not json_:
            show.say(f"View logs with `spell logs -f {number}`")
            return 0
        from orchestrator.cli.output.follow import follow, record  # 7 ms, while the server starts the run

        if background or cast.reused:
            return record(number, wait=False)
        return record(number, wait=True) if json_ else follow(number, verbose=verbose)
    except KeyboardInterrupt:
        click.echo(err=json_)
        if not cast.reused:
            detached(number, err=json_)
        return INTERRUPTED
    except BrokenPipeError:  # `spell run … | head`: the reader has closed the pipe
        close_stdout()
        if background or cast.reused:
            return 0
        detached(number, err=True)
        return BROKEN_PIPE
    except OSError:  # for example, the disk of the output is full
        if not cast.reused:
            detached(number, err=True)
        raise
