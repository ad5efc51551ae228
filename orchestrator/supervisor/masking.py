"""The log of a run that has secrets: `***` where it says one, byte for byte what it said elsewhere.

The command writes into a pipe, and a thread of its reaper from there into the log. What may be the beginning of a secret is
held back until more comes, for half a second at most. Loaded only for runs that have secrets.
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
"""Shorter ones are not masked: a log is full of what they say."""

_HOLD_S = 0.5
_CHUNK_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which the fcntl of Python 3.9 has no name for
_PREFIX_BYTES = 8  # by which the beginning of a longer pattern is found


def patterns_of(values: Iterable[bytes]) -> list[bytes]:
    """What is looked for: each value, and each line of one that has several, without the white space around it."""
    found: set[bytes] = set()
    for value in values:
        found.add(value)
        found.update(line.strip() for line in value.splitlines())
    return sorted((item for item in found if len(item) >= LEAST_BYTES), key=len)


class Masker:
    """Masks a stream of bytes, whatever its pieces are.

    Args:
        patterns: see `patterns_of`.
    """

    def __init__(self, patterns: list[bytes]) -> None:
        self._patterns = patterns
        # beginnings by their length: no pattern is compared that cannot be meant
        self._short = [{p[:size] for p in patterns if len(p) > size} for size in range(_PREFIX_BYTES)]
        self._long = [item for item in patterns if len(item) > _PREFIX_BYTES]
        self._held, self._told = b"", 0

    @property
    def holds(self) -> bool:
        """Whether something is held back that was not told yet."""
        return len(self._held) > self._told

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; what can be told by now."""
        data = self._held + data
        return self._tell(data, self._keep_from(data))

    def flush(self) -> bytes:
        """What is held back: nothing more came."""
        told = self._tell(self._held, len(self._held))
        self._held, self._told = b"", 0
        return told

    def _tell(self, data: bytes, keep: int) -> bytes:
        """The data up to `keep`, masked. The rest is held back; its first `_told` bytes are part of a mask that is told."""
        parts, at = [], self._told
        for begin, end in self._found(data):
            if begin >= keep:
                break
            if begin >= at:
                parts += [data[at:begin], MASK]
            elif end <= at:
                continue
            # else it goes on from one that was masked just now
            at = max(at, end)
        if at < keep:
            parts.append(data[at:keep])
            at = keep
        self._held, self._told = data[keep:], at - keep
        return b"".join(parts)

    def _found(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where patterns are, by where they begin; those that overlap as one."""
        spans = sorted((at, at + len(item)) for item in self._patterns for at in _places(data, item))
        current = (0, self._told) if self._told else None
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
        """From where on the data may be the beginning of a pattern."""
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
    """A pipe that ends in a log.

    Args:
        log_fd: of the log.
        patterns: see `patterns_of`.

    Attributes:
        fd: for who writes; the caller's own is closed by `begin`.
    """

    def __init__(self, log_fd: int, patterns: list[bytes]) -> None:
        self._log_fd, self._masker = log_fd, Masker(patterns)
        self._read_fd, self.fd = os.pipe()
        with contextlib.suppress(OSError):  # it may be more than this user may have
            fcntl.fcntl(self.fd, _SET_PIPE_SIZE, _CHUNK_BYTES)
        os.set_blocking(self._read_fd, False)
        self._wake_read, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def begin(self) -> None:
        """Go to work; whoever writes has the pipe by now."""
        os.close(self.fd)
        self._thread.start()

    def end(self) -> None:
        """Return when all is in the log. Whoever wrote is gone by now."""
        os.write(self._wake, b"x")
        self._thread.join()

    def _work(self) -> None:
        try:
            self._pass_on()
            self._write(self._masker.flush())
        except OSError:
            pass  # a full disk: who writes finds the pipe closed, as it would have found the file full
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
        left = _CHUNK_BYTES  # no more was in the pipe when the last of them ended
        while left > 0 and (count := self._take()):
            left -= count

    def _take(self) -> int | None:
        """Pass on what is there. Returns how much that was; 0 at the end, None where nothing is."""
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
