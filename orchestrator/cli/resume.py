"""`spell resume`, and `spell run --resume`: casts an earlier run again, with its checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.capture import capture
from orchestrator.cli.input.options import resume_options
from orchestrator.cli.input.spec import SpecOptions, changes
from orchestrator.cli.output.announce import announce
from orchestrator.cli.output.detach import NOTHING_CAST, casting, interruptible
from orchestrator.cli.ready import ready_changes
from orchestrator.client.client import connect

if TYPE_CHECKING:
    from orchestrator.client.client import Client
    from orchestrator.records.casts import CastRecord


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("run", shell_complete=complete.runs)
@resume_options
@click.option("-b", "--background", is_flag=True, help="Do not follow the log.")
@click.option("-v", "--verbose", is_flag=True, help="Show all states and their logs.")
@click.option("--json", "json_", is_flag=True, help="Print the run as JSON: at once with -b, else when it has ended.")
@click.pass_context
def resume(
    ctx: click.Context, /, *, run: str, current_code: bool, background: bool, verbose: bool, json_: bool, **typed: Any
) -> None:
    """Cast RUN again as a new run that goes on from its checkpoints, which are copied and may be written to.

    RUN must have ended, and not have been killed: then its checkpoints are lost. Code, packages, image and mounts are those
    of RUN; options add to its values or replace them. RUN may also be a folder of its outputs: runs/7/output
    """
    options = SpecOptions.of(json_=json_, **typed)
    with interruptible(NOTHING_CAST), connect() as client:
        cast = cast_resumed(client, run, options, current_code=current_code)
    ctx.exit(announce(cast, background=background, verbose=verbose, json_=json_))


def cast_resumed(client: Client, run: str, options: SpecOptions, *, current_code: bool) -> CastRecord:
    """Cast a run that resumes another, with what was typed.

    Args:
        current_code: take the code of the current folder; other code that `options` name is taken without that.

    Raises:
        SpellError: something is wrong with it.
    """
    changed = changes(options)
    changed.pop("resume", None)
    code, asked = None, options.code
    if current_code or asked.commit_ref or asked.github_url or asked.github_ref or asked.include_untracked:
        code, ignored = capture(asked)
        changed["ignore"] = [*ignored.splitlines(), *changed.get("ignore", ())]
        if code is None:
            changed["code"] = None
    changed = ready_changes(client, changed, options)
    with casting("spell ps"):
        return client.runs.resume(run, changed, code)
