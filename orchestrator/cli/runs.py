"""Shows, ends and waits for runs: info, stop, kill, wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.durations import Duration
from orchestrator.cli.output import show
from orchestrator.cli.output.console import exit_code
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import Client, connect
from orchestrator.errors import ServerUnavailable, SpellError
from orchestrator.records.runs import RunRecord
from orchestrator.spec.sizes import size_text
from orchestrator.states import ACTIVE, State

_HELP = {"help_option_names": ["-h", "--help"]}
_COMMAND_WIDTH = 40
_MOST_LOGGED = 12


@click.command(context_settings=_HELP)
@click.argument("run", shell_complete=complete.runs)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def info(run: str, json_: bool) -> None:
    """Show the details of RUN: a number, a name, latest or latest~1."""
    with connect() as client:
        found = client.runs.get(run)
    if json_:
        show.as_json(found)
        return
    facts = _facts(found)
    width = max(len(key) for key, _ in facts)
    for key, value in facts:
        lines = value.replace("\n", "\n".ljust(width + 3))
        line = f"{key.ljust(width)}  {lines}"
        show.say(line if key == "Command" or "\n" in value else show.wrapped(line, width + 2))  # commands are copied


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    spec, code = run.spec, run.spec["code"] or {}
    took = "" if run.duration_s is None else show.duration(run.duration_s)
    outputs = f"{show.count(run.outputs_count, 'file')}, {show.size(run.outputs_bytes)}" if run.outputs_count else ""
    if run.outputs_removed_at is not None:
        outputs += f"; removed by spell gc, {show.clock(run.outputs_removed_at)}"
    facts = [
        ("Run", str(run.number) + (" [Archived]" if run.archived else "")),
        ("Project", run.project),
        ("Name", run.name),
        ("Status", show.state(run.state, run.exit_code, run.signal, run.wish)),
        ("Reason", run.message),
        ("Waits For", _waits_for(run)),
        ("Attempts", "\n".join(_attempts(run))),
        ("Rerun Of", str(run.rerun_of or "")),
        ("Imported From", f"{run.imported.origin} in {run.imported.path}" if run.imported else ""),
        ("Resumed From", spec.get("resume", "")),
        ("Resumed As", ", ".join(f"run {number}" for number in run.resumed_by)),
        ("Search", str(run.search or "")),
        ("Command", run.command),
        ("Description", run.description),
        ("Repository" if run.commit else "Folder", run.repository),
        ("Git Commit", run.commit + (" [Uncommitted]" if run.dirty else "")),
        ("Git URL", str(code.get("url", ""))),
        ("Submodules", "\n".join(f"{it['path']} {it['commit'][:8]} {it['url']}" for it in code.get("submodules", ()))),
        ("Machine Type", run.machine_type),
        ("Resources", _resources(spec)),
        ("Executor", run.executor),
        ("Docker Image", _image(spec.get("image", ""), run.image or "")),
        ("Network", spec.get("network", "")),
        ("Webhooks", str(len(spec.get("notify", ())) or "")),
        ("GPUs", ", ".join(map(str, run.gpus))),
        ("Created", show.clock(run.created_at)),
        ("Start Time", "" if run.started_at is None else show.clock(run.started_at)),
        ("End Time", "" if run.ended_at is None else show.clock(run.ended_at)),
        ("Duration", took),
        ("CPU Time", "" if run.cpu_time_s is None else show.duration(round(run.cpu_time_s, 3))),
        ("Peak Memory", show.size(run.max_rss_bytes) if run.max_rss_bytes else ""),
        ("Time Limit", "" if spec["timeout_s"] is None else show.duration(spec["timeout_s"])),
        ("Labels", ", ".join(run.labels)),
        ("Checkpoints", spec.get("checkpoints", "")),
        ("Mounts", ", ".join(f"{item['resource']} at {item['path']}" for item in run.mounts)),
        ("Mounted By", ", ".join(f"run {number}" for number in run.mounted_by)),
        ("Environment Vars", ", ".join(spec["env"])),
        ("Secrets", ", ".join(f"{name}={variable}" for variable, name in spec.get("secrets", {}).items())),
        ("Environment From", (spec.get("source") or {}).get("file", "")),
        ("Editable", ", ".join(spec.get("editables", ()))),
        ("Python", run.python),
        ("Frameworks", ", ".join(spec["frameworks"] or ())),
        ("Requirements File", ", ".join(item["name"] for item in spec["requirements"])),
        ("Pip Packages", ", ".join(spec["pip"])),
        ("Apt Packages", ", ".join(spec.get("apt", ()))),
        ("Installed", ", ".join(run.packages)),
        ("Parameters", ", ".join(f"{key}={value}" for key, value in spec["params"].items())),
        ("Logged Parameters", _logged(run)),
        ("Outputs", outputs),
    ]
    return [(key, value) for key, value in facts if value]


def _resources(spec: Mapping[str, Any]) -> str:
    """Return what a run asked for by word, beside its machine type."""
    size, gpu_size = spec.get("memory_bytes"), spec.get("gpu_memory_bytes")
    words = [
        f"{spec['cpus']:g} cores" if spec.get("cpus") else "",
        f"{size_text(size)} of memory" if size else "",
        show.count(spec["gpus"], "GPU") if spec.get("gpus") is not None else "",
        f"GPUs of type {spec['gpu_type']}" if spec.get("gpu_type") else "",
        f"{size_text(gpu_size, 1000)} for each GPU" if gpu_size else "",
    ]
    return ", ".join(filter(None, words))


def _logged(run: RunRecord) -> str:
    """Return the first parameters that a tracker logged: the Trainer of transformers logs more than a hundred."""
    words = [f"{key}={show.cut(value, 40)}" for key, value in list(run.logged.items())[:_MOST_LOGGED]]
    more = len(run.logged) - len(words)
    return ", ".join(words) + (f" and {more} more (see --json)" if more else "")


def _waits_for(run: RunRecord) -> str:
    """Return what a run waits for, and a queued one since when: its cast, or the end of the attempt before."""
    if run.state != State.MACHINE_REQUESTED:
        return run.waits_for
    since = run.created_at if not run.attempts else run.attempts[-1].ended_at or run.created_at
    return run.waits_for and f"{run.waits_for}, since {show.clock(since)}"


def _attempts(run: RunRecord) -> Iterator[str]:
    """Yield one line for each attempt of a retried run, including the last."""
    for failed in run.attempts:
        took = "" if failed.duration_s is None else f" after {show.duration(round(failed.duration_s, 3))}"
        yield f"{failed.number}: {failed.message}{took}"
    if run.attempts and run.attempt > run.attempts[-1].number:
        yield f"{run.attempt}: {run.message or run.state.replace('_', ' ')}"
    elif run.attempts and run.state in ACTIVE:
        yield "waiting for the next attempt"


@click.command(context_settings=_HELP)
@click.argument("run", nargs=-1, required=True, shell_complete=complete.active)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.pass_context
def stop(ctx: click.Context, run: Sequence[str], quiet: bool) -> None:
    """Stop each RUN and keep its outputs."""
    words = "Stopping run {number}. Use 'spell logs -f {number}' to view logs while the job finishes."
    ctx.exit(_each(run, lambda client, number: client.runs.stop(number), words, quiet))


@click.command(context_settings=_HELP)
@click.argument("run", nargs=-1, required=True, shell_complete=complete.active)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.pass_context
def kill(ctx: click.Context, run: Sequence[str], quiet: bool) -> None:
    """Kill each RUN at once. Its outputs are lost."""
    ctx.exit(_each(run, lambda client, number: client.runs.kill(number), "Killing run {number}.", quiet))


def _each(references: Sequence[str], act: Callable[[Client, str], str], words: str, quiet: bool) -> int:
    """Act on every run, also after a failure. Returns the exit code."""
    failed = 0
    with interruptible("See what became of them: spell ps"), connect() as client:
        for reference in references:
            try:
                number = client.runs.get(reference).number
                state = act(client, str(number))
            except SpellError as error:
                if len(references) == 1 or isinstance(error, ServerUnavailable):
                    raise
                failed = error.exit_code
                show.error(error.message)
                continue
            if not quiet:
                over = f"Run {number} had not started and will not start."
                show.say(over if state == State.KILLED else words.format(number=number))
    return failed


@click.command(context_settings=_HELP)
@click.argument("run", nargs=-1, required=True, shell_complete=complete.active)
@click.option(
    "--timeout",
    type=Duration("seconds", 0, 1e9),
    metavar="TIME",
    help="Give up after this long (exit code 1): 10m, 2h; a number counts seconds.",
)
@click.pass_context
def wait(ctx: click.Context, run: Sequence[str], timeout: float | None) -> None:
    """Wait until each RUN has ended. The exit code is that of the first RUN that is not complete, else 0."""
    code = 0
    deadline = None if timeout is None else time.monotonic() + timeout
    with interruptible("The runs go on. See them with: spell ps"), connect() as client:
        for reference in run:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                ended = client.runs.wait(reference, left)
            except TimeoutError as error:
                raise SpellError(str(error), f"It goes on. Follow it: spell logs -f {reference}") from None
            show.say(f"Run {ended.number} {ended.state.replace('_', ' ')}: {show.line(ended.message)}")
            code = code or exit_code(ended)
    ctx.exit(code)


def _image(requested: str, used: str) -> str:
    """Return the requested image, and the ID of the image that was used."""
    return " ".join(filter(None, [requested if requested != used else "", used[:19]]))
