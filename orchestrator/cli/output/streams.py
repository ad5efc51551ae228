"""Makes the standard streams reliable: they are open, and no character makes them fail."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from io import TextIOWrapper
from typing import NoReturn, TextIO


def prepare() -> None:
    """Make the standard streams usable.

    A closed stream becomes /dev/null; else the next open file or socket would get its number, and spell would write to
    it. A locale of C or POSIX means ASCII, although Python takes it for UTF-8 (PEP 538, PEP 540). A character that
    cannot be encoded is shown as `?` in ASCII and `\\udcff` in UTF-8.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = _encoding(sys.stdout or os.fdopen(1, "w"))
    sys.stderr = _encoding(sys.stderr or os.fdopen(2, "w"))


def close_stdout() -> None:
    """Send further output to /dev/null, because the reader has closed stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(code: object) -> NoReturn:
    """Flush the output and end the process, without freeing each object: the kernel frees all memory at once.

    Args:
        code: as of `sys.exit`.
    """
    if isinstance(code, int | None) and threading.active_count() == 1:
        with contextlib.suppress(OSError, ValueError):  # `sys.exit` reports the error of the stream
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)
    sys.exit(code)  # type: ignore[arg-type]


def speaks_utf8(stream: TextIO) -> bool:
    """Return whether a stream is encoded in UTF-8."""
    return (stream.encoding or "").lower().replace("-", "").replace("_", "") == "utf8"


def _encoding(stream: TextIO) -> TextIO:
    if isinstance(stream, TextIOWrapper):
        utf8 = speaks_utf8(stream) and not _locale_is_c()
        stream.reconfigure(encoding="utf-8" if utf8 else "ascii", errors="backslashreplace" if utf8 else "replace")
    return stream


def _locale_is_c() -> bool:
    if os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8"):
        return False  # the encoding was set explicitly
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return next(filter(None, names), "") in ("C", "POSIX")
