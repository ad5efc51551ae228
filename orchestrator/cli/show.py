"""How things look: durations, sizes, times, tables, and the console's signs in ASCII where they must be."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from orchestrator.spec import to_wire

_ASCII = {"…": "...", "→": "->", "✔": "OK", "✖": "x"}
_SIGNS = frozenset("✨💫🎉💥💀✋⭐🌟ℹ")
_VARIATION = "\ufe0f"


def speaks_utf8() -> bool:
    """Whether stdout takes more than ASCII."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def plain(text: str) -> str:
    """`text` as stdout can show it: where that is not UTF-8, in ASCII, without signs."""
    if speaks_utf8():
        return text
    for sign, word in _ASCII.items():
        text = text.replace(sign, word)
    without = "".join(char for char in text if char not in _SIGNS and char != _VARIATION)
    return without.lstrip().encode("ascii", "replace").decode()


def say(text: str, *, err: bool = False) -> None:
    """Print a line, at once."""
    click.echo(plain(text), err=err)


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
    cells = [list(headers), *(list(map(plain, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    click.echo("\n".join(lines))


def cut(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else plain(line[: width - 1] + "…")


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
