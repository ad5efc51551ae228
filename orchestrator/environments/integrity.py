"""Finds files of an environment that were changed, where runs cannot be kept from changing them.

Without private namespaces a process run can write to everything that its user owns: to an environment, and through its
hard links to uv's cache. Before the first such run, all environments are noted and the home is marked as exposed. From then on a new environment is compared with
the hashes in its packages' RECORDs before it is published, and each environment before it is used again: by size and time of
each file, which costs some microseconds a file, and by content where these differ. Elsewhere nothing is compared.

Some packages come with a RECORD that is wrong, which no installer checks: what is the same after it was fetched anew is the
package's own. A note beside the environment holds sizes and times. Byte code may be added to an environment, as by its compilation.
"""

from __future__ import annotations

import base64
import csv
import fcntl
import hashlib
import io
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.environments.bytecode import MARKER
from orchestrator.environments.installed import read_inside, site_folder
from orchestrator.environments.published import published_folders

NOTE = ".files-"
"""Prefix of a key: the note of an environment."""
_EXPOSED = ".exposed"
_ALGORITHM = "sha256="
_CHUNK_BYTES = 1 << 20

_Facts = dict[str, list[int | str]]


@dataclass(frozen=True, slots=True)
class Damage:
    """What was changed in an environment.

    Attributes:
        files: changed, removed and added files, relative to the environment.
        packages: the names of the packages that they belong to.
    """

    files: tuple[str, ...]
    packages: frozenset[str]

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"


def expose(environments: Path) -> None:
    """Record that a run begins that can change all environments, and before the first one, what they are."""
    if is_exposed(environments):
        return
    with _locked(environments):
        if is_exposed(environments):
            return
        for path in published_folders(environments):
            with suppress(FileNotFoundError):  # removed meanwhile
                note_files(path)
        (environments / _EXPOSED).touch()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself: the notes must be complete before any of these runs begins."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_exposed(environments: Path) -> bool:
    """Whether there was ever such a run."""
    return (environments / _EXPOSED).exists()


def damage_of(environment: Path) -> Damage | None:
    """Return what was changed in a published environment since it was published, or compared first."""
    note, now = environment.with_name(NOTE + environment.name), _facts(environment)
    before = _noted(note)
    if before is None:
        suspects = None
    else:
        suspects = {path for path in before if now.get(path) != before[path]}
        suspects |= {path for path in now.keys() - before.keys() if not _is_byte_code(path)}
        if not suspects and len(now) == len(before):
            return None
    found = against_record(environment, suspects)
    if found is None:
        _write(note, now)
    return found


def note_files(environment: Path) -> None:
    """Record an environment as it was just published."""
    _write(environment.with_name(NOTE + environment.name), _facts(environment))


def against_record(environment: Path, suspects: Iterable[str] | None = None) -> Damage | None:
    """Compare the files of an environment with the hashes in its packages' RECORDs.

    Args:
        suspects: only these, and each that no RECORD names counts as changed; None for all files in RECORDs.
    """
    wanted = None if suspects is None else set(suspects)
    unexplained, packages = set(wanted or ()), set()
    for package, path, digest in _recorded(environment):
        if wanted is not None and path not in wanted:
            continue
        if digest and _sha256(environment / path) == digest:
            unexplained.discard(path)
        elif digest or wanted is not None:
            unexplained.add(path)
            packages.add(package)
    return Damage(tuple(sorted(unexplained)), frozenset(packages)) if unexplained else None


def _facts(environment: Path) -> _Facts:
    """Return size and time of each file, and the target of each link."""
    found: _Facts = {}
    folders = [""]
    while folders:
        inside = folders.pop()
        with os.scandir(environment / inside) as entries:
            for entry in entries:
                path = f"{inside}{entry.name}"
                if entry.is_symlink():
                    found[path] = [os.readlink(entry.path)]
                elif entry.is_dir():
                    folders.append(f"{path}/")
                elif path != MARKER:
                    info = entry.stat(follow_symlinks=False)
                    found[path] = [info.st_size, info.st_mtime_ns]
    return found


def _is_byte_code(path: str) -> bool:
    return path.endswith(".pyc") and "/__pycache__/" in path


def _recorded(environment: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the package, the path in the environment, and the hash of each file that a RECORD names; "" for no hash."""
    site = site_folder(environment)
    for folder in site.glob("*.dist-info"):
        package = folder.name.partition("-")[0]
        with suppress(FileNotFoundError, csv.Error):
            text = read_inside(environment, folder / "RECORD").decode(errors="surrogateescape")
            for row in csv.reader(io.StringIO(text, newline="")):
                if row:
                    path = os.path.relpath(os.path.normpath(site / row[0]), environment)
                    if not path.startswith(".."):
                        yield package, path, row[1] if len(row) > 1 and row[1].startswith(_ALGORITHM) else ""


def _sha256(path: Path) -> str:
    """Return the hash of a file as a RECORD has it; "" when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return ""
    return _ALGORITHM + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def _noted(note: Path) -> _Facts | None:
    try:
        return dict(json.loads(note.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _write(note: Path, facts: _Facts) -> None:
    beside = note.with_name(f"{note.name}.{os.getpid()}-{threading.get_ident()}")
    beside.write_text(json.dumps(facts))
    beside.rename(note)
