"""Imports of runs from other trackers."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.client.transport import CHUNK_BYTES, Transport
from orchestrator.errors import Conflict, SpellError
from orchestrator.records import from_wire
from orchestrator.records.casts import CastRecord
from orchestrator.records.imports import ImportedRun, ImportRecord
from orchestrator.spec.run import to_wire

_LIMIT_S = 600.0  # of silence, while the server brings gigabytes to the disk
_BLOCK = tarfile.BLOCKSIZE


class _Member(NamedTuple):
    name: str
    size: int
    source: Path | None = None
    data: bytes = b""
    mode: int = 0o644


class Imports:
    """Imports runs, and lists where imported runs came from."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def list(self) -> list[ImportRecord]:
        """Return where all imported runs came from, by number."""
        return [from_wire(ImportRecord, item) for item in self._call("GET", "/imports")]

    def add(
        self,
        run: ImportedRun,
        files: Mapping[str, Path] | None = None,
        *,
        metrics: Path | None = None,
        log: Path | None = None,
    ) -> CastRecord:
        """Import a run, with all that belongs to it or not at all. One that was imported before stays as it is (`reused`).

        Args:
            files: its outputs by their relative paths.
            metrics: a file with its metrics, a line for each value: `{"name": …, "step": …, "value": …, "at": …}`.
            log: a file with the output of its command.

        Raises:
            Conflict: if a file changes meanwhile.
            SpellError: of the class that the server raised.
        """
        members = [*_members(run, files or {}, metrics, log)]
        size = sum(len(_head(member)) + member.size + -member.size % _BLOCK for member in members) + 2 * _BLOCK
        answer = self._call(
            "POST", "/imports", content=_archive(members), params={"size_bytes": size}, read_limit_s=_LIMIT_S
        )
        return from_wire(CastRecord, answer)


def _members(run: ImportedRun, files: Mapping[str, Path], metrics: Path | None, log: Path | None) -> Iterator[_Member]:
    words = json.dumps(to_wire(run)).encode()
    yield _Member("run.json", len(words), data=words)
    for name, path in (("metrics.jsonl", metrics), ("log", log)):
        if path:
            yield _Member(name, _status(path)[0], path)
    for name, path in sorted(files.items()):
        size, mode = _status(path)
        yield _Member(f"outputs/{name}", size, path, mode=mode)
    yield _Member("end", 0)


def _status(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise SpellError(f"{path}: {error.strerror}.") from error
    return found.st_size, found.st_mode & 0o777


def _archive(members: Sequence[_Member]) -> Iterator[bytes]:
    """Yield a tar archive of these members."""
    for member in members:
        yield _head(member)
        yield from _content(member.source, member.size) if member.source else [member.data]
        yield bytes(-member.size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _head(member: _Member) -> bytes:
    head = tarfile.TarInfo(member.name)
    head.size, head.mode = member.size, member.mode
    return head.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk
            if left or file.read(1):
                raise Conflict(f"{path} changed while it was read.", "Import it when nothing writes it any more.")
    except OSError as error:
        raise SpellError(f"{path}: {error.strerror}.") from error
