"""The files of trackers of one attempt of a run: finds them, reads what is new in each, and records it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.content.manifest import printable
from orchestrator.errors import DiskFull, StoreBusy
from orchestrator.formats.records import Point
from orchestrator.home import Home
from orchestrator.records.metrics import MetricRecord
from orchestrator.runtime import LONGEST_NAME, MOST_STEP
from orchestrator.store import Store
from orchestrator.store.trackers import TrackerBatch, TrackerFile
from orchestrator.telemetry.trackers import besides, names, places, search
from orchestrator.telemetry.trackers.found import Found, Logged
from orchestrator.telemetry.trackers.pictures import Pictures
from orchestrator.telemetry.trackers.readers import READERS, Place
from orchestrator.telemetry.trackers.there import MOST_FILES, noted

_log = logging.getLogger(__name__)
_AT_ONCE_BYTES = 256 << 10
_SCAN_S = 1.0
_SCAN_SHARE = 20  # a scan may take this part of the time
_NAMED = 3
_MOST_TOLD = 5
_AT_THE_END_S = 60.0
_BY_BYTES = (search.TENSORBOARD, search.WANDB, search.MLFLOW_METRIC)


@dataclass(slots=True)
class _File:
    """What is known of a file.

    Attributes:
        seen: how it looked when it was read last.
        stuck: where it is damaged, and its size then.
        over: whether it is not read any more.
        memory: of its reader.
    """

    kind: str
    seen: tuple[int, ...] = ()
    stuck: tuple[int, int] | None = None
    over: bool = False
    memory: dict[str, Any] = field(default_factory=dict)


class TrackedFiles:
    """The files of trackers of one attempt.

    Args:
        number, attempt: the run and its attempt, whose command has been started.
    """

    def __init__(self, store: Store, home: Home, number: int, attempt: int) -> None:
        self._store, self._number, self._attempt = store, number, attempt
        self._root = home.work_dir(number) / "code"
        begun = home.begun(number, attempt)
        self._begun_ns, self._there = begun.stat().st_mtime_ns, noted(begun)
        self._pictures = Pictures(home.work_dir(number) / "pictures")
        self._files: dict[str, _File] = {}
        self._read = store.trackers.files(number)
        self._next_scan = 0.0
        self._told: list[str] = []
        self._earlier: list[str] | None = None

    def read(self, until: float) -> None:
        """Record what is new, at most until a moment of the monotonic clock."""
        self._scan()
        for path, file in sorted(self._files.items()):
            while time.monotonic() < until and self._read_file(path, file, is_last=False):
                pass

    def finish(self) -> None:
        """Record all that is left, when the command has ended, and bring the images to the outputs."""
        until = time.monotonic() + _AT_THE_END_S
        self._next_scan = 0.0
        self._scan()
        for path, file in sorted(self._files.items()):
            while time.monotonic() < until and self._read_file(path, file, is_last=True):
                pass
            if time.monotonic() >= until:
                start = "The files of trackers were not read to their end: "
                self._tell(start, f"{start}that would have taken longer than {_AT_THE_END_S:g} s. Later values, from {printable(path)} on, are not among the metrics")  # fmt: skip
                break
        for path, file in self._files.items():
            if file.kind == search.DATABASE:
                places.tidy(self._root, path)
        self._tell_count()
        self._pictures.deliver(self._root)

    def _scan(self) -> None:
        begun = time.monotonic()
        if begun < self._next_scan:
            return
        for path, kind in search.files(self._root):
            if path not in self._files and len(self._files) < MOST_FILES:
                self._files[path] = _File(kind)
        now = time.monotonic()
        self._next_scan = now + max(_SCAN_S, _SCAN_SHARE * (now - begun))

    # -- one file -----------------------------------------------------------------------------------------------------

    def _read_file(self, path: str, file: _File, *, is_last: bool) -> bool:
        """Read some of a file. Returns whether there is more."""
        look = self._look(path, file.kind)
        if file.over or not look or look == file.seen:
            return False
        try:
            return self._read_some(path, file, look, is_last=is_last)
        except OSError as error:
            self._tell(printable(path), f"{printable(path)} cannot be read for metrics: {error.strerror or error}")
            file.seen = look
        except (DiskFull, StoreBusy):
            raise
        except Exception as error:  # whatever a run has written there; other files do not suffer from it
            _log.exception("run %d: %r", self._number, path)
            self._give_up(path, file, f"{type(error).__name__}: {_clean(str(error))}")
        return False

    def _read_some(self, path: str, file: _File, look: tuple[int, ...], *, is_last: bool) -> bool:
        before = self._read.get(printable(path))
        position = self._position(path, before, file, look)
        if position is None:
            return False
        place = Place(self._root, path, self._begun_ns / 1e9, time.time(), file.memory)
        found = READERS[file.kind](place, position, _AT_ONCE_BYTES)
        if found.foreign:
            file.over = file.kind != search.DATABASE
            file.seen = look
            return False
        if not self._record(printable(path), before, look[0], found):
            return True  # another caller recorded it
        self._judge(path, file, found, look, is_last=is_last)
        return found.more

    def _look(self, path: str, kind: str) -> tuple[int, ...]:
        """Return how a file looks: inode first, change time second, then what differs when it was written to; empty if it is gone."""
        status = places.status(self._root, path)
        if status is None:
            return ()
        look = (status.st_ino, status.st_ctime_ns, status.st_size, status.st_mtime_ns)
        log = places.status(self._root, f"{path}-wal") if kind == search.DATABASE else None
        return (*look, log.st_size, log.st_mtime_ns) if log else look

    def _position(self, path: str, before: TrackerFile | None, file: _File, look: tuple[int, ...]) -> int | None:
        """Return where to go on reading a file; None for not now."""
        if before and self._is_same(before, file.kind, look):
            return before.position
        file.memory.clear()
        return self._first_position(path, file.kind, look)

    def _is_same(self, before: TrackerFile, kind: str, look: tuple[int, ...]) -> bool:
        """Whether a file is the one that was read before: another attempt, or the run itself, may have put another in its place."""
        is_shorter = kind in _BY_BYTES and look[2] < before.position
        return before.attempt == self._attempt and before.inode == look[0] and not is_shorter

    def _first_position(self, path: str, kind: str, look: tuple[int, ...]) -> int | None:
        """Return where a file that was never read is read first; None for not at all.

        What was there before the command is not of this run: code, and checkpoints of an earlier one.
        """
        if look[1] < self._begun_ns and kind != search.DATABASE:
            return None
        inode, position = self._there.get(path, (0, 0))
        is_shorter = kind in _BY_BYTES and look[2] < position
        return position if inode == look[0] and not is_shorter else 0

    def _record(self, path: str, before: TrackerFile | None, inode: int, found: Found) -> bool:
        after = TrackerFile(path, self._attempt, inode, found.position)
        batches = self._batches(found.logged)
        if not batches and before == after:
            return True
        renamed = self._store.trackers.add(self._number, before, after, batches)
        if renamed is None:
            self._read = self._store.trackers.files(self._number)
            return False
        self._read[path] = after
        if renamed:
            self._tell_renamed(path, batches[0].source, renamed)
        return True

    def _judge(self, path: str, file: _File, found: Found, look: tuple[int, ...], *, is_last: bool) -> None:
        """Tell of damage: what cannot be passed over only when it is still there at a second look, as it may be half-written."""
        if not found.damage:
            file.stuck = None
        elif found.more:
            shown = printable(path)
            self._tell(shown, f"{shown} is damaged: {_clean(found.damage)}. What follows is read")
        elif file.kind == search.DATABASE or is_last or file.stuck == (found.position, look[2]):
            self._give_up(path, file, found.damage)
        else:
            file.stuck = (found.position, look[2])
            return  # looked at again, though it may not have changed
        if not found.more:
            file.seen = look

    def _give_up(self, path: str, file: _File, reason: str) -> None:
        file.over = True
        shown = printable(path)
        self._tell(
            shown,
            f"{shown} is damaged: {_clean(reason)}. The metrics before that are recorded; the file stays as it is",
        )

    # -- what was read ------------------------------------------------------------------------------------------------

    def _batches(self, logged: Sequence[Logged]) -> list[TrackerBatch]:
        wanted = [item for item in logged if item.points or item.parameters or item.counts or item.pictures or item.void_from is not None]  # fmt: skip
        if not wanted:
            return []
        sources = self._store.trackers.sources(self._number)
        known = {source.source: source.prefix for source in sources}
        current = {source.source for source in sources if source.attempt == self._attempt}
        batches = []
        for item in wanted:
            item.source, item.label = _clean(item.source), _clean(item.label)
            prefix = known.setdefault(item.source, self._prefix(item, current))
            current.add(item.source)
            records = self._records(item, prefix)
            if item.pictures:
                item.count(besides.IMAGE, len(item.pictures))
                item.count(besides.SAVED, self._pictures.keep(prefix, item.pictures))
            batches.append(
                TrackerBatch(item.source, prefix, records, _short(item.parameters), item.counts, item.void_from)
            )
        return batches

    def _prefix(self, logged: Logged, current: Collection[str]) -> str:
        tracker = logged.source.partition(":")[0]
        if tracker == "tensorboard":
            folders = {
                path.rpartition("/")[0] for path, file in self._files.items() if self._is_event_file_of_it(path, file)
            }
            return names.of_folder(logged.label, {_clean(folder) for folder in folders})
        return names.of_run(tracker, logged.label, current)

    def _is_event_file_of_it(self, path: str, file: _File) -> bool:
        if file.kind != search.TENSORBOARD:
            return False
        look = self._look(path, file.kind)
        return bool(look) and self._first_position(path, file.kind, look) is not None

    def _records(self, logged: Logged, prefix: str) -> list[MetricRecord]:
        records, now = [], time.time()
        for point in logged.points:
            if not math.isfinite(point.value):
                logged.count(besides.NOT_FINITE)
            elif not _can_be_recorded(point, prefix):
                logged.count(besides.UNNAMED)
            else:
                at = point.at if math.isfinite(point.at) and point.at > 0 else now
                records.append(MetricRecord(self._number, point.name, point.step, point.value, at))
        return records

    # -- notices ------------------------------------------------------------------------------------------------------

    def _tell_renamed(self, path: str, source: str, renamed: dict[str, str]) -> None:
        some = ", ".join(list(renamed)[:_NAMED]) + (
            f" and {len(renamed) - _NAMED} more" if len(renamed) > _NAMED else ""
        )
        words = besides.WORDS[source.partition(":")[0]]
        first = next(iter(renamed))
        self._tell(
            f"Metrics of {path} ",
            f"Metrics of {path} have names that another source of this run uses: {some}. "
            f"Those of {words} are recorded as {renamed[first]}{', …' if len(renamed) > 1 else ''}",
        )

    def _tell(self, start: str, text: str) -> None:
        """Tell it, unless what starts so was told before; after some, only count."""
        if self._earlier is None:
            self._earlier = [event.text for event in self._store.events(self._number) if event.kind == "notice"]
        if start in self._told or any(words.startswith(start) for words in self._earlier):
            return
        self._told.append(start)
        if len(self._told) <= _MOST_TOLD:
            self._store.notice(self._number, text)

    def _tell_count(self) -> None:
        if untold := self._told[_MOST_TOLD:]:
            start = "More files of trackers have been damaged, unreadable, or had names of others: "
            self._store.notice(self._number, f"{start}{len(untold)}")


def _can_be_recorded(point: Point, prefix: str) -> bool:
    if abs(point.step) > MOST_STEP or not point.name or len(prefix) + len(point.name) > LONGEST_NAME:
        return False
    return point.name.isascii() or not any("\ud800" <= char <= "\udfff" for char in point.name)


def _short(parameters: dict[str, str]) -> dict[str, str]:
    longest = 8000
    return {_clean(name)[:LONGEST_NAME]: _clean(value)[:longest] for name, value in parameters.items() if name}


def _clean(text: str) -> str:
    """Return text that can be recorded: half characters become `\\uNNNN`, as JSON and the names of files may hold them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
