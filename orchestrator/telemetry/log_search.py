"""Finds lines in a log, a gigabyte in less than a second: blocks of it are matched as a whole, and only hits become lines.

A *piece* is what `\\n` or `\\r` ends: a line, or one state of a progress bar. The last N hits are looked for from the end. Holes of
a log that grew too long are passed over. A piece longer than a block is looked at in parts.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orchestrator.content.log_pattern import LogPattern
from orchestrator.records.logs import LogLine
from orchestrator.telemetry import log_times

_BLOCK_BYTES = 4 << 20
_NEAR_BYTES = 64 << 10  # lines around a hit, and the shown part of a line
_FIRST_BYTES = 1 << 10  # where the lines before a hit are looked for first
_WORKERS = min(4, os.cpu_count() or 1)
_TIMES_AT_ONCE = 10_000
_LINES_OF_A_HOLE = 2  # that `logs.read` shows in its place
_ENDS = re.compile(rb"\r\n|\r|\n")


class _Block(NamedTuple):
    """Whole pieces of a log: `data[begin:end]`; `data` begins at `offset`."""

    offset: int
    data: bytes
    begin: int
    end: int


class _Hit(NamedTuple):
    """A piece with a match: its first byte, its end, and the number of its line, from 1."""

    start: int
    end: int
    line: int


class Wanted(NamedTuple):
    """How to look for it.

    Attributes:
        last: only so many hits, the last ones; None for all.
        around: so many pieces before and after each hit.
        has_times: whether to say when each piece was written.
    """

    last: int | None = None
    around: int = 0
    has_times: bool = False


def search(log: Path, times: Path, pattern: LogPattern, wanted: Wanted, span: tuple[int, int]) -> Iterator[LogLine]:
    """Yield the lines that are found between two offsets, and those around them, in their order.

    Args:
        times: of the log.
        pattern: of what is looked for.
        wanted: how to look for it.
        span: both offsets.
    """
    with suppress(FileNotFoundError), log.open("rb", buffering=0) as file:
        fd = file.fileno()
        hits = _all(fd, pattern, span) if wanted.last is None else iter(_last(fd, pattern, span, wanted.last))
        clock = _Clock(times) if wanted.has_times else None
        yield from _lines(fd, hits, wanted.around, span, clock)


def aligned(log: Path, offset: int, end: int) -> int:
    """Return where the first piece begins at or after an offset; the offset itself if that is not near."""
    if offset == 0:
        return 0
    with suppress(FileNotFoundError), log.open("rb", buffering=0) as file:
        near = os.pread(file.fileno(), min(_NEAR_BYTES, end - offset + 1), offset - 1)
        if found := _ENDS.search(near):
            return offset - 1 + found.end()
    return offset


# -- hits -------------------------------------------------------------------------------------------------------------


def _all(fd: int, pattern: LogPattern, span: tuple[int, int]) -> Iterator[_Hit]:
    line, known = 1, 0  # of the piece at the offset `known`: blocks without a hit need not be counted
    for low, high in _parts(fd, *span):
        for block, first in _scanned(pattern, _forward(fd, low, high)):
            for start, stop in _matches(pattern, block, first):
                at = block.offset + start
                if known < block.offset:
                    line, known = line + _count(fd, known, block.offset), block.offset
                line, known = line + block.data.count(b"\n", known - block.offset, start), at
                yield _Hit(at, block.offset + stop, line)


def _last(fd: int, pattern: LogPattern, span: tuple[int, int], last: int) -> list[_Hit]:
    """Return the last hits. Their lines are counted from the end of their blocks, until we know how many there are in all."""
    found: deque[_Hit] = deque()
    after, low = 0, span[1]
    parts = _parts(fd, *span) if last else []
    for number, (low_end, high) in enumerate(reversed(parts)):
        after += _LINES_OF_A_HOLE if number else 0
        for block, first in _scanned(pattern, _backward(fd, low_end, high)):
            low = block.offset + block.begin
            hits = list(_matches(pattern, block, first))[len(found) - last :]
            counted = block.end
            for start, stop in reversed(hits):
                after += block.data.count(b"\n", start, counted)
                counted = start
                found.appendleft(_Hit(block.offset + start, block.offset + stop, -after))
            if len(found) >= last:
                after += block.data.count(b"\n", block.begin, counted)
                break
            after += block.data.count(b"\n", block.begin, counted)
        if len(found) >= last:
            break
    total = (_count(fd, 0, low) if found else 0) + after + 1
    return [hit._replace(line=total + hit.line) for hit in found]


def _scanned(pattern: LogPattern, blocks: Iterator[_Block]) -> Iterator[tuple[_Block, int | None]]:
    """Yield blocks, and where the first match of each begins; None if nowhere. Several are looked at at a time."""
    with ThreadPoolExecutor(_WORKERS) as pool:  # RE2 lets other threads work meanwhile
        ahead: deque[tuple[_Block, Future[int | None]]] = deque()
        try:
            for block in blocks:
                ahead.append((block, pool.submit(_first, pattern, block)))
                if len(ahead) > _WORKERS:
                    looked_at, first = ahead.popleft()
                    yield looked_at, first.result()
            for looked_at, first in ahead:
                yield looked_at, first.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _first(pattern: LogPattern, block: _Block) -> int | None:
    found = pattern.find(_view(block.data), block.begin, block.end)
    return found[0] if found else None


def _view(data: bytes) -> bytes:
    return data.replace(b"\r", b"\n") if b"\r" in data else data


def _matches(pattern: LogPattern, block: _Block, first: int | None) -> Iterator[tuple[int, int]]:
    if first is None:
        return
    data, end, view = block.data, block.end, _view(block.data)
    at = view.rfind(b"\n", block.begin, first) + 1 or block.begin
    while at < end and (found := pattern.find(view, at, end)):
        start = view.rfind(b"\n", at, found[0]) + 1 or at
        stop = view.find(b"\n", found[1], end)
        stop = end if stop < 0 else stop
        if start == end:  # after the last line feed is no piece
            return
        if start < stop or data[max(0, start - 1) : start + 1] != b"\r\n":  # between these two is no piece
            yield start, stop
        at = stop + 1


# -- blocks -----------------------------------------------------------------------------------------------------------


def _parts(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """Return the parts of a log without its holes. A file system without holes has one part."""
    found = []
    while start < end:
        try:
            low = os.lseek(fd, start, os.SEEK_DATA)
            start = min(os.lseek(fd, low, os.SEEK_HOLE), end)
        except OSError:
            low, start = start, end
        if low < start:
            found.append((low, start))
    return found


def _forward(fd: int, low: int, high: int) -> Iterator[_Block]:
    while low < high and (data := os.pread(fd, min(_BLOCK_BYTES, high - low), low)):
        end = len(data)
        if low + end < high:
            end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, end - 1)) + 1 or end  # not between \r and \n
        yield _Block(low, data, 0, end)
        low += end


def _backward(fd: int, low: int, high: int) -> Iterator[_Block]:
    """Yield the blocks of a part, the last one first: small ones at first, as the wanted lines may be the very last."""
    size = min(_NEAR_BYTES, _BLOCK_BYTES)
    while low < high:
        offset = max(low, high - size)
        size = min(2 * size, _BLOCK_BYTES)
        data = os.pread(fd, high - offset, offset)
        begin = 0
        if offset > low:
            first = _ENDS.search(data)  # it ends a piece that the block before has
            begin = first.end() if first and first.end() < len(data) else 0
        yield _Block(offset, data, begin, len(data))
        high = offset + begin


def _count(fd: int, start: int, end: int) -> int:
    """Return how many line feeds there are between two offsets, as `logs.read` shows the log."""
    parts = _parts(fd, start, end)
    is_cut = bool(start < end and (not parts or parts[0][0] > start)) + bool(parts and parts[-1][1] < end)
    found = _LINES_OF_A_HOLE * (max(0, len(parts) - 1) + is_cut)
    for low, high in parts:
        for offset in range(low, high, _BLOCK_BYTES):
            found += os.pread(fd, min(_BLOCK_BYTES, high - offset), offset).count(b"\n")
    return found


# -- lines ------------------------------------------------------------------------------------------------------------


class _Clock:
    """Says when the log became longer than an offset; offsets must not fall."""

    def __init__(self, times: Path) -> None:
        self._path, self._times, self._is_over = times, deque[tuple[int, float]](), False

    def at(self, offset: int) -> float | None:
        while True:
            while self._times and self._times[0][0] <= offset:
                self._times.popleft()
            if self._times:
                return self._times[0][1]
            if self._is_over:
                return None
            found = log_times.read(self._path, offset, _TIMES_AT_ONCE)
            self._times.extend((item.offset, item.at) for item in found)
            self._is_over = not found


def _lines(
    fd: int, hits: Iterator[_Hit], around: int, span: tuple[int, int], clock: _Clock | None
) -> Iterator[LogLine]:
    shown, before = span[0] - 1, None  # where the last piece that was shown begins, and the hit before
    for hit in hits:
        near: list[_Hit] = []
        if before:
            near += _after(fd, before, around, hit.start)
        if around:
            near += _before(fd, hit, around, near[-1].start if near else shown)
        yield from (_line(fd, item, clock, is_hit=False) for item in near)
        yield _line(fd, hit, clock, is_hit=True)
        shown, before = hit.start, hit
    if before:
        yield from (_line(fd, item, clock, is_hit=False) for item in _after(fd, before, around, span[1]))


def _line(fd: int, hit: _Hit, clock: _Clock | None, *, is_hit: bool) -> LogLine:
    data = os.pread(fd, min(hit.end - hit.start, _NEAR_BYTES), hit.start)
    at = clock.at(hit.start) if clock else None
    return LogLine(hit.line, hit.start, hit.end - hit.start, data.decode("utf-8", "replace"), at, is_hit)


def _after(fd: int, hit: _Hit, count: int, end: int) -> Sequence[_Hit]:
    """Return the pieces that follow one, before an offset. No more is read: there may be a hit in each line."""
    if not count:
        return ()
    data = os.pread(fd, min(_NEAR_BYTES, end - hit.end), hit.end)
    found: list[_Hit] = []
    line = hit.line
    at: re.Match[bytes] | None = _ENDS.match(data)
    while at and len(found) < count and at.end() < len(data):
        line += at[0].count(b"\n")
        start = at.end()
        at = _ENDS.search(data, start)
        found.append(_Hit(hit.end + start, hit.end + (at.start() if at else len(data)), line))
    return found


def _before(fd: int, hit: _Hit, count: int, shown: int) -> Sequence[_Hit]:
    """Return the pieces before one that begin after an offset. No more is read than that takes: each line may be a hit."""
    size = _FIRST_BYTES
    while True:
        low = max(0, shown, hit.start - size)
        data = os.pread(fd, hit.start - low, low)
        ends = list(_ENDS.finditer(data))[-count - 1 :]
        if len(ends) > count or low == max(0, shown) or size >= _NEAR_BYTES:
            break
        size *= 4
    begins = ([0] if len(ends) <= count and low == 0 else []) + [end.end() for end in ends]
    stops = ends if len(begins) > len(ends) else ends[1:]
    found: list[_Hit] = []
    line = hit.line
    for start, stop in reversed(list(zip(begins, stops, strict=False))):
        line -= stop[0].count(b"\n")
        if low + start > shown:
            found.append(_Hit(low + start, low + stop.start(), line))
    return found[::-1]
