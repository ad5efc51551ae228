"""`spell diff` compares two runs. `spell verify` compares outputs with their recorded hashes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.client.client import connect
from orchestrator.records.compare import (
    ChangeRecord,
    CodeChangeRecord,
    DiffRecord,
    MetricChangeRecord,
    OutputChangeRecord,
    VerifyRecord,
)

if TYPE_CHECKING:
    from orchestrator.cli.output.progress import Bar

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_MOST = 100  # lines of one section
_CELLS = 400
_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_PROGRESS_FROM_BYTES = 64 << 20
_SECTIONS = ("spec", "logged", "environment", "code", "outputs", "metrics", "result")


@click.command(context_settings=_HELP)
@click.argument("before", metavar="RUN", shell_complete=complete.runs)
@click.argument("after", metavar="OTHER", shell_complete=complete.runs)
@click.option("--spec", is_flag=True, help="Only the spec.")
@click.option("--logged", is_flag=True, help="Only parameters that a tracker such as MLflow logged.")
@click.option("--environment", is_flag=True, help="Only executor, image, Python and packages.")
@click.option("--code", is_flag=True, help="Only the code, as a unified diff.")
@click.option("--outputs", is_flag=True, help="Only outputs, by their hashes.")
@click.option("--metrics", is_flag=True, help="Only the last values of metrics.")
@click.option("--result", is_flag=True, help="Only exit code, state and duration.")
@click.option("--wait", is_flag=True, help="Wait until all hashes are computed.")
@click.option("--all", "all_", is_flag=True, help=f"List all differences, not the first {_MOST} of each kind.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if something differs, or may differ.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def diff(
    ctx: click.Context,
    /,
    *,
    before: str,
    after: str,
    wait: bool,
    all_: bool,
    exit_code: bool,
    json_: bool,
    **only: bool,
) -> None:
    """Show the differences between RUN and OTHER: spec, logged parameters, environment, code, outputs, metrics, result. Values of
    environment variables are never shown."""
    sections = [name for name in _SECTIONS if only[name]]
    with connect() as client:
        found = client.compare.diff(before, after, sections)
        while wait and found.outputs_unhashed:
            time.sleep(0.2)
            found = client.compare.diff(str(found.before), str(found.after), sections)
    if json_:
        show.as_json(found)
    else:
        _show(found, None if all_ else _MOST)
    ctx.exit(int(exit_code and (found.differs or bool(found.outputs_unhashed or found.notes))))


def _show(found: DiffRecord, most: int | None) -> None:
    runs = f"run {found.before} and run {found.after}"
    for note in found.notes:
        show.warn(note)
    if found.outputs_unhashed:
        count = len(found.outputs_unhashed)
        words = (
            "1 output was not compared: its hash is"
            if count == 1
            else f"{count} outputs were not compared: their hashes are"
        )
        show.warn(f"{words} not computed yet. Use --wait to wait for this.")
    duration = next((item for item in found.result if item.name == "duration_s"), None)
    took = f" They took {_took(duration.before)} and {_took(duration.after)}." if duration else ""
    if not found.differs:
        known = not (found.outputs_unhashed or found.notes)
        show.say(f"Nothing {'' if known else 'else '}differs between {runs}.{took}")
        return
    lines = [f"Differences between {runs}:"]
    lines += _section("Spec", found.spec, most, _change)
    lines += _section("Logged parameters", found.logged, most, _change)
    lines += _section("Environment", found.environment, most, _change)
    lines += _section("Outputs", found.outputs, most, _output)
    if found.outputs:
        lines.append(f"  {show.count(found.outputs_same, 'output is', 'outputs are')} the same")
    lines += _section("Metrics (last values)", found.metrics, most, _metric)
    lines += _section("Result", found.result, most, _change)
    lines += _section("Code", found.code, most, _file)
    click.echo("\n".join(map(show.plain, lines)))
    for item in found.code:
        if item.patch:
            click.echo(show.plain(_patch(item)))


def _took(seconds: str | None) -> str:
    return "?" if seconds is None else show.duration(round(float(seconds), 3))


def _section(title: str, items: Sequence[Any], most: int | None, line: Callable[[Any], str]) -> Iterator[str]:
    if items:
        yield f"\n{_bold(title)}"
        yield from (f"  {line(item)}" for item in items[:most])
        if most is not None and len(items) > most:
            yield f"  … and {len(items) - most} more (--all lists them)"


def _bold(text: str) -> str:
    return show.coloured(text, "cyan")


def _change(item: ChangeRecord) -> str:
    if "***" in (item.before, item.after):
        what = "added" if item.before is None else "removed" if item.after is None else "changed"
        return f"{_word(item.name)}: {what} (hidden)"
    if item.name == "duration_s":
        return f"duration: {_took(item.before)} → {_took(item.after)}"
    return f"{_word(item.name)}: {_value(item.before, 'red')} → {_value(item.after, 'green')}"


def _word(text: str) -> str:
    return show.cut(text, _CELLS)


def _value(text: str | None, colour: str) -> str:
    return "(none)" if text is None else show.coloured(_word(text), colour)


def _output(item: OutputChangeRecord) -> str:
    sign, colour = _SIGNS[item.kind]
    sizes = [show.size(size) for size in (item.before_size, item.after_size) if size is not None]
    return f"{show.coloured(sign, colour)} {_word(show.line(item.path))} ({' → '.join(dict.fromkeys(sizes))})"


def _metric(item: MetricChangeRecord) -> str:
    old, new = ("(none)" if value is None else f"{value:.6g}" for value in (item.before, item.after))
    return f"{_word(item.name)}: {old} → {new}"


def _file(item: CodeChangeRecord) -> str:
    note = f" ({item.note})" if item.note else ""
    if item.before_mode and item.after_mode and item.before_mode != item.after_mode:
        note += f" (mode {item.before_mode} → {item.after_mode})"
    if item.kind == "renamed":
        return f"{show.coloured('>', 'yellow')} {_word(item.before_path)} → {_word(item.path)}{note}"
    sign, colour = _SIGNS["changed" if item.kind == "mode" else item.kind]
    return f"{show.coloured(sign, colour)} {_word(item.path)}{note}"


def _patch(item: CodeChangeRecord) -> str:
    old = "/dev/null" if item.kind == "added" else f"a/{_word(item.path)}"
    new = "/dev/null" if item.kind == "removed" else f"b/{_word(item.path)}"
    colours = {"+": "green", "-": "red", "@": "cyan"}
    lines = [
        show.coloured(show.safe(line), colours[line[0]]) if line[:1] in colours else show.safe(line)
        for line in item.patch.removesuffix("\n").split("\n")
    ]
    return "\n".join(["", f"--- {old}", f"+++ {new}", *lines])


@click.command(context_settings=_HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=complete.runs)
@click.option("-q", "--quiet", is_flag=True, help="Print only problems.")
@click.option("--all", "all_", is_flag=True, help=f"List all problems, not the first {_MOST} of each run.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(ctx: click.Context, runs: Sequence[str], quiet: bool, all_: bool, json_: bool) -> None:
    """Read the outputs of each RUN again, and compare them with their recorded hashes. The exit code is 1 if a file is
    missing, changed, extra or unreadable, or if it has no recorded hash."""
    found = []
    with connect() as client:
        for reference in runs:
            with _progress(reference, json_ or quiet) as on_progress:
                item = client.verify.outputs(reference, on_progress)
            found.append(item)
            if not json_:
                _print(item, None if all_ else _MOST, quiet)
    if json_:
        show.as_json(found)
    ctx.exit(int(any(not item.ok for item in found)))


def _print(item: VerifyRecord, most: int | None, quiet: bool) -> None:
    if item.ok:
        if not quiet:
            words = (
                f"{show.count(item.files, 'file')}, {show.size(item.bytes)}, as recorded"
                if item.files
                else "it has no outputs"
            )
            show.say(f"✔ Run {item.run}: {words}")
        return
    count = len(item.problems)
    show.say(f"✖ Run {item.run}: {count} of its outputs {'is' if count == 1 else 'are'} not as recorded")
    for problem in item.problems[:most]:
        show.say(f"  {problem.problem.ljust(10)} {show.cut(show.line(problem.path), _CELLS)}")
    if most is not None and len(item.problems) > most:
        show.say(f"  … and {len(item.problems) - most} more (--all lists them)")


@contextlib.contextmanager
def _progress(reference: str, silent: bool) -> Iterator[Callable[[int, int], object]]:
    """Give a callback for progress in bytes. It draws a bar on a terminal if there are many bytes."""
    bars: list[Bar] = []

    def on_progress(done: int, total: int) -> None:
        if not bars and total >= _PROGRESS_FROM_BYTES:
            from orchestrator.cli.output.progress import Bar  # 24 ms: rich; few outputs are that large

            bars.append(Bar(f"Verifying run {show.safe(reference)}", total).__enter__())
        if bars:
            bars[0].done(done)

    try:
        yield (lambda _done, _total: None) if silent or not sys.stderr.isatty() else on_progress
    finally:
        for bar in bars:
            bar.__exit__()
