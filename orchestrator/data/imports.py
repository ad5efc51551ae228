"""Imported runs while they arrive: a tar archive is unpacked beside the outputs of all runs, and becomes one of them at once.

    runs/.importing-KEY/
      archive         the request, until it is complete
      outputs/…       become runs/N
      log, metrics    become those of the run
      run             written in the transaction that records the run: its number and origin

What belongs to no recorded run when a server starts is removed, all else is finished. So nothing of an import stays but whole
runs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import tarfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from orchestrator.content.files import below, remove_tree
from orchestrator.content.manifest import mode_of, printable
from orchestrator.data.blobs import sync_all
from orchestrator.data.outputs import seal
from orchestrator.errors import InvalidConfig
from orchestrator.home import Home
from orchestrator.records.files import ArtifactRecord
from orchestrator.spec.mounts import relative_parts

RUN = "run.json"
"""The first member of the archive: an `ImportedRun` as JSON."""
LOG, METRICS, OUTPUTS = "log", "metrics.jsonl", "outputs/"
END = "end"
"""The last member: without it, the archive is not complete."""
_MOST_RUN_BYTES = 16 << 20
_PREFIX = ".importing-"
_CHUNK_BYTES = 1 << 20
_log = logging.getLogger(__name__)


class Arriving:
    """One import, in a folder of its own, which `finish` or `remove` ends.

    Args:
        folder: that of one that arrived earlier.
        size_bytes: the announced size of the archive: more is refused.

    Attributes:
        is_recorded: whether its run is recorded, so that it must be finished.
    """

    def __init__(self, home: Home, folder: Path | None = None, *, size_bytes: int = 0) -> None:
        self._home, self._size_bytes, self._received_bytes = home, size_bytes, 0
        self.folder = folder or home.runs / f"{_PREFIX}{uuid.uuid4().hex}"
        self._note, self._outputs = self.folder / "run", self.folder / "outputs"
        self.is_recorded = False
        if not folder:
            self.folder.mkdir(mode=0o700)

    @property
    def archive(self) -> Path:
        """Where the archive goes."""
        return self.folder / "archive"

    def receive(self, chunk: bytes) -> None:
        """Append bytes to the archive.

        Raises:
            InvalidConfig: when there are more than were announced, for which there is room.
        """
        self._received_bytes += len(chunk)
        if self._received_bytes > self._size_bytes:
            raise InvalidConfig(f"The import has more than the announced {self._size_bytes} bytes.", "Import again.")
        with self.archive.open("ab") as file:
            file.write(chunk)

    def unpack(self) -> bytes:
        """Unpack the archive, and remove it. Returns the `ImportedRun` as JSON.

        Raises:
            InvalidConfig: when it is none of ours, or not complete.
        """
        self._outputs.mkdir()
        words, last = b"", ""
        try:
            with tarfile.open(self.archive, "r:") as tar:
                for member in tar:
                    last = member.name
                    if not member.isreg():
                        raise InvalidConfig(f"{member.name!r} of the import is not a file.")
                    if member.name == RUN and member.size <= _MOST_RUN_BYTES:
                        words = _content(tar, member).read()
                    elif member.name != END:
                        self._write(tar, member)
        except tarfile.TarError as error:
            raise InvalidConfig(f"The import is damaged: {error}.", "Import again.") from error
        if last != END or not words:
            raise InvalidConfig("The import is not complete.", "Import again.")
        self.archive.unlink()
        return words

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if member.name in (LOG, METRICS):
            place = self.folder / member.name
        elif member.name.startswith(OUTPUTS):
            place = self._outputs.joinpath(*relative_parts(member.name.removeprefix(OUTPUTS), "A file of the import"))
        else:
            raise InvalidConfig(f"An import has no {member.name!r}.")
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            shutil.copyfileobj(_content(tar, member), file, _CHUNK_BYTES)
        place.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)

    def outputs(self) -> list[ArtifactRecord]:
        """Return the records of the outputs, without the number of their run, and bring all to the disk."""
        sync_all(self.folder)
        files = [(path, status) for path, status in below(self._outputs) if not stat.S_ISDIR(status.st_mode)]
        return [ArtifactRecord(0, printable(path), status.st_size, mode_of(status), None, "") for path, status in files]

    def note(self, number: int, origin: str) -> None:
        """Note the run that this becomes; to be called in the transaction that records the run."""
        beside = self.folder / "run.new"
        beside.write_text(json.dumps([number, origin]))
        beside.replace(self._note)

    def finish(self, number: int) -> None:
        """Move everything to its place. It can be repeated."""
        place, records = self._home.run_dir(number), self._home.log_dir(number)
        records.mkdir(mode=0o755, exist_ok=True)
        for name, target in ((METRICS, self._home.metrics(number)), (LOG, self._home.log(number))):
            with suppress(FileNotFoundError):
                shutil.move(self.folder / name, target)
        if self._outputs.exists() and any(self._outputs.iterdir()):
            os.rename(self._outputs, place)
        if place.exists():
            list(seal(number, place))
        self.remove()

    def noted(self) -> tuple[int, str]:
        """Return number and origin of the run that this becomes; (0, "") when it was not noted."""
        with suppress(FileNotFoundError):
            number, origin = json.loads(self._note.read_text())
            return number, origin
        return 0, ""

    def remove(self) -> None:
        """Remove what is left of it."""
        remove_tree(self.folder)


def recover(home: Home, number_of: Callable[[str], int | None]) -> None:
    """After a server that was killed: finish the imports whose run is recorded, and remove all others.

    Args:
        number_of: the run of an origin. (A number alone may be that of a later run: a transaction that fails uses none up.)
    """
    for folder in home.runs.glob(f"{_PREFIX}*"):
        try:
            arriving = Arriving(home, folder)
            number, origin = arriving.noted()
            if number and number_of(origin) == number:
                arriving.finish(number)
            else:
                arriving.remove()
        except Exception:  # any error: the server must start
            _log.exception("%s could not be recovered, and stays", folder)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tarfile.ExFileObject:
    file = tar.extractfile(member)
    assert file is not None  # a regular file
    return file  # type: ignore[return-value]
