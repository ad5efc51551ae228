"""`spell`: finds the verb, and turns errors into messages and exit codes. No other module does that."""

from __future__ import annotations

import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

import orchestrator
from orchestrator.cli.input.empty import refuse_empty
from orchestrator.cli.input.hints import close_to
from orchestrator.cli.input.pasted import refuse_pasted
from orchestrator.cli.output import show, streams
from orchestrator.cli.output.detach import INTERRUPTED
from orchestrator.cli.verbs import VERBS
from orchestrator.errors import SpellError


class _Closed(Exception):
    """The reader of our output has closed it. This is not an OSError, because click would exit with 1 for one."""


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
        return VERBS[cmd_name].load() if cmd_name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}.{close_to(args[0], VERBS)}")
        name, verb, rest = super().resolve_command(ctx, args)
        if verb is not None and not ctx.resilient_parsing:
            refuse_pasted(ctx, verb, rest)
            refuse_empty(ctx, verb, rest)
        return name, verb, rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [CompletionItem(name, help=verb.words) for name, verb in VERBS.items() if name.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.words) for name, verb in VERBS.items()])


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
    """Run the command line, and exit."""
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
