"""`spell workflow`: casts, lists, shows and ends workflows."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.input import complete
from orchestrator.cli.input.capture import CodeOptions, capture
from orchestrator.cli.input.command_files import refuse_saved
from orchestrator.cli.input.hints import Group, close_to
from orchestrator.cli.input.spec import SpecOptions, spec_of, with_code, with_folders, with_project
from orchestrator.cli.output import show
from orchestrator.cli.output.detach import NOTHING_CAST, casting, interruptible
from orchestrator.cli.output.workflow_console import follow, workflow_state
from orchestrator.client.client import Client, connect
from orchestrator.errors import SpellError
from orchestrator.records.workflows import StepRecord, WorkflowRecord, WorkflowSummary
from orchestrator.spec.workflow import Step, WorkflowSpec
from orchestrator.states import State

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


class _OrRun(Group):
    """`spell workflow FILE.yaml` is `spell workflow run FILE.yaml`."""

    default = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else "--help"
        if first not in self.commands and first not in ctx.help_option_names:
            if first.isidentifier() and not Path(first).exists() and not ctx.resilient_parsing:
                ctx.fail(f"There is no file and no command {first!r}.{close_to(first, self, ctx)}")
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="file")]


@click.group(cls=_OrRun, context_settings=_HELP, subcommand_metavar="FILE.yaml | COMMAND [ARGS]...")
def workflow() -> None:
    """Cast runs that need each other's outputs, from one file: `spell workflow FILE.yaml` is `spell workflow run FILE.yaml`."""


@workflow.command(context_settings=_HELP)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.yaml")
@click.option("-b", "--background", is_flag=True, help="Do not wait for the end.")
@click.option("--fresh", is_flag=True, help="Cast every step, even if an identical run is complete.")
@click.option("-c", "--commit-ref", metavar="REF", help="Use another commit of the local repository.")
@click.option("--include-untracked", is_flag=True, help="Send untracked files too, except those that git ignores.")
@click.option("--submodules", is_flag=True, help="Send submodules, too, and fetch those that are not here.")
@click.option("--no-code", is_flag=True, help="Send no code.")
@click.option(
    "--whole-folder", is_flag=True, help="Send a folder without a repository also if it is big, or your home."
)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option(
    "--json", "json_", is_flag=True, help="Print the workflow as JSON: at once with -b, else when it has ended."
)
@click.pass_context
def run(ctx: click.Context, /, *, file: Path, background: bool, fresh: bool, **typed: Any) -> None:
    """Cast the steps of FILE.yaml, each when the steps that it needs are complete. The exit code is 0 if all steps are
    complete, else 1."""
    options = CodeOptions(**typed, asides=(file,))
    with interruptible(NOTHING_CAST):
        spec, codes = _read(file, options, fresh=fresh)
    with connect() as client:
        flows = client.workflows
        with casting("spell workflow list"):
            cast = flows.cast(spec, functools.partial(_send, client, codes))
            for warning in cast.warnings:
                show.warn(warning)
            if not options.json_:
                show.say(f"💫 Casting workflow #{cast.number}…")
            found = flows.get(str(cast.number))
        if not background:
            ctx.exit(follow(flows, found, json_=options.json_))
    if options.json_:
        show.as_json(found)
    else:
        show.say(f"Show it with `spell workflow info {cast.number}`")


def _read(path: Path, options: CodeOptions, *, fresh: bool) -> tuple[WorkflowSpec, list[Snapshot]]:
    """Read a workflow file, and capture its code once for all steps."""
    from orchestrator.spec import workflowfile  # 15 ms: yaml; only a cast reads a file

    refuse_saved(path, "a workflow file")
    found = workflowfile.load(path)
    steps = []
    for item in found.steps:
        with _located(f"{path}: step {item.name!r}"):
            steps.append(Step(item.name, spec_of(SpecOptions(), item.job.fields), item.needs))
    with _located(str(path)):
        WorkflowSpec(found.name, tuple(steps))  # checks the file before the code is captured
    places = [(item.job.github_url, item.job.github_ref) for item in found.steps]
    codes = {place: capture(options, *place) for place in dict.fromkeys(places)}
    coded = []
    for step, place, item in zip(steps, places, found.steps, strict=True):
        with _located(f"{path}: step {step.name!r}"):
            spec = with_project(with_folders(step.spec, codes[place][0]), codes[place][0], options, item.job)
        coded.append(Step(step.name, with_code(spec, *codes[place]), step.needs))
    return WorkflowSpec(found.name, tuple(coded), reuse=not fresh), [code for code, _ in codes.values() if code]


