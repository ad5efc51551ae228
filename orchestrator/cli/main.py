"""`spell`: the verbs, and the one place where an error becomes words and an exit code.

Each verb's module is loaded when the verb is used; `--help` needs none of them, hence the words here.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

import orchestrator
from orchestrator.cli.input.hints import close_to
from orchestrator.cli.output import show, streams
from orchestrator.cli.output.detach import INTERRUPTED
from orchestrator.errors import SpellError

VERBS = {
    "run": ("orchestrator.cli.run", "Cast a run: put it in front of any command."),
    "rerun": ("orchestrator.cli.rerun", "Cast an earlier run again."),
    "logs": ("orchestrator.cli.runs", "Show what a run says."),
    "ps": ("orchestrator.cli.listing", "List runs, newest last."),
    "search": ("orchestrator.cli.listing", "Find runs by what their commands and descriptions say."),
    "info": ("orchestrator.cli.runs", "Show all about one run."),
    "exec": ("orchestrator.cli.exec", "Open a shell, or start a command, in a run's container."),
    "stats": ("orchestrator.cli.stats", "Show what runs use now."),
    "top": ("orchestrator.cli.top", "Watch all runs that are active."),
    "stop": ("orchestrator.cli.runs", "End runs and keep their outputs."),
    "kill": ("orchestrator.cli.runs", "End runs at once; their outputs are lost."),
    "wait": ("orchestrator.cli.runs", "Wait until runs have ended."),
    "label": ("orchestrator.cli.labels", "Give runs a label, or take it from them."),
    "archive": ("orchestrator.cli.labels", "Take runs out of lists and mounts; nothing is removed."),
    "unarchive": ("orchestrator.cli.labels", "Bring archived runs back."),
    "project": ("orchestrator.cli.projects", "Keep runs that belong together, together."),
    "workflow": ("orchestrator.cli.workflows", "Cast runs that need each other's outputs, from one file."),
    "hyper": ("orchestrator.cli.searches", "Search over parameters: many runs, and the best of them."),
    "secret": ("orchestrator.cli.secrets", "Keep passwords and keys for runs, encrypted."),
    "diff": ("orchestrator.cli.compare", "Show what differs between two runs."),
    "lineage": ("orchestrator.cli.lineage", "Show what a run mounted, and who mounted what it left."),
    "verify": ("orchestrator.cli.compare", "Compare outputs with what was recorded of them."),
    "export": ("orchestrator.cli.export", "Write a run to a folder or archive that runs without spell."),
    "ls": ("orchestrator.cli.files", "List outputs and uploads."),
    "cat": ("orchestrator.cli.files", "Print a file of a run."),
    "cp": ("orchestrator.cli.files", "Copy outputs to this machine."),
    "upload": ("orchestrator.cli.uploads", "Put a folder or file under uploads/, for runs to mount."),
    "rm": ("orchestrator.cli.uploads", "Remove uploads."),
    "link": ("orchestrator.cli.links", "Give a resource a name of its own, or list those that have one."),
    "unlink": ("orchestrator.cli.links", "Remove links; what they lead to stays."),
    "metrics": ("orchestrator.cli.metrics", "Show what runs sent with send_metric: in lines, as a chart, as CSV."),
    "machine-types": ("orchestrator.cli.server", "List what runs can ask for."),
    "image": ("orchestrator.cli.images", "Bake an environment into an image, for registries."),
    "server": ("orchestrator.cli.server", "Start, stop and look at the server."),
    "doctor": ("orchestrator.cli.doctor", "Say what works here, and what to do about what does not."),
    "gc": ("orchestrator.cli.gc", "Make room: remove what nobody uses any more."),
    "completion": ("orchestrator.cli.completion", "Print the shell's completion script."),
}


class _Closed(Exception):
    """Whoever read our output has gone. Not an OSError, of which click would make exit code 1."""


class _Verbs(click.Group):
    """A group that loads a verb's module when the verb is used."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _Closed from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}.{close_to(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [CompletionItem(name, help=words) for name, (_, words) in VERBS.items() if name.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

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
    streams.prepare()
    try:
        streams.leave(spell.main(standalone_mode=False, prog_name="spell"))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SpellError as error:
        show.error(error.message, error.cure)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        is_interrupted = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
        click.echo("\nAborted." if isinstance(error.__context__, KeyboardInterrupt) else "Aborted.", err=True)
        sys.exit(INTERRUPTED if is_interrupted else 1)
    except _Closed:
        streams.close_stdout()  # `spell ps | head` ends quietly
        sys.exit(0)
    except OSError as error:
        show.error(f"{error.filename or 'The output'}: {error.strerror or error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
