"""`spell run`: builds a spec from the command line, casts it and follows the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import ahead
from orchestrator.cli.input import complete
from orchestrator.cli.input.command_files import command_files
from orchestrator.cli.input.commanding import Commanding
from orchestrator.cli.input.options import current_code_option, spec_options
from orchestrator.cli.input.spec import SpecOptions, build_spec
from orchestrator.cli.output import show
from orchestrator.cli.output.announce import announce
from orchestrator.cli.output.detach import NOTHING_CAST, casting, interruptible
from orchestrator.cli.ready import ready
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.client.client import Client
    from orchestrator.records.casts import CastRecord


def _connect() -> Client:
    # 16 ms, about as long as git takes, so a thread loads them meanwhile
    from orchestrator.client import runs  # noqa: F401
    from orchestrator.client.client import connect

    return connect()


@click.command(
    cls=Commanding,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="COMMAND is one quoted string for the shell, or several words. Options stand before it, or after a quoted one. "
    "After -- all words are the command's: spell run -- python train.py --name x",
)
@click.argument("command", nargs=-1, shell_complete=complete.files)
@spec_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Cast nothing, only say what would be sent, built and mounted, and where it would run.",
)
@click.option("-b", "--background", is_flag=True, help="Do not follow the log.")
@click.option("--reuse", is_flag=True, help="Reuse an identical complete run if there is one.")
@click.option("-v", "--verbose", is_flag=True, help="Show all states and their logs.")
@click.option("--json", "json_", is_flag=True, help="Print the run as JSON: at once with -b, else when it has ended.")
@current_code_option
@command_files
@click.pass_context
def run(
    ctx: click.Context,
    /,
    *,
    background: bool,
    reuse: bool,
    verbose: bool,
    dry_run: bool,
    current_code: bool,
    **typed: Any,
) -> None:
    """Cast a run: put `spell run` in front of any command."""
    options = SpecOptions.of(**typed)
    ahead.load(_connect)
    if current_code and not options.fields["resume"]:
        raise UsageError("--current-code belongs to --resume.", "Leave it out: a run has the code of this folder.")
    if dry_run and options.fields["resume"] and not options.file:  # only the server knows what the earlier run had
        cure = "See what it would take over: spell info RUN. Of a job file, --dry-run shows what resumes, too."
        raise UsageError("--dry-run does not go with --resume.", cure)
    with interruptible(NOTHING_CAST):
        if (earlier := options.fields["resume"]) and not options.file:
            cast = _resume(earlier, options, reuse=reuse, current_code=current_code)
            ctx.exit(announce(cast, background=background, verbose=verbose, json_=options.code.json_))
        spec, code = build_spec(options)
        with _connect() as client:
            spec = ready(client, spec, options, dry_run=dry_run)
            if dry_run:
                from orchestrator.cli.plan import show_plan  # 1 ms; few runs are only looked at

                show_plan(client.runs.plan(spec, code, reuse=reuse), code, json_=options.code.json_)
                return
            with casting("spell ps"):
                cast = client.runs.cast(spec, code, reuse=reuse)
    ctx.exit(announce(cast, background=background, verbose=verbose, json_=options.code.json_))


def _resume(earlier: str, options: SpecOptions, *, reuse: bool, current_code: bool) -> CastRecord:
    """Cast what was typed as changes of an earlier run, with its checkpoints."""
    from orchestrator.cli.resume import cast_resumed  # 2 ms: few runs are resumed

    if reuse:
        raise UsageError("--reuse finds a run that did all from its beginning, and --resume goes on.", "Leave one out.")
    asked = options.code
    if not (current_code or asked.commit_ref or asked.github_url or asked.include_untracked):
        show.say(f"✨ With the code of run {earlier}; --current-code takes that of this folder", err=asked.json_)
    with _connect() as client:
        return cast_resumed(client, earlier, options, current_code=current_code)