def _send(client: Client, codes: Sequence[Snapshot]) -> None:
    for code in codes:
        client.code.send(code)


@contextlib.contextmanager
def _located(where: str) -> Iterator[None]:
    """Add a place to the message of an error."""
    try:
        yield
    except SpellError as error:
        raise type(error)(f"{where}: {error.message}", error.cure) from error


@workflow.command("list", context_settings=_HELP)
@click.option(
    "-n", "limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="List at most N workflows."
)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def list_(limit: int, json_: bool) -> None:
    """List workflows, newest last."""
    with connect() as client:
        found = client.workflows.list(limit=limit)
    if json_:
        show.as_json(found)
    elif not found:
        show.say("There are no workflows yet. Try: spell workflow FILE.yaml")
    else:
        show.table(["ID", "NAME", "STEPS", "STATUS", "CREATED"], [_line(item) for item in found])


def _line(item: WorkflowSummary) -> list[str]:
    steps = f"{item.steps_complete}/{item.steps_count}"
    return [str(item.number), item.name, steps, workflow_state(item), show.ago(item.created_at)]


@workflow.command(context_settings=_HELP)
@click.argument("reference", metavar="WORKFLOW", shell_complete=complete.workflows)
@click.option("-f", "--follow", "follow_", is_flag=True, help="Follow the workflow until it has ended.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def info(ctx: click.Context, reference: str, follow_: bool, json_: bool) -> None:
    """Show a workflow and its steps. WORKFLOW is a number, a name (the newest of that name), or latest."""
    with connect() as client:
        flows = client.workflows
        found = flows.get(reference)
        if follow_:
            ctx.exit(follow(flows, found, json_=json_))
    if json_:
        show.as_json(found)
    else:
        _show(found)


def _show(found: WorkflowRecord) -> None:
    show.say(f"Workflow {found.number}: {found.name}")
    show.say(f"Status    {workflow_state(found)}")
    show.say(f"Created   {show.clock(found.created_at)}")
    if found.ended_at is not None:
        show.say(f"Duration  {show.duration(round(found.ended_at - found.created_at, 3))}")
    click.echo()
    show.table(["STEP", "NEEDS", "RUN", "STATUS", "DURATION", "MESSAGE"], [_row(step) for step in found.steps])


def _row(step: StepRecord) -> list[str]:
    took = "-" if step.duration_s is None else show.duration(round(step.duration_s, 2))
    status = show.state(step.state, step.exit_code, step.signal, None) + (", reused" if step.reused else "")
    message = "-" if step.state == State.COMPLETE else step.message or "-"
    return [step.name, ", ".join(step.needs) or "-", str(step.run or "-"), status, took, message]


@workflow.command(context_settings=_HELP)
@click.argument("reference", metavar="WORKFLOW", shell_complete=complete.active_workflows)
def stop(reference: str) -> None:
    """Stop WORKFLOW and keep the outputs of its runs. Waiting steps never start."""
    with connect() as client:
        found = client.workflows.stop(reference)
    show.say(f"Stopping workflow {found.number}. Use 'spell workflow info -f {found.number}' to follow it to its end.")


@workflow.command(context_settings=_HELP)
@click.argument("reference", metavar="WORKFLOW", shell_complete=complete.active_workflows)
def kill(reference: str) -> None:
    """Kill WORKFLOW at once. The outputs of its active runs are lost, and waiting steps never start."""
    with connect() as client:
        found = client.workflows.kill(reference)
    show.say(f"Killing workflow {found.number}.")
