"""When a log grew: records beside it, so that its lines can be shown with their times although the command writes the log
itself, and nobody stands in between.

A record is two little-endian numbers of 64 bits: the size of the log in bytes, and the moment at which it had that size
in microseconds since the epoch. Sizes grow. There are ten records a second at most; nothing happens while the log is
silent, for the kernel tells of its growth (inotify(7)). Where it does not, the log is looked at twice a second.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = struct.Struct("<QQ")
_PAUSE_S = 0.1
_POLL_S = 0.5
_MOST_BYTES = 64 << 20  # two months of a log that never rests
_IN_MODIFY, _IN_ONESHOT, _IN_CLOEXEC = 0x2, 0x80000000, 0o2000000


class LogTimes:
    """Writes down when a log grows.

    Args:
        log_fd: the log.
        times_fd: where to write it down, open for appending.
    """

    def __init__(self, log_fd: int, times_fd: int) -> None:
        self._log_fd, self._times_fd = log_fd, times_fd
        self._size = os.fstat(log_fd).st_size
        self._lock = _thread.allocate_lock()

    def begin(self) -> None:
        """Watch in a thread of its own, for as long as the process lives. Whoever calls this forks no more."""
        try:
            _thread.start_new_thread(self._watch, ())
        except RuntimeError:  # too many threads: the end is written down all the same
            pass

    def note(self) -> None:
        """Write down the size of the log, when it has grown. A full disk loses times, and nothing else."""
        with self._lock:
            try:
                size = os.fstat(self._log_fd).st_size
                if size > self._size and os.fstat(self._times_fd).st_size < _MOST_BYTES:
                    os.write(self._times_fd, RECORD.pack(size, int(time.time() * 1e6)))
                    self._size = size
            except OSError:
                return

    def _watch(self) -> None:
        wait = _growth(self._log_fd)
        while True:
            wait()
            self.note()
            time.sleep(_PAUSE_S)


def _growth(log_fd: int) -> Callable[[], None]:
    """A function that waits until the log is written to; what was written since it returned last counts, too."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = b"/proc/self/fd/%d" % log_fd
    try:
        fd = libc.inotify_init1(_IN_CLOEXEC)
    except AttributeError:  # not Linux
        fd = -1
    seen = [-1]  # the first wait is over at once: the command may have been faster than we

    def wait() -> None:
        watched = fd >= 0 and libc.inotify_add_watch(fd, path, ctypes.c_uint32(_IN_MODIFY | _IN_ONESHOT)) >= 0
        size = os.fstat(log_fd).st_size
        if size == seen[0]:
            if watched:
                os.read(fd, 4096)
            else:
                time.sleep(_POLL_S)
        seen[0] = os.fstat(log_fd).st_size

    return wait
