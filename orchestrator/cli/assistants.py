"""What an assistant gets: `spell skill` and `spell mcp`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.assistants import skill as skills
from orchestrator.cli.output import show
from orchestrator.client.client import connect
from orchestrator.errors import SpellError

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(context_settings=_HELP)
def skill() -> None:
    """A page that tells an assistant (Claude Code, Codex, …) how to use spell."""


@skill.command("install", context_settings=_HELP)
@click.option("--user", is_flag=True, help="For all your projects: into the folders of your home directory.")
@click.option(
    "--to", type=click.Path(path_type=Path, file_okay=False), metavar="PATH", help="Into another folder of skills."
)
@click.option("-f", "--force", is_flag=True, help="Replace a page that is not spell's.")
def install(user: bool, to: Path | None, force: bool) -> None:
    """Write the page where assistants look for skills: .claude/skills and .agents/skills of this folder. Do it again after
    an upgrade of spell."""
    base = Path.home() if user else Path.cwd()
    for folder in [to] if to else [base / name for name in skills.FOLDERS]:
        show.say(f"✔ Wrote {show.line(str(skills.install(folder, replace=force)))}")
    if not to:
        show.say("An assistant that runs already finds it when it is started again.", err=True)


@skill.command("show", context_settings=_HELP)
def show_skill() -> None:
    """Print the page."""
    click.echo(skills.page(), nl=False)


@click.command(context_settings=_HELP)
@click.option("--write", is_flag=True, help="Let the assistant cast, rerun, stop and label runs, too.")
def mcp(write: bool) -> None:
    """Answer an assistant over standard input and output (Model Context Protocol): runs, logs, metrics, outputs,
    differences, lineage. It only reads, unless --write. An assistant starts this command by itself:

    \b
    claude mcp add spell -- spell mcp
    """
    try:
        from orchestrator.assistants import server  # may not be installed: it needs mcp
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise SpellError(
            "spell mcp needs the package mcp, which is not installed.",
            "Install it where spell is: pip install 'spell-orchestrator[mcp]' (or: pip install 'mcp>=2.3,<3')",
        ) from None
    with connect() as client:
        server.serve(client, may_write=write)
