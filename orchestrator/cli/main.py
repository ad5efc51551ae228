"""`spell`: the verbs, and the one place where an error becomes words and an exit code.

Each verb's module is loaded when the verb is used; `--help` needs none of them, hence the words here.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

import orchestrator
from orchestrator.errors import SpellError

VERBS = {
    "run": ("orchestrator.cli.run", "Cast a run: put it in front of any command."),
    "logs": ("orchestrator.cli.runs", "Show what a run says."),
    "ps": ("orchestrator.cli.runs", "List runs, newest last."),
    "info": ("orchestrator.cli.runs", "Show all about one run."),
    "stop": ("orchestrator.cli.runs", "End runs and keep their outputs."),
    "kill": ("orchestrator.cli.runs", "End runs at once; their outputs are lost."),
    "wait": ("orchestrator.cli.runs", "Wait until runs have ended."),
    "ls": ("orchestrator.cli.files", "List outputs and uploads."),
    "cat": ("orchestrator.cli.files", "Print a file of a run."),
    "cp": ("orchestrator.cli.files", "Copy outputs to this machine."),
    "metrics": ("orchestrator.cli.runs", "List what a run sent with send_metric."),
    "machine-types": ("orchestrator.cli.server", "List what runs can ask for."),
    "server": ("orchestrator.cli.server", "Start, stop and look at the server."),
    "completion": ("orchestrator.cli.completion", "Print the shell's completion script."),
}


class _Verbs(click.Group):
    """A group that loads a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in VERBS.items()])


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 invalid configuration or spec, 5 invalid commit, 6 bad repository; "
    "a run in the foreground exits with its command's code.",
)
@click.version_option(orchestrator.__version__, prog_name="spell")
def spell() -> None:
    """Put `spell run` in front of a command and get a numbered run: its code captured, its environment built, its log
    streamed, its outputs kept under runs/N."""


def main() -> None:
    """The entry point."""
    try:
        sys.exit(spell.main(standalone_mode=False, prog_name="spell"))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SpellError as error:
        _show(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Aborted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `spell logs 1 | head` ends quietly
        sys.exit(0)


def _show(error: SpellError) -> None:
    mark = click.style("ERROR:", fg="red")
    click.echo(f"{mark} {error.message}", err=True)
    if error.cure:
        click.echo(f"       {error.cure}", err=True)


if __name__ == "__main__":
    main()
