"""`spell rerun`: casts an earlier run again, with changed options."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.options import change_options
from orchestrator.cli.input.spec import SpecOptions, changes
from orchestrator.cli.output.announce import announce
from orchestrator.cli.output.detach import NOTHING_CAST, casting, interruptible
from orchestrator.cli.projects import see_project
from orchestrator.client.client import connect


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("run", shell_complete=complete.runs)
@change_options
@click.option("-b", "--background", is_flag=True, help="Do not follow the log.")
@click.option("-v", "--verbose", is_flag=True, help="Show all states and their logs.")
@click.option("--json", "json_", is_flag=True, help="Print the run as JSON: at once with -b, else when it has ended.")
@click.pass_context
def rerun(ctx: click.Context, /, *, run: str, background: bool, verbose: bool, json_: bool, **typed: Any) -> None:
    """Cast RUN again with the same code, package versions, image and mounts. Options add to its values or replace them."""
    changed = changes(SpecOptions.of(**typed))
    with interruptible(NOTHING_CAST), connect() as client:
        if "project" in changed:
            see_project(client, changed["project"], force=False)
        with casting("spell ps"):
            cast = client.runs.rerun(run, changed)
    ctx.exit(announce(cast, background=background, verbose=verbose, json_=json_))
