"""Records when a log grew, in a file beside it, so that its lines can be shown with times although the command writes
the log directly.

An entry is two little-endian numbers of 64 bits: the size of the log in bytes, and the time when it had that size in
microseconds since the epoch. Sizes grow. There are at most ten entries a second, and none while the log does not grow:
inotify(7) reports its growth. Without inotify the size is checked twice a second.
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

ENTRY = struct.Struct("<QQ")
_PAUSE_S = 0.1
_POLL_S = 0.5
_MOST_BYTES = 64 << 20  # two months of a log that never pauses
_IN_MODIFY, _IN_ONESHOT, _IN_CLOEXEC = 0x2, 0x80000000, 0o2000000


class LogTimes:
    """Records when a log grows.

    Args:
        log_fd: the log.
        times_fd: the file of the entries, open for appending.
    """

    def __init__(self, log_fd: int, times_fd: int) -> None:
        self._log_fd, self._times_fd = log_fd, times_fd
        self._size = os.fstat(log_fd).st_size
        self._lock = _thread.allocate_lock()

    def begin(self) -> None:
        """Watch in a thread until the process ends. The caller must not fork after this."""
        try:
            _thread.start_new_thread(self._watch, ())
        except RuntimeError:  # too many threads: the end of the log is still recorded
            pass

    def note(self) -> None:
        """Record the size of the log if it has grown. On a full disk only times are lost."""
        with self._lock:
            try:
                size = os.fstat(self._log_fd).st_size
                if size > self._size and os.fstat(self._times_fd).st_size < _MOST_BYTES:
                    os.write(self._times_fd, ENTRY.pack(size, int(time.time() * 1e6)))
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
    """Return a function that waits until the log has been written to since the function last returned."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = b"/proc/self/fd/%d" % log_fd
    try:
        fd = libc.inotify_init1(_IN_CLOEXEC)
    except AttributeError:  # not Linux
        fd = -1
    seen = [-1]  # the first wait returns at once: the command may have written already

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
