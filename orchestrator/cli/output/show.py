"""How things look: durations, sizes, times, tables, and the console's signs in ASCII where they must be."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import click

from orchestrator.cli.output.streams import speaks_utf8
from orchestrator.spec.run import to_wire

_ASCII = {"…": "...", "→": "->", "✔": "OK", "✖": "x", "✓": "ok", "✗": "x", "─": "-", "├": "|", "└": "`", "│": "|"}
_SIGNS = frozenset("✨💫🎉💥💀✋⭐🌟ℹ")
_VARIATION = "\ufe0f"  # makes an emoji of the character before it
_COMBINING = "\u0300"  # the first character that may fill another number of cells than one
_ANSI = r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])"
# What moves a cursor or turns the direction of the text would let a run's name lie about its line.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` as stdout can show it: where that is not UTF-8, in ASCII, without signs."""
    if speaks_utf8(sys.stdout):
        return text
    for sign, word in _ASCII.items():
        text = text.replace(sign, word)
    without = "".join(char for char in text if char not in _SIGNS and char != _VARIATION)
    return (without.lstrip() if without != text else text).encode("ascii", "replace").decode()


def safe(text: str) -> str:
    """`text` with its control characters spelled out, so that it cannot move the cursor; lines and tabs stay."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def without_ansi(text: str) -> str:
    """`text` without colours and cursor movements."""
    return re.sub(_ANSI, "", text)


def say(text: str, *, err: bool = False) -> None:
    """Print a line, at once."""
    click.echo(plain(safe(text)), err=err)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"{coloured('WARNING:', 'yellow')} {plain(safe(text))}", err=True)


def error(message: str, cure: str = "") -> None:
    """Print an error on stderr, and below it what to do about it."""
    click.echo(f"{coloured('ERROR:', 'red')} {plain(safe(message))}", err=True)
    for line in cure.splitlines():
        click.echo(f"       {plain(safe(line))}", err=True)


def coloured(word: str, colour: str) -> str:
    """`word` in a colour, unless nobody wants any."""
    dull = os.environ.get("NO_COLOR") or is_dumb()
    return word if dull else click.style(word, fg=colour)  # click takes colours off where there is no terminal


def is_dumb() -> bool:
    """Whether the terminal, if there is one, can only print."""
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


def as_json(value: Any) -> None:
    """Print a record, or a list of them, as JSON."""
    click.echo(json.dumps(to_wire(value), indent=2))


def duration(seconds: float) -> str:
    """Seconds in the form `44h36m34.553059s`."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    text = f"{rest}{fraction}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def size(count: int) -> str:
    """Bytes in the form 512B, 1.2K, 15M: 1024-based, one decimal below 10."""
    value = float(count)
    for unit in "BKMGT":
        if value < 1024 or unit == "T":
            return f"{value:.1f}{unit}" if value < 9.95 and unit != "B" else f"{value:.0f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def ago(moment: float | None) -> str:
    """A time as `5 minutes ago`; the date after 14 days."""
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
    """A time in the local zone, to the second."""
    return "-" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns under upper-case headers, without borders."""
    click.echo("\n".join(table_lines(headers, rows)))


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of such a table."""
    cells = [list(headers), *([plain(safe(" ".join(cell.split()))) for cell in row] for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(headers))]
    return ["  ".join(map(_padded, row, widths)).rstrip() for row in cells]


def _padded(cell: str, cells: int) -> str:
    return cell + " " * (cells - width(cell))


def width(text: str) -> int:
    """How many cells of a terminal `text`, without control characters, fills: wide characters two, combining ones none."""
    if max(text.replace("…", "."), default="") < _COMBINING:
        return len(text)
    from wcwidth import wcswidth  # 55 to 110 ms, by its version; most text is in Latin letters

    return wcswidth(text)


def most_cells(text: str) -> int:
    """The most cells that `text` can fill, known without loading anything."""
    return sum(1 if char < _COMBINING or char == "…" else 2 for char in text)


def cut(text: str, cells: int) -> str:
    """One line of at most `cells` cells of a terminal; `…` (or `...`) at its end says that it was longer."""
    return cut_cells(plain(safe(" ".join(text.split()))), cells)


def cut_cells(line: str, cells: int) -> str:
    """A line that can be shown as it is, cut likewise."""
    end = plain("…")
    if most_cells(line) <= cells or width(line) <= cells:
        return line
    if cells < len(end):
        return ""
    room = cells - len(end)
    kept = bisect_right(range(len(line) + 1), room, key=lambda count: width(line[:count])) - 1
    return line[:kept] + end


def state(name: str, exit_code: int | None, signal: int | None, wish: str | None) -> str:
    """A state as a person sees it: `Complete (0)`, `Stopping`, `Queued`."""
    if name in ("building", "mounting", "running", "saving", "pushing"):
        shown = {"stop": "stopping", "kill": "killing"}.get(wish or "", name)
        return f"*{shown.capitalize()}"
    if name == "machine_requested":
        return "Queued"
    title = name.replace("_", " ").title()
    if exit_code is not None:
        return f"{title} ({exit_code})"
    return f"{title} (signal {signal})" if signal is not None else title
