"""`spell`: finds the verb, and turns errors into messages and exit codes. No other module does that."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

import orchestrator
from orchestrator.cli.input.empty import refuse_empty
from orchestrator.cli.input.hints import Group, explained
from orchestrator.cli.input.pasted import refuse_pasted
from orchestrator.cli.output import show, streams
from orchestrator.cli.output.detach import INTERRUPTED, interrupted
from orchestrator.cli.verbs import VERBS
from orchestrator.errors import SpellError


class _Closed(Exception):
    """The reader of our output has closed it. This is not an OSError, because click would exit with 1 for one."""


class _Verbs(Group):
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
        name, verb, rest = super().resolve_command(ctx, args)
        if verb is not None and not ctx.resilient_parsing:
            refuse_pasted(ctx, verb, rest)
            refuse_empty(ctx, verb, rest)
        return name, verb, rest

    def hint(self, ctx: click.Context, args: Sequence[str]) -> str:
        """As for every group; a program or a quoted command is cast by `spell run`."""
        import shutil  # 3 ms, needed only here

        if (hint := super().hint(ctx, args)) or not (" " in args[0].strip() or shutil.which(args[0])):
            return hint
        has_options = any(word.startswith("-") for word in args)
        return f" To cast it: spell run {'-- ' * has_options}{shlex.join(args)}"

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
        explained(error).show()
        sys.exit(error.exit_code)
    except SpellError as error:
        show.error(error.message, error.cure)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        if not interrupted(error):
            sys.exit(1)
        click.echo(err=True)  # the verb has said what there is to say; the prompt goes into a line of its own
        sys.exit(INTERRUPTED)
    except _Closed:
        streams.close_stdout()  # `spell ps | head` ends quietly
        sys.exit(0)
    except OSError as error:
        show.error(f"{show.line(str(error.filename or 'The output'))}: {error.strerror or error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
