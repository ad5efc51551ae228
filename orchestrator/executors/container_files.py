"""The files that a keeper in a container and spelld share; see `docker` for what each is."""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.executors.supervisor.container import RESULT_BYTES


def make_files(folder: Path, log: Path) -> None:
    """Make the files that keeper and spelld share, and the second names by which the keeper finds them."""
    os.mkfifo(folder / "line", 0o600)
    with (folder / "result").open("wb") as result:
        os.posix_fallocate(
            result.fileno(), 0, RESULT_BYTES
        )  # there must be room for it when the run has filled the disk
    for path in (folder / "errors", log):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
    for name, path in {
        "line": folder / "line",
        "result": folder / "result",
        "errors": folder / "errors",
        "log": log,
    }.items():
        os.link(path, folder / "inside" / name)


def request_name(nonce: str) -> str:
    """The file that says what to do; see `supervisor.container`."""
    return f"request-{nonce}.json"


def take_back(folder: Path, nonce: str) -> bool:
    """Take the attempt from its keeper, so that nothing of it is ever started. False when the keeper was there first."""
    untaken = folder / "untaken"
    with contextlib.suppress(FileNotFoundError):
        (folder / "inside" / request_name(nonce)).rename(untaken)
    try:
        os.truncate(untaken, 0)  # it holds the environment's values
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def opened(line: Path) -> Iterator[int]:
    """The reading end of a keeper's pipe. Opening it waits for nobody."""
    fd = os.open(line, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def has_word(line: int, timeout_s: float) -> bool:
    """Whether the keeper says something, or is gone, within so long."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def await_end(line: int, timeout_s: float | None) -> bool:
    """Wait until nobody holds the other end of the pipe. False when `timeout_s` passed before."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(line, select.POLLIN)
    while True:
        try:
            if not os.read(line, 65536):
                return True
        except BlockingIOError:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            poll.poll(None if left is None else left * 1000)


def read(path: Path) -> dict[str, Any] | None:
    """A verdict; None when it is not there or was never finished."""
    try:
        words: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return words


def publish(path: Path, words: Mapping[str, Any]) -> None:
    beside = path.with_name(f"{path.name}-{threading.get_ident()}.tmp")
    with beside.open("w") as file:
        json.dump(words, file)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
