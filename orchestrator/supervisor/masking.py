"""Masks secrets in the log of a run: each is replaced by `***`, all other bytes stay unchanged.

The command writes into a pipe, and a thread of its reaper copies from the pipe into the log. Bytes that may begin a secret
are held back until more bytes come, for at most half a second. Loaded only for runs that have secrets.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
from collections.abc import Iterable, Iterator

MASK = b"***"
LEAST_BYTES = 4
"""Shorter values are not masked: they occur in a log by chance."""

_HOLD_S = 0.5
_CHUNK_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ; the fcntl of Python 3.9 lacks it
_PREFIX_BYTES = 8  # the beginning of a longer pattern is looked up by so many bytes


def patterns_of(values: Iterable[bytes]) -> list[bytes]:
    """Return the patterns to mask: each value, and each line of a value of several lines, stripped of white space."""
    found: set[bytes] = set()
    for value in values:
        found.add(value)
        found.update(line.strip() for line in value.splitlines())
    return sorted((item for item in found if len(item) >= LEAST_BYTES), key=len)


class Masker:
    """Masks a stream of bytes, however it is cut into pieces.

    Args:
        patterns: see `patterns_of`.
    """

    def __init__(self, patterns: list[bytes]) -> None:
        self._patterns = patterns
        # beginnings by their length: only patterns that can match are compared
        self._short = [{p[:size] for p in patterns if len(p) > size} for size in range(_PREFIX_BYTES)]
        self._long = [item for item in patterns if len(item) > _PREFIX_BYTES]
        self._held, self._returned = b"", 0

    @property
    def holds(self) -> bool:
        """Whether it holds back bytes that it has not returned yet."""
        return len(self._held) > self._returned

    def feed(self, data: bytes) -> bytes:
        """Take the next piece, and return the masked bytes that are certain by now."""
        data = self._held + data
        return self._mask(data, self._keep_from(data))

    def flush(self) -> bytes:
        """Return the bytes held back, masked: no more bytes came."""
        masked = self._mask(self._held, len(self._held))
        self._held, self._returned = b"", 0
        return masked

    def _mask(self, data: bytes, keep: int) -> bytes:
        """Mask the data up to `keep`, and hold back the rest. Its first `_returned` bytes belong to a mask already returned."""
        parts, at = [], self._returned
        for begin, end in self._found(data):
            if begin >= keep:
                break
            if begin >= at:
                parts += [data[at:begin], MASK]
            elif end <= at:
                continue
            # else it continues the mask before it
            at = max(at, end)
        if at < keep:
            parts.append(data[at:keep])
            at = keep
        self._held, self._returned = data[keep:], at - keep
        return b"".join(parts)

    def _found(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Find the patterns, in order; those that overlap count as one."""
        spans = sorted((at, at + len(item)) for item in self._patterns for at in _places(data, item))
        current = (0, self._returned) if self._returned else None
        for begin, end in spans:
            if current and begin < current[1]:
                current = (current[0], max(current[1], end))
                continue
            if current:
                yield current
            current = (begin, end)
        if current:
            yield current

    def _keep_from(self, data: bytes) -> int:
        """Return the offset from which the data may begin a pattern."""
        first = len(data)
        for size in range(1, min(_PREFIX_BYTES, len(data) + 1)):
            if data[-size:] in self._short[size]:
                first = len(data) - size
        for item in self._long:
            at = data.find(item[:_PREFIX_BYTES], max(0, len(data) - len(item) + 1))
            while 0 <= at < first:
                if item.startswith(data[at:]):
                    first = at
                at = data.find(item[:_PREFIX_BYTES], at + 1)
        return first


def _places(data: bytes, pattern: bytes) -> Iterator[int]:
    at = data.find(pattern)
    while at >= 0:
        yield at
        at = data.find(pattern, at + 1)


class MaskedLog:
    """A pipe whose bytes are masked and written to a log.

    Args:
        log_fd: the log.
        patterns: see `patterns_of`.

    Attributes:
        fd: the end to write to; `begin` closes the caller's own copy.
    """

    def __init__(self, log_fd: int, patterns: list[bytes]) -> None:
        self._log_fd, self._masker = log_fd, Masker(patterns)
        self._read_fd, self.fd = os.pipe()
        with contextlib.suppress(OSError):  # it may exceed the user's limit
            fcntl.fcntl(self.fd, _SET_PIPE_SIZE, _CHUNK_BYTES)
        os.set_blocking(self._read_fd, False)
        self._wake_read, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def begin(self) -> None:
        """Start copying. The writer must have the pipe by now."""
        os.close(self.fd)
        self._thread.start()

    def end(self) -> None:
        """Return when all is in the log. The writer must have ended by now."""
        os.write(self._wake, b"x")
        self._thread.join()

    def _work(self) -> None:
        try:
            self._pass_on()
            self._write(self._masker.flush())
        except OSError:
            pass  # a full disk: the writer finds the pipe closed, as it would find the file full
        finally:
            os.close(self._read_fd)

    def _pass_on(self) -> None:
        poll = select.poll()
        for fd in (self._read_fd, self._wake_read):
            poll.register(fd, select.POLLIN)
        while True:
            ready = poll.poll(_HOLD_S * 1000 if self._masker.holds else None)
            if not ready:
                self._write(self._masker.flush())
            if any(fd == self._read_fd for fd, _ in ready) and self._take() == 0:
                return
            if any(fd == self._wake_read for fd, _ in ready):
                break
        left = _CHUNK_BYTES  # the pipe held no more when the last writer ended
        count: int | None = 1
        while left > 0 and count:
            count = self._take()
            left -= count or 0

    def _take(self) -> int | None:
        """Copy what the pipe holds. Returns the number of bytes; 0 at the end, None when the pipe is empty."""
        try:
            data = os.read(self._read_fd, _CHUNK_BYTES)
        except BlockingIOError:
            return None
        self._write(self._masker.feed(data))
        return len(data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._log_fd, view) :]
