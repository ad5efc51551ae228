"""`spell export`: writes a run to a folder or archive that runs without spell, or runs for another tracker."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import parts, show
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import connect
from orchestrator.errors import DiskFull, SpellError, UsageError, is_disk_full
from orchestrator.spec.filters import Filter

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_OTHER_ARCHIVES = (".zip", ".tar.xz", ".tar.bz2", ".tar.zst", ".7z")
_CHUNK_BYTES = 1 << 20
_PROGRESS_FROM_BYTES = 8 << 20
_LAST = "SHA256SUMS"
_OURS = (_LAST, "spec.yaml")  # files that mark a folder as an earlier export


@dataclass(frozen=True, slots=True)
class _Written:
    run: int
    path: str
    bytes: int
    warnings: list[str]


@click.command(context_settings=_HELP)
@click.argument("run", nargs=-1, required=True, metavar="RUN", shell_complete=complete.runs)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE.tar.gz",
    help="Write to this folder or archive. [default: run-N]",
)
@click.option("--with-inputs", is_flag=True, help="Include mounted resources, not only their list.")
@click.option("--with-outputs", is_flag=True, help="Include outputs, not only their hashes.")
@click.option("-f", "--force", is_flag=True, help="Replace an earlier export.")
@click.option("--to", type=click.Choice(["mlflow"]), help="Write runs for another tracker instead: RUN... PATH")
@click.option("-a", "--all", "all_", is_flag=True, help="With --to: all runs that have ended.")
@click.option("-l", "--label", multiple=True, shell_complete=complete.labels, help="With --to: runs with this label.")
@click.option("-p", "--project", default="", shell_complete=complete.projects, help="With --to: runs in this project.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def export(run: Sequence[str], to: str | None, json_: bool, **how: Any) -> None:
    """Write RUN to a folder or archive: spec, code, packages, log, metrics, hashes of outputs, and a Dockerfile that runs
    it without spell. Values of environment variables and secrets are left out.

    With --to mlflow, write runs into PATH/mlflow.db, which MLflow opens: spell export --to mlflow RUN... PATH. A run that is
    there already stays as it is."""
    all_, labels, project = how.pop("all_"), how.pop("label"), how.pop("project")
    wanted = Filter(labels=labels, project=project) if all_ or labels or project else None
    if to:
        if any(how.values()):
            raise UsageError("Options -o, -f, --with-inputs and --with-outputs do not go with --to.", "Name PATH last.")
        from orchestrator.cli.tracker_export import export_to_mlflow  # 12 ms: few exports are for a tracker

        export_to_mlflow(run, wanted, json_=json_)
        return
    if len(run) > 1 or wanted is not None:
        raise UsageError(
            "One run is exported at a time.", "Several are written with: spell export --to mlflow RUN... PATH"
        )
    _export(run[0], json_=json_, **how)


def _export(run: str, *, output: Path | None, with_inputs: bool, with_outputs: bool, force: bool, json_: bool) -> None:
    with parts.tidily(), connect() as client:
        number = client.runs.get(run).number
        target = output or Path(f"run-{number}")
        _check(target, force)
        found = client.export.download(str(number), inputs=with_inputs, outputs=with_outputs)
        try:
            with (
                interruptible("Nothing was exported."),
                _counted(found.chunks, f"Exporting run {number}", found.size_bytes, silent=json_) as chunks,
            ):
                _write(target, chunks)
        except tarfile.TarError as error:
            raise SpellError(f"The export of run {number} is incomplete: {error}.", "Export it again.") from error
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(f"The disk has no room for {target}.") from error
            raise
    for warning in found.warnings:
        show.warn(warning)
    if json_:
        show.as_json(_Written(number, str(target), found.size_bytes, found.warnings))
    else:
        show.say(
            f"✔ Exported run {number} to {target} ({show.size(found.size_bytes)}); its README.md says how to run it"
        )


def _check(target: Path, force: bool) -> None:
    """Check that an export can be written there.

    Raises:
        UsageError: if the kind of archive is unknown, or something other than an earlier export is there.
    """
    if target.name.endswith(_OTHER_ARCHIVES):
        raise UsageError(f"{target} is not an archive that spell can write.", f"Use one of {', '.join(_ARCHIVES)}.")
    if not os.path.lexists(target):
        return
    if not force:
        raise UsageError(f"{target} exists already.", "Replace it with -f, or name another place with -o.")
    is_archive = target.name.endswith(_ARCHIVES)
    if is_archive != (not target.is_dir()) or target.is_symlink():
        raise UsageError(f"{target} is not an earlier export.", "Remove it yourself, or name another place with -o.")
    if not is_archive and os.listdir(target) and not all((target / name).is_file() for name in _OURS):
        raise UsageError(f"{target} is not an earlier export.", "Remove it yourself, or name another place with -o.")


def _write(target: Path, chunks: Iterator[bytes]) -> None:
    """Write an export, which appears at the target when it is complete."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.name.endswith(_ARCHIVES):
        parts.sweep(str(target.parent))
        with parts.whole_file(str(target)) as file:
            _pack(file, chunks, plain=target.name.endswith(".tar"))
        return
    with parts.part_folder(target.parent) as beside:
        _unpack(beside / "new", chunks)
        if target.exists():
            target.rename(beside / "old")
        try:
            (beside / "new").rename(target)
        except OSError:
            if (beside / "old").exists():
                (beside / "old").rename(target)
            raise


def _pack(raw: io.FileIO, chunks: Iterator[bytes], *, plain: bool) -> None:
    buffered = io.BufferedWriter(raw)
    with contextlib.nullcontext(buffered) if plain else gzip.GzipFile("", "wb", 6, buffered) as file:
        for chunk in chunks:
            file.write(chunk)
    buffered.flush()
    buffered.detach()


def _unpack(root: Path, chunks: Iterator[bytes]) -> None:
    """Unpack the content of the archive's one folder. Links are made last, so that no file is written through one."""
    root.mkdir()
    links, last = [], ""
    with tarfile.open(fileobj=io.BufferedReader(_Stream(chunks), _CHUNK_BYTES), mode="r|") as tar:
        for member in tar:
            parts = member.name.split("/")[1:]
            if not parts or not {"", ".", ".."}.isdisjoint(parts):
                raise tarfile.TarError(f"it has a file called {member.name!r}")
            place = root.joinpath(*parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            if member.isdir():
                place.mkdir(exist_ok=True)
            elif member.issym():
                links.append((place, member.linkname))
            elif member.isreg():
                file = tar.extractfile(member)
                assert file is not None
                with place.open("xb") as copy:
                    shutil.copyfileobj(file, copy, _CHUNK_BYTES)
                place.chmod(member.mode & 0o755)
            last = parts[0]
    for place, leads_to in links:
        place.symlink_to(leads_to)
    if last != _LAST:
        raise tarfile.TarError("its end is missing")


class _Stream(io.RawIOBase):
    """Chunks as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        room = memoryview(buffer).cast("B")
        count = min(len(room), len(self._rest))
        room[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


@contextlib.contextmanager
def _counted(chunks: Iterator[bytes], title: str, total: int, *, silent: bool) -> Iterator[Iterator[bytes]]:
    """Give the chunks, counted by a bar on a terminal."""
    if silent or total < _PROGRESS_FROM_BYTES or not sys.stderr.isatty():
        yield chunks
        return
    from orchestrator.cli.output.progress import Bar  # 24 ms: rich; few exports are that large

    with Bar(title, total) as bar:
        yield bar.wrap(chunks)
