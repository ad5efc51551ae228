"""The files that a reaper in a container and spelld share; `executor` lists them."""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.executors.verdict import is_verdict
from orchestrator.supervisor.container import REQUEST_FORMAT, RESULT_BYTES
from orchestrator.supervisor.secrets_pipe import line_of

_PAUSE_S = 0.01
_LOOK_MS = 50
_VERDICT_BYTES, _LAST_BYTES = 4 * RESULT_BYTES, 4096


def make_files(folder: Path, log: Path, *, has_secrets: bool) -> None:
    """Make the files that reaper and spelld share, and the hard links by which the reaper finds them."""
    os.mkfifo(folder / "line", 0o600)
    with (folder / "result").open("wb") as result:
        os.posix_fallocate(result.fileno(), 0, RESULT_BYTES)  # it must be writable when the run has filled the disk
    times = log.with_name(f"{log.name}.times")
    for path in (folder / "errors", log, times):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
    for path in (folder / "line", folder / "result", folder / "errors"):
        os.link(path, folder / "inside" / path.name)
    os.link(log, folder / "inside" / "log")
    if has_secrets:
        os.mkfifo(folder / "inside" / "secrets", 0o600)
    os.link(times, folder / "inside" / "times")


def request_name(nonce: str) -> str:
    """Return the name of the request; see `supervisor.container`."""
    return f"request-{nonce}"


def write_request(folder: Path, nonce: str, request: Mapping[str, Any]) -> Path:
    """Write the request for a reaper, readable by the owner only. Returns its path; `folder` gets a hard link to it."""
    words, path = marshal.dumps(dict(request), REQUEST_FORMAT), folder / "inside" / request_name(nonce)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(words)
    os.link(path, folder / path.name)
    return path


def take_back(folder: Path, nonce: str) -> bool:
    """Take the attempt from its reaper, so that it is never started. Returns False when the reaper took it first.

    The command may have put another file in place of the request: it is ours if it is the same file as our hard link.
    """
    untaken, ours = folder / "untaken", folder / request_name(nonce)
    with contextlib.suppress(OSError):
        (folder / "inside" / request_name(nonce)).rename(untaken)
    try:
        is_ours = os.path.samestat(untaken.lstat(), ours.lstat())
    except FileNotFoundError:
        is_ours = False
    if is_ours:
        os.truncate(ours, 0)  # it holds the environment's values
    else:
        forget_request(folder, nonce)
    return is_ours


def forget_request(folder: Path, nonce: str) -> None:
    """Remove our hard link to the request."""
    (folder / request_name(nonce)).unlink(missing_ok=True)


@contextlib.contextmanager
def opened(line: Path) -> Iterator[int]:
    """Open the reading end of a reaper's pipe, without waiting for a writer."""
    fd = os.open(line, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def secrets_pipe(folder: Path, secrets: Mapping[str, str]) -> Iterator[None]:
    """Pass secrets to a reaper while it starts, through a pipe, so that they never reach a disk."""
    if not secrets:
        yield
        return
    # O_RDWR does not wait for a reader, and the reaper sees the end only when we are gone
    fd, over = os.open(folder / "inside" / "secrets", os.O_RDWR | os.O_NONBLOCK), threading.Event()
    thread = threading.Thread(target=_tell, args=(fd, line_of(secrets), over), name="tell", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.close(fd)


def _tell(fd: int, words: bytes, over: threading.Event) -> None:
    poll, left = select.poll(), memoryview(words)
    poll.register(fd, select.POLLOUT)
    while left and not over.is_set():
        if poll.poll(_LOOK_MS):
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(fd, left) :]


def has_word(line: int, timeout_s: float) -> bool:
    """Whether the reaper writes something, or ends, within this time."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def await_end(line: int, timeout_s: float | None) -> bool:
    """Wait until the other end of the pipe is closed. Returns False when `timeout_s` passed before."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(line, select.POLLIN)
    while True:
        try:
            if not os.read(line, 65536):
                return True
            time.sleep(_PAUSE_S)  # a reaper that writes without end must not take all our time
        except BlockingIOError:
            poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
        if deadline is not None and time.monotonic() >= deadline and not _hung_up(poll):
            return False


def is_over(folder: Path) -> bool:
    """Whether the other end of the pipe is closed now."""
    with opened(folder / "line") as line:
        return await_end(line, 0)


def _hung_up(poll: select.poll) -> bool:
    """Whether the other end is closed, and nothing is left to read."""
    return any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))


def read(path: Path) -> dict[str, Any] | None:
    """Read a verdict; None when it is missing, unfinished or malformed: a run may have replaced its writer."""
    try:
        with path.open("rb") as file:
            words = json.loads(file.read(_VERDICT_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return words if is_verdict(words) else None


def read_end(path: Path) -> str:
    """Return the end of a file, as text."""
    with path.open("rb") as file:
        file.seek(-min(_LAST_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_CUR)
        return file.read(_LAST_BYTES).decode(errors="replace")


def publish(path: Path, words: Mapping[str, Any]) -> None:
    beside = path.with_name(f"{path.name}-{threading.get_ident()}.tmp")
    with beside.open("w") as file:
        json.dump(words, file)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
