"""A published environment on the disk: its description is written into it, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.environments.base import Base
from orchestrator.environments.bytecode import MARKER
from orchestrator.environments.installed import Distribution, python_of
from orchestrator.environments.request import Local, ParsedRequest, Reference
from orchestrator.spec.redaction import redacted

DESCRIPTION = "spell-environment.json"
_FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Environment:
    """Python packages, ready to use; shared between runs and never changed.

    Attributes:
        key: identifies it; computed from the content of the request.
        path: its root, which holds `bin/python`; scripts work wherever it is mounted.
        packages: the resolved packages, as `pip freeze` writes them, sorted.
        python: the full version of its Python.
        compiled: whether it has byte code.
        image: the engine's ID of the image whose Python it uses; "" for a Python of this machine.
    """

    key: str
    path: Path
    packages: tuple[str, ...]
    python: str
    compiled: bool
    image: str = ""


def describe(
    environment: Path, key: str, asked: ParsedRequest, base: Base, packages: list[Distribution], *, compiled: bool
) -> None:
    """Write the description of a new environment into it, and make it durable."""
    version, kind = python_of(environment)
    content = {
        "format": _FORMAT,
        "key": key,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "boot": boot_id(),
        "request": _request(asked),
        "python": version,
        "implementation": kind,
        "image": base.image,
        "python_path": base.python,
        "packages": [package.frozen for package in packages],
        "size_bytes": sum(package.size_bytes for package in packages),
        "compiled": compiled,
    }
    with (environment / DESCRIPTION).open("x") as file:  # "x": never into a file that a container has put there
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(environment)


def sync_folder(folder: Path) -> None:
    """Make the file names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_description(environment: Path) -> dict[str, Any] | None:
    """Return the description of a published environment; None if this version cannot read it or it is missing."""
    try:
        content: dict[str, Any] = json.loads((environment / DESCRIPTION).read_bytes())
        return content if content["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_environment(key: str, path: Path) -> Environment | None:
    """Open a published environment; None unless it has a description, and its Python still exists.

    The Python of an image is not on this machine; its link must be enough.
    """
    content = read_description(path)
    if content is None:
        return None
    image, python = str(content.get("image", "")), path / "bin" / "python"
    if not (os.path.lexists(python) if image else python.exists()):
        return None
    compiled = bool(content["compiled"]) or (path / MARKER).exists()
    return Environment(key, path, tuple(content["packages"]), str(content["python"]), compiled, image)


def published_folders(environments: Path) -> Iterator[Path]:
    """Yield all published environments, complete or not, the newest or last used first."""
    with os.scandir(environments) as entries:
        folders = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)]
    found = []
    for folder in folders:
        with suppress(FileNotFoundError):  # removed meanwhile
            found.append((os.stat(folder.path).st_ctime_ns, folder.path))
    yield from (Path(path) for _, path in sorted(found, reverse=True))


def boot_id() -> str:
    """Return the id of this boot of the machine; "" where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _request(asked: ParsedRequest) -> Mapping[str, object]:
    return {
        "python": asked.python,
        "requirements": [_text(line) for line in asked.lines],
        "files": {file.name: [_text(line) for line in file.lines] for file in asked.files},
    }


def _text(line: str | Local | Reference) -> str:
    if isinstance(line, Reference):
        return f"{line.option} file {line.file + 1}"
    if isinstance(line, Local):
        return f"{line.name} @ {line.path}{line.tail}" if line.name else f"{line.path}{line.tail}"
    return redacted(line)
