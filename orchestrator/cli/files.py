"""Lists, prints and copies resources: ls, cat, cp."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import parts, show
from orchestrator.cli.output.bars import Silent, bar
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import connect
from orchestrator.content.links import is_below, said_target
from orchestrator.errors import DiskFull, InvalidConfig, SpellError, UsageError, is_disk_full
from orchestrator.records.files import FileRecord
from orchestrator.states import FINAL, State, spoken

_HELP = {"help_option_names": ["-h", "--help"]}
_CHUNK_BYTES = 1 << 20
_ZEROS = bytes(_CHUNK_BYTES)
_TAR_BYTES = 32 << 10  # small, because tarfile copies its whole buffer at each read
_YEAR_S = 365 * 86400

_Piece = bytes | int  # of a file: its bytes, or the size of a hole


@click.command(context_settings=_HELP)
@click.argument("resource", default="", shell_complete=complete.resources)
@click.option("-h", "human", is_flag=True, help="Print sizes as 1.2K, 15M.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def ls(resource: str, human: bool, json_: bool) -> None:
    """List RESOURCE: runs/2, uploads/cifar, runs/latest/model, or an alias. Without RESOURCE, list all at the top."""
    head = resource.strip("/").partition("/")[0]
    with connect() as client:
        found = client.resources.list(resource)
        is_linked = head not in ("", ".", "runs", "uploads") and not json_
        link = client.links.get(head) if is_linked else None
    if json_:
        show.as_json(found)
        return
    for item in found:
        size = "-" if item.is_dir else show.size(item.size) if human else str(item.size)
        target = f" → {item.link}" if item.link else ""
        name = show.line(f"{item.path}{'/' if item.is_dir else ''}{target}")
        show.say(f"{size.rjust(12)} {_moment(item)}   {name}")
    if any(not item.final for item in found) or (not found and head == "runs"):
        _say_not_final(resource, is_empty=not found)
    if link:
        show.say(f"---\n{link.alias} → {link.resource}")


def _say_not_final(resource: str, *, is_empty: bool = False) -> None:
    """Say on standard error that files are those of a run that has not ended."""
    reference = resource.strip("/").split("/")[1:2]
    if not reference:
        show.say("Runs without a time have not ended: their files are not final.", err=True)
        return
    with connect() as client:
        run = client.runs.get(reference[0])
    if run.state not in FINAL:
        words = "it has written no file yet" if is_empty else "these files are not final"
        show.say(f"Run {run.number} is still {spoken(State(run.state))}: {words}.", err=True)


def _moment(item: FileRecord) -> str:
    old = time.time() - item.modified_at > _YEAR_S
    if item.is_dir and not item.final and item.path.isdecimal() and not item.modified_at:
        return " " * 12
    return time.strftime("%b %d  %Y" if old else "%b %d %H:%M", time.localtime(item.modified_at))


@click.command(context_settings=_HELP)
@click.argument("resource", nargs=-1, required=True, shell_complete=complete.resources)
def cat(resource: Sequence[str]) -> None:
    """Print the file RESOURCE, or several."""
    with connect() as client:
        for name in resource:
            found = client.resources.download(name)
            if found.kind == "folder":
                raise UsageError(f"{name!r} is a folder.", f"Copy it: spell cp {name}")
            for chunk in found.chunks:
                sys.stdout.buffer.write(chunk)
            if not found.is_final:
                sys.stdout.buffer.flush()
                show.say(f"{name} is not final: its run has not ended.", err=True)
    sys.stdout.buffer.flush()


@click.command(context_settings=_HELP)
@click.argument("resource", shell_complete=complete.resources)
@click.argument("destination", default=".", shell_complete=complete.files)
@click.option("-f", "--force", is_flag=True, help="Overwrite without asking.")
@click.option("-i", "--ignore", is_flag=True, help="Skip files that exist already.")
def cp(resource: str, destination: str, force: bool, ignore: bool) -> None:
    """Copy RESOURCE, a file or the content of a folder, to DESTINATION (default: the current folder).

    If DESTINATION is a folder, a file is copied into it, else to that name. On a terminal, spell asks before it
    overwrites a file; elsewhere it overwrites.
    """
    if resource.startswith("/") or resource.strip("/") in ("", ".", "runs", "uploads"):
        raise InvalidConfig(f"{resource!r} is not a resource.", "A resource is runs/NUMBER/… or uploads/NAME/….")
    target = _Target(_plain(Path(destination)), force, ignore)
    with parts.tidily(), connect() as client:
        found = client.resources.download(resource, sparse=True)
        try:
            with (
                interruptible("The copy is incomplete. With -i the same command copies what is missing."),
                bar(f"Copying {resource} ({show.size(found.size_bytes)})", found.size_bytes) as target.progress,
            ):
                if found.kind == "folder":
                    _unpack(found.chunks, target)
                else:
                    mode = 0o755 if found.kind == "executable" else 0o644
                    pieces = _only_file(found.chunks) if found.is_tar else found.chunks
                    target.write(_file_place(resource, destination), pieces, mode)
        except OSError as error:
            raise (DiskFull if is_disk_full(error) else SpellError)(
                f"{show.line(str(error.filename))}: {error.strerror}"
            ) from error
        except tarfile.TarError as error:
            raise SpellError(f"The copy of {resource!r} is incomplete: {error}.") from error
    unfinished = "" if found.is_final else " They are not final: the run has not ended."
    skipped = f" Skipped {show.count(target.skipped, 'file')}." if target.skipped else ""
    show.say(f"✔ Copied {show.count(target.copied, 'file')}.{skipped}{unfinished}")
    click.get_current_context().exit(int(target.lost > 0))


def _file_place(resource: str, destination: str) -> str:
    """Return the target of one file: in the destination if that is a folder or ends with `/`, else the destination."""
    into = destination.endswith("/") or os.path.isdir(destination)
    return _plain(Path(destination, resource.rstrip("/").rpartition("/")[2] if into else ""))


def _plain(path: Path) -> str:
    """Return the path as text; "" for the current folder, so that names in it have no `./`."""
    return "" if path == Path() else str(path)


class _Target:
    """The destination of a copy, which decides whether to overwrite files."""

    def __init__(self, root: str, force: bool, ignore: bool) -> None:
        self.root, self._force, self._ignore = root, force, ignore
        self.copied = self.skipped = self.lost = 0
        self.progress: Any = Silent()
        self._made: set[str] = set()

    def _wants(self, place: str) -> bool:
        """Return whether to write a file there; asks on a terminal."""
        try:
            kind = os.lstat(place).st_mode
        except OSError:
            return True
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, "A folder has that name", place)
        if self._force:
            return True
        if self._ignore or (sys.stdin.isatty() and not self._may_overwrite(place)):
            self.skipped += 1
            return False
        return True

    def _may_overwrite(self, place: str) -> bool:
        with self.progress.paused():
            return click.confirm(
                show.plain(show.line(f"File '{place}' already exists. Are you sure you want to overwrite?"))
            )

    def make(self, folder: str) -> None:
        """Make a folder and its parents."""
        if folder in self._made:
            return
        if os.path.isdir(folder or "."):
            parts.sweep(folder or ".")
        else:
            os.makedirs(folder, exist_ok=True)
        self._made.add(folder)

    def write(self, place: str, pieces: Iterable[_Piece], mode: int = 0o644) -> None:
        """Write one file, which is never there incomplete."""
        if not self._wants(place):
            return
        self.make(os.path.dirname(place))
        try:
            with parts.whole_file(place, mode) as file:
                _fill(file, pieces, self.progress.advance)
        except OSError as error:
            error.filename = place
            raise
        self.copied += 1

    def link(self, place: str, leads_to: str) -> None:
        """Make one symbolic link."""
        if self._wants(place):
            self.make(os.path.dirname(place))
            Path(place).unlink(missing_ok=True)
            os.symlink(leads_to, place)
            self.copied += 1


def _fill(file: io.FileIO, pieces: Iterable[_Piece], advance: Callable[[int], object]) -> None:
    size = 0
    for piece in pieces:
        if isinstance(piece, int) or _ZEROS.startswith(piece):  # holes stay holes, and zeros become one
            size += piece if isinstance(piece, int) else len(piece)
            file.seek(size)
        else:
            size += len(piece)
            left = memoryview(piece)
            while left:
                left = left[file.write(left) :]
        advance(piece if isinstance(piece, int) else len(piece))
    file.truncate(size)


def _unpack(chunks: Iterator[bytes], target: _Target) -> None:
    target.make(target.root)
    with tarfile.open(fileobj=_Stream(chunks), mode="r|", bufsize=_TAR_BYTES) as tar:
        for member in tar:
            # tarfile.data_filter does this too, but Debian's Python 3.11.2 lacks it
            leads_out = member.issym() and said_target(member.name, member.linkname) is None
            if leads_out or not is_below(member.name):
                show.warn(f"{show.line(member.name)} was skipped: it leads out of the copied folder.")
                target.skipped += 1
                target.lost += 1
                continue
            place = os.path.join(target.root, member.name)
            if member.isdir():
                target.make(place)
            elif member.issym():
                target.link(place, member.linkname)
            elif member.isreg():
                target.write(place, _pieces(tar, member), member.mode & 0o755)


def _only_file(chunks: Iterator[bytes]) -> Iterator[_Piece]:
    """Yield the content of the one file of a tar stream."""
    with tarfile.open(fileobj=_Stream(chunks), mode="r|", bufsize=_TAR_BYTES) as tar:
        member = tar.next()
        if member is None:
            raise tarfile.TarError("it is empty")
        yield from _pieces(tar, member)


def _pieces(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[_Piece]:
    """Yield the content of a file. Not by `extractfile`, which makes zeros of holes: their sizes are passed on."""
    assert tar.fileobj is not None
    tar.fileobj.seek(member.offset_data)
    at = 0
    areas: list[tuple[int, int]] = getattr(member, "sparse", None) or [(0, member.size)]
    for start, size in areas:
        if start > at:
            yield start - at
        yield from _chunks(tar.fileobj.read, size)
        at = start + size
    if at < member.size:
        yield member.size - at


def _chunks(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise tarfile.ReadError("its end is missing")
        yield chunk
        size -= len(chunk)


class _Stream(io.RawIOBase):
    """Chunks, as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, or all if it is negative; b"" at the end."""
        if size < 0:
            return bytes(self._rest) + b"".join(self._chunks)
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)
