"""Verifies outputs: reads every file again, and compares it with its record."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from orchestrator.content.files import sha256
from orchestrator.content.manifest import actual, mode_of, printable
from orchestrator.errors import Conflict
from orchestrator.lifecycle.context import Context
from orchestrator.records.compare import ProblemRecord, VerifyRecord
from orchestrator.service.access import Access, Who
from orchestrator.spec.run import to_wire
from orchestrator.states import ACTIVE, spoken
from orchestrator.store.gc import removed_error
from orchestrator.store.lineage import OutputRow

_WORKERS = 4  # hashing releases the GIL, and reading waits for the disk
_REPORT_S = 0.2
_AT_ONCE = 1000  # files in their queue: a run may have left millions
_HASHES_LIMIT_S, _POLL_S = 10.0, 0.05


class Verify:
    """Verifies outputs of one home."""

    def __init__(self, context: Context, access: Access) -> None:
        self._context, self._access = context, access

    def outputs(self, who: Who, reference: str) -> Iterator[bytes]:
        """Compare the outputs of a run with its manifest.

        Returns:
            JSON lines: `{"done": BYTES, "total": BYTES}` now and then, and a VerifyRecord at the end.

        Raises:
            NotFound: the run does not exist.
            Conflict: it is still active, or its outputs were removed.
        """
        store = self._context.store
        run = store.claimed(self._access.resolve(who, reference))
        if run.state in ACTIVE:
            raise Conflict(f"Run {run.number} is still {spoken(run.state)}.", f"Wait for it: spell wait {run.number}")
        if store.gc.is_removed(run.number):
            raise removed_error(run.number)
        return self._lines(run.number)

    def _lines(self, number: int) -> Iterator[bytes]:
        recorded = yield from self._recorded(number)
        found, problems = _scan(self._context.home.run_dir(number))
        problems += [ProblemRecord(path, "extra", "", "") for path in found if path not in recorded]
        todo = {}
        for path, row in recorded.items():
            status = found.get(path)
            if status is None:
                problems.append(ProblemRecord(path, "missing", row.sha256 or "", ""))
            elif mode_of(status) != row.mode or status.st_size != row.size:
                problems.append(ProblemRecord(path, "changed", row.sha256 or "", ""))
            elif not row.sha256:
                problems.append(ProblemRecord(path, "unhashed", "", ""))
            else:
                todo[path] = row
        yield from self._hash(number, todo, problems)
        problems.sort(key=lambda item: item.path)
        size = sum(row.size for row in recorded.values())
        yield _line(to_wire(VerifyRecord(number, not problems, len(recorded), size, problems)))

    def _recorded(self, number: int) -> Generator[bytes, None, dict[str, OutputRow]]:
        """The manifest, as soon as it has all hashes, or after a time limit."""
        deadline, fewest = 0.0, -1
        while True:
            recorded = self._context.store.lineage.outputs(number)
            left = sum(row.sha256 is None for row in recorded.values())
            if fewest < 0 or left < fewest:
                deadline, fewest = time.monotonic() + _HASHES_LIMIT_S, left
            if not left or time.monotonic() > deadline:
                return recorded
            yield _line({"done": 0, "total": 0})
            time.sleep(_POLL_S)

    def _hash(self, number: int, todo: Mapping[str, OutputRow], problems: list[ProblemRecord]) -> Iterator[bytes]:
        root, total = self._context.home.run_dir(number), sum(row.size for row in todo.values())
        done, reported_at, rest = 0, time.monotonic(), iter(todo.items())
        closing = self._context.closing.is_set
        waiting: dict[Future[str | None], tuple[str, OutputRow]] = {}
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="verify") as pool:
            try:
                while True:
                    for path, row in itertools.islice(rest, _AT_ONCE - len(waiting)):
                        waiting[pool.submit(sha256, root / actual(path), closing)] = path, row
                    if not waiting:
                        return
                    for future in wait(waiting, _REPORT_S, FIRST_COMPLETED).done:
                        path, row = waiting.pop(future)
                        problem = "unreadable" if future.exception() else "changed"
                        digest = "" if future.exception() else future.result() or ""
                        if digest != row.sha256:
                            problems.append(ProblemRecord(path, problem, row.sha256 or "", digest))
                        done += row.size
                    if time.monotonic() - reported_at > _REPORT_S:
                        reported_at = time.monotonic()
                        yield _line({"done": done, "total": total})
            finally:  # the client has gone
                pool.shutdown(wait=False, cancel_futures=True)


def _line(words: object) -> bytes:
    return json.dumps(words).encode() + b"\n"


def _scan(root: Path) -> tuple[dict[str, os.stat_result], list[ProblemRecord]]:
    """Everything except folders, by printable path, and folders that cannot be read. Follows no link."""
    found: dict[str, os.stat_result] = {}
    problems, todo = [], [""]
    while todo:
        below = todo.pop()
        try:
            with os.scandir(root / below) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(path)
                    else:
                        found[printable(path)] = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            pass  # the files in it are missing
        except OSError:
            problems.append(ProblemRecord(printable(below), "unreadable", "", ""))
    return found, problems
