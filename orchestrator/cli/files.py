"""Looking at outputs and copying them: ls, cat, cp."""

from __future__ import annotations

import importlib
import io
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

import click

from orchestrator.cli import show
from orchestrator.client import connect
from orchestrator.errors import DiskFull, InvalidConfig, SpellError, UsageError
from orchestrator.records import FileRecord

_HELP = {"help_option_names": ["-h", "--help"]}
_CHUNK_BYTES = 1 << 20
_YEAR_S = 365 * 86400
_PROGRESS_FROM_BYTES = 8 << 20


@click.command(context_settings=_HELP)
@click.argument("resource", default="")
@click.option("-h", "human", is_flag=True, help="Sizes as 1.2K, 15M.")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def ls(resource: str, human: bool, json_: bool) -> None:
    """List RESOURCE: runs/2, uploads/cifar, runs/latest/model. Nothing: what there is."""
    with connect() as client:
        found = client.ls(resource)
    if json_:
        show.as_json(found)
        return
    for item in found:
        size = "-" if item.is_dir else show.size(item.size) if human else str(item.size)
        link = f" → {item.link}" if item.link else ""
        show.say(f"{size.rjust(12)} {_moment(item)}   {item.path}{'/' if item.is_dir else ''}{link}")


def _moment(item: FileRecord) -> str:
    old = time.time() - item.modified_at > _YEAR_S
    return time.strftime("%b %d  %Y" if old else "%b %d %H:%M", time.localtime(item.modified_at))


@click.command(context_settings=_HELP)
@click.argument("resource", nargs=-1, required=True)
def cat(resource: Sequence[str]) -> None:
    """Print each RESOURCE, a file."""
    with connect() as client:
        for name in resource:
            kind, _, chunks = client.download(name)
            if kind != "file":
                raise UsageError(f"{name!r} is a folder.", f"Copy it: spell cp {name}")
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@click.command(context_settings=_HELP)
@click.argument("resource")
@click.argument("destination", default=".", type=click.Path(path_type=Path))
@click.option("-f", "--force", is_flag=True, help="Overwrite without asking.")
@click.option("-i", "--ignore", is_flag=True, help="Leave files that are there already.")
def cp(resource: str, destination: Path, force: bool, ignore: bool) -> None:
    """Copy RESOURCE, a file or what is in a folder, to DESTINATION (a folder; default: here)."""
    if resource.startswith("/"):
        raise InvalidConfig(f"{resource!r} is no resource.", "A resource is runs/NUMBER/… or uploads/NAME/….")
    with connect() as client:
        kind, total, chunks = client.download(resource)
        target = _Target(destination, force, ignore)
        try:
            with _progress(resource, total) as progress:
                if kind == "file":
                    name = resource.rstrip("/").rpartition("/")[2]
                    place = (
                        destination / name if destination.is_dir() or str(destination).endswith("/") else destination
                    )
                    target.write(place, progress.wrap(chunks))
                else:
                    _unpack(chunks, target, progress)
        except OSError as error:
            raise (DiskFull if error.errno == 28 else SpellError)(f"{error.filename}: {error.strerror}") from error
    skipped = f" Skipped {target.skipped} files." if target.skipped else ""
    show.say(f"✔ Copied {target.copied} files.{skipped}")


class _Target:
    """Where files are copied to, and what to do with those that are there."""

    def __init__(self, root: Path, force: bool, ignore: bool) -> None:
        self.root, self._force, self._ignore = root, force, ignore
        self.copied = self.skipped = 0

    def wants(self, place: Path) -> bool:
        """Whether a file is to be written there; asks on a terminal."""
        if (place.exists() or place.is_symlink()) and not self._force:
            asked = sys.stdin.isatty() and not self._ignore
            words = f"File '{place}' already exists. Are you sure you want to overwrite?"
            if self._ignore or (asked and not click.confirm(words)):
                self.skipped += 1
                return False
        return True

    def write(self, place: Path, chunks: Iterator[bytes], mode: int = 0o644) -> None:
        """Write one file, whole: beside, then renamed."""
        if not self.wants(place):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.spell-part")
        try:
            with beside.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            beside.chmod(mode)
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
        self.copied += 1


def _unpack(chunks: Iterator[bytes], target: _Target, progress: Any) -> None:
    root = target.root.absolute()
    with tarfile.open(fileobj=_Stream(chunks), mode="r|") as tar:
        for member in tar:
            safe = tarfile.data_filter(member, str(root))  # refuses what leads out of the destination
            place = root / safe.name
            if safe.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif safe.issym() and target.wants(place):
                place.unlink(missing_ok=True)
                place.symlink_to(safe.linkname)
                target.copied += 1
            elif safe.isreg():
                file = tar.extractfile(member)
                assert file is not None
                target.write(place, progress.wrap(_chunks(file)), member.mode)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


class _Stream(io.RawIOBase):
    """Chunks, as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return taken


class _Silent:
    """Progress that is not shown."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def wrap(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks."""
        return chunks


def _progress(name: str, total: int) -> Any:
    if total < _PROGRESS_FROM_BYTES or not sys.stderr.isatty():
        return _Silent()
    return importlib.import_module("orchestrator.cli.progress").Bar(f"Copying {name} ({show.size(total)})", total)
