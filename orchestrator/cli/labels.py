"""Labels and archives runs: label, archive, unarchive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.client.client import Client, connect
from orchestrator.errors import ServerUnavailable, SpellError, UsageError
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.names import check_label

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.command(
    context_settings=_HELP, epilog="Add several labels at once: spell label 3 4 best --label paper --label v2"
)
@click.argument("run", nargs=-1, metavar="RUN...", shell_complete=complete.runs)
@click.argument("label", shell_complete=complete.labels)
@click.option("--label", "more", multiple=True, shell_complete=complete.labels, help="A further label.")
@click.option("--remove", is_flag=True, help="Remove the label.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.option("--json", "json_", is_flag=True, help="Print the runs as JSON.")
@click.pass_context
def label(
    ctx: click.Context, /, run: Sequence[str], label: str, more: Sequence[str], remove: bool, **how: bool
) -> None:
    """Add LABEL to each RUN, or remove it with --remove. LABEL comes last."""
    if not run and not more:
        raise UsageError("A run or a label is missing.", "Try: spell label latest best")
    if not run:
        run, label, more = (label,), more[0], more[1:]
    names = ", ".join(map(check_label, (label, *more)))
    many = "labels" if more else "label"
    if remove:
        message = f"Successfully removed {many} {names} from run {{number}}."
        ctx.exit(_each(run, lambda client, item: client.labels.remove(item, (label, *more)), message, **how))
    message = f"Successfully added {many} {names} to run {{number}}."
    ctx.exit(_each(run, lambda client, item: client.labels.add(item, (label, *more)), message, **how))


@click.command(context_settings=_HELP)
@click.argument("run", nargs=-1, required=True, shell_complete=complete.runs)
@click.option("--undo", is_flag=True, help="Unarchive the runs, as spell unarchive does.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.option("--json", "json_", is_flag=True, help="Print the runs as JSON.")
@click.pass_context
def archive(ctx: click.Context, /, run: Sequence[str], undo: bool, **how: bool) -> None:
    """Hide each RUN, which must have ended, from lists, searches, links and mounts. A later
    spell gc removes its outputs and code, unless something else needs them; before, spell unarchive brings it back."""
    ctx.exit(
        _unarchive(run, **how)
        if undo
        else _each(run, lambda client, item: client.archive.add(item), "Archived run {number}.", **how)
    )


@click.command(context_settings=_HELP)
@click.argument("run", nargs=-1, required=True, shell_complete=complete.archived)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.option("--json", "json_", is_flag=True, help="Print the runs as JSON.")
@click.pass_context
def unarchive(ctx: click.Context, /, run: Sequence[str], **how: bool) -> None:
    """Unarchive each RUN. List archived runs with spell ps --archived."""
    ctx.exit(_unarchive(run, **how))


def _unarchive(run: Sequence[str], **how: bool) -> int:
    return _each(run, lambda client, item: client.archive.remove(item), "Unarchived run {number}.", **how)


def _each(
    references: Sequence[str], act: Callable[[Client, str], RunSummary], words: str, *, quiet: bool, json_: bool
) -> int:
    """Act on every run, also after a failure. Returns the exit code."""
    failed, done = 0, []
    with connect() as client:
        numbers = _numbers(client.runs.get, references)  # first, because an archived run changes what `latest` is
        for reference in numbers:
            try:
                done.append(act(client, reference))
            except SpellError as error:
                if len(numbers) == 1 or isinstance(error, ServerUnavailable):
                    raise
                failed = error.exit_code
                show.error(error.message, error.cure)
                continue
            if not (quiet or json_):
                show.say(words.replace("{number}", str(done[-1].number)))
    if json_:
        show.as_json(done)
    return failed


def _numbers(find: Callable[[str], RunSummary], references: Sequence[str]) -> list[str]:
    """Return the number of each run once. References of no run stay as they are; the server refuses them later."""
    found = []
    for reference in references:
        try:
            found.append(reference if reference.isdecimal() else str(find(reference).number))
        except ServerUnavailable:
            raise
        except SpellError:
            found.append(reference)
    return list(dict.fromkeys(found))
