"""Formats values for people: durations, sizes, times, tables. Signs become ASCII where stdout is not UTF-8."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import click

from orchestrator.cli.output import columns
from orchestrator.cli.output.streams import speaks_utf8
from orchestrator.spec.run import to_wire

_ASCII = {"…": "...", "→": "->", "✔": "OK", "✖": "x", "✓": "ok", "✗": "x", "─": "-", "├": "|", "└": "`", "│": "|"}
_SIGNS = frozenset("✨💫🎉💥💀✋⭐🌟ℹ")
_VARIATION = "\ufe0f"  # turns the character before it into an emoji
_USUAL_COLUMNS = 80  # of a terminal that does not say its width
_LEAST_ROOM = 20  # for words beside an indent
_COMBINING = "\u0300"  # the first character that may fill another number of cells than one
_ANSI = r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])"
# Characters that move the cursor or change the direction of text: with them, a run's name could forge other lines.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return `text` in characters that stdout can show: in ASCII without signs unless stdout is UTF-8."""
    if speaks_utf8(sys.stdout):
        return text
    for sign, word in _ASCII.items():
        text = text.replace(sign, word)
    without = "".join(char for char in text if char not in _SIGNS and char != _VARIATION)
    return (without.lstrip() if without != text else text).encode("ascii", "replace").decode()


