"""Finds wheels that were replaced under the same name, in the local folders that `find-links` names.

uv takes a wheel of a find-links folder from its cache by name, even if the file has changed since. So we record the size
and times of each file that was installed from such a folder, and make uv read a changed file again
(`--refresh-package`). A wheel given by path needs none of this: uv checks its times.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from packaging.utils import canonicalize_name

from orchestrator.environments.settings import packages_in

_NAME = re.compile(r"(.+?)-\d")


def _distribution(file: str) -> str:
    found = _NAME.match(file)
    return canonicalize_name(found[1]) if found else ""


class FindLinks:
    """The local find-links folders of one build, as they are when it begins.

    Args:
        environments: the folder of all environments; the records are kept in it.
        folders: the find-links folders.
        cache: which of uv's caches is used; "" for the user's.
    """

    def __init__(self, environments: Path, folders: Iterable[Path], cache: str = "") -> None:
        self._notes = environments / ".find-links"
        self._cache = cache
        self._now = {folder: packages_in(folder) for folder in folders}

    def refresh_arguments(self) -> list[str]:
        """Return arguments of `uv pip install` for packages whose files have changed since they were installed."""
        changed = set()
        for folder, packages in self._now.items():
            for name, version in self._noted(folder).items():
                if packages.get(name, version) != version:
                    changed.add(_distribution(name))
        return [argument for name in sorted(changed - {""}) for argument in ("--refresh-package", name)]

    def note(self, installed: Iterable[str]) -> None:
        """Record the files of the packages (by name) that have been installed."""
        names = {canonicalize_name(name) for name in installed}
        for folder, packages in self._now.items():
            found = {name: version for name, version in packages.items() if _distribution(name) in names}
            before = self._noted(folder)
            if not found.items() <= before.items():
                self._write(folder, before | found)

    def _file(self, folder: Path) -> Path:
        return self._notes / f"{hashlib.sha256(os.fsencode(folder) + self._cache.encode()).hexdigest()[:32]}.json"

    def _noted(self, folder: Path) -> dict[str, str]:
        try:
            return {str(name): str(version) for name, version in json.loads(self._file(folder).read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _write(self, folder: Path, packages: dict[str, str]) -> None:
        self._notes.mkdir(exist_ok=True)
        for left in self._notes.glob("tmp*"):  # of a server that was killed
            left.unlink(missing_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._notes)
        with suppress(OSError), open(descriptor, "w") as file:
            json.dump(packages, file)
            os.replace(temporary, self._file(folder))