def safe(text: str) -> str:
    """Return `text` with control characters escaped, so that it cannot move the cursor. Line feeds and tabs stay."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def line(text: str) -> str:
    """Return a name as one line: line feeds and tabs are escaped, too. What a program reads has another form (`--json`)."""
    return safe(text).replace("\n", r"\n").replace("\t", r"\t")


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 file`, `2 files`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def without_ansi(text: str) -> str:
    """Return `text` without colours and cursor movements."""
    return re.sub(_ANSI, "", text)


def say(text: str, *, err: bool = False) -> None:
    """Print a line and flush it."""
    click.echo(plain(safe(text)), err=err)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"{coloured('WARNING:', 'yellow')} {plain(safe(text))}", err=True)


def error(message: str, cure: str = "") -> None:
    """Print an error on stderr, and its cure below."""
    click.echo(f"{coloured('ERROR:', 'red')} {plain(safe(message))}", err=True)
    for line in cure.splitlines():
        click.echo(f"       {plain(safe(line))}", err=True)


def coloured(word: str, colour: str) -> str:
    """Return `word` in a colour, unless `NO_COLOR` is set or the terminal has no colours."""
    dull = os.environ.get("NO_COLOR") or is_dumb()
    return word if dull else click.style(word, fg=colour)  # click removes colours if the output is no terminal


def is_dumb() -> bool:
    """Return whether the terminal cannot move its cursor."""
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


def as_json(value: Any) -> None:
    """Print a record, or a list of them, as JSON."""
    click.echo(json.dumps(to_wire(value), indent=2))


def duration(seconds: float) -> str:
    """Return seconds in the form `44h36m34.553059s`."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    text = f"{rest}{fraction}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def size(count: int) -> str:
    """Return bytes in the form 512B, 1.2K, 15M: 1024-based, with one decimal below 10."""
    value = float(count)
    for unit in "BKMGT":
        if value < 1024 or unit == "T":
            return f"{value:.1f}{unit}" if value < 9.95 and unit != "B" else f"{value:.0f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def ago(moment: float | None) -> str:
    """Return a time (seconds since the epoch) as `5 minutes ago`, or as a date after 14 days."""
    if moment is None:
        return "-"
    passed = max(0.0, time.time() - moment)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if passed >= length:
            count = int(passed // length)
            if unit == "day" and count > 14:
                break
            return f"{count} {unit}{'s' * (count != 1)} ago"
    else:
        return "just now"
    return time.strftime("%Y-%m-%d", time.localtime(moment))


def clock(moment: float | None) -> str:
    """Return a time (seconds since the epoch) in the local zone, to the second."""
    return "-" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns under upper-case headers, without borders. On a terminal they fit into its width."""
    lines, left_out = _fitted(headers, rows, terminal_columns())
    click.echo("\n".join(lines))
    if left_out:
        say(wrapped(f"Not shown, as the terminal is too narrow: {', '.join(left_out)}"), err=True)


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]], room: int | None = None) -> list[str]:
    """Return the lines of such a table.

    Args:
        room: the most cells of a line; None for as many as the table needs.
    """
    return _fitted(headers, rows, room)[0]


def live_table(headers: Sequence[str], rows: Sequence[Sequence[str]], room: int | None) -> tuple[list[str], str]:
    """Return the lines of such a table, and a line that names the columns without room; "" when all are there."""
    lines, left_out = _fitted(headers, rows, room)
    words = f"Not shown: {', '.join(left_out)}" if left_out else ""
    return lines, words if room is None else cut_cells(words, room)


def _fitted(headers: Sequence[str], rows: Sequence[Sequence[str]], room: int | None) -> tuple[list[str], list[str]]:
    """Return the lines of a table, and the headers of the columns that there is no room for."""
    cells = [list(headers), *([plain(safe(" ".join(cell.split()))) for cell in row] for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(headers))]
    kept = dict(enumerate(widths))
    if room is not None and sum(widths) + columns.GAP * (len(widths) - 1) > room:
        kept = columns.fit(headers, cells[1:], widths, room)
        cells = [[cut_cells(cell, kept.get(place, 0)) for place, cell in enumerate(row)] for row in cells]
    gap = " " * columns.GAP
    lines = [gap.join(_padded(row[place], kept[place]) for place in kept).rstrip() for row in cells]
    return lines, [header for place, header in enumerate(headers) if place not in kept]


def wrapped(text: str, indent: int = 0) -> str:
    """Return a text in lines that end between words where a terminal ends them, so that it need not cut a word.

    Args:
        indent: spaces before each line but the first.
    """
    room = terminal_columns()
    if room is None or most_cells(text) <= room:
        return text
    return click.wrap_text(text, max(room, indent + _LEAST_ROOM), subsequent_indent=" " * indent)


def terminal_columns() -> int | None:
    """Return the width of the terminal on stdout; None if it is none."""
    if not sys.stdout.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    with contextlib.suppress(OSError):
        return int(told) if told.isdecimal() else os.get_terminal_size(sys.stdout.fileno()).columns or _USUAL_COLUMNS
    return _USUAL_COLUMNS


def _padded(cell: str, cells: int) -> str:
    return cell + " " * (cells - width(cell))


def width(text: str) -> int:
    """Return the number of terminal cells that `text` fills. It must have no control characters."""
    if max(text.replace("…", "."), default="") < _COMBINING:
        return len(text)
    from wcwidth import wcswidth  # 55 to 110 ms, by its version; most text is in Latin letters

    return wcswidth(text)


def most_cells(text: str) -> int:
    """Return an upper bound of the cells that `text` fills, without loading a module."""
    return sum(1 if char < _COMBINING or char == "…" else 2 for char in text)


def cut(text: str, cells: int) -> str:
    """Return one line of at most `cells` terminal cells; a longer one ends with `…` (or `...`)."""
    return cut_cells(plain(safe(" ".join(text.split()))), cells)


def cut_cells(line: str, cells: int) -> str:
    """Cut a line in the same way that needs no escaping."""
    end = plain("…")
    if most_cells(line) <= cells or width(line) <= cells:
        return line
    if cells < len(end):
        return ""
    room = cells - len(end)
    kept = bisect_right(range(len(line) + 1), room, key=lambda count: width(line[:count])) - 1
    return line[:kept] + end


def state(name: str, exit_code: int | None, signal: int | None, wish: str | None) -> str:
    """Return a state for display: `Complete (0)`, `*Stopping`, `Queued`."""
    if name in ("building", "mounting", "running", "saving", "pushing"):
        shown = {"stop": "stopping", "kill": "killing"}.get(wish or "", name)
        return f"*{shown.capitalize()}"
    if name == "machine_requested":
        return "Queued"
    title = name.replace("_", " ").title()
    if exit_code is not None:
        return f"{title} ({exit_code})"
    return f"{title} (signal {signal})" if signal is not None else title
