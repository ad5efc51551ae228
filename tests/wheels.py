"""Tiny packages made on the spot: wheels, and projects whose build does what a test needs."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path


def make_wheel(
    folder: Path, name: str, version: str = "1.0", code: str = "", extra: Mapping[str, str] | None = None
) -> Path:
    """A wheel with one module `name.py`, and the console script `name` that calls its `main`."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code or f"VERSION = {version!r}\ndef main(): print({name!r})\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        **(extra or {}),
    }
    record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def make_broken_wheel(folder: Path) -> Path:
    """A file that begins as a wheel does, so that it can be asked for, and cannot be installed."""
    path = folder / "broken-1.0-py3-none-any.whl"
    path.write_bytes(b"PK\3\4 and nothing else")
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def make_index(folder: Path, *wheels: Path) -> Path:
    """A simple index (PEP 503) of wheels that lie beside it: `FOLDER/simple/NAME/index.html`."""
    for wheel in wheels:
        name = wheel.name.partition("-")[0]
        page = folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        links = page.read_text() if page.exists() else ""
        (page.parent / wheel.name).write_bytes(wheel.read_bytes())
        page.write_text(f'{links}<a href="{wheel.name}">{wheel.name}</a>\n')
    return folder / "simple"


_BACKEND = """
import os, pathlib, shutil, sys, time
HERE = pathlib.Path({control!r})

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    print("compiling", flush=True)
    with (HERE / "started").open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    while not (HERE / "go").exists():
        time.sleep(0.01)
    if (HERE / "fail").exists():
        sys.exit((HERE / "fail").read_text())
    wheel = next(HERE.glob("*.whl"))
    shutil.copy(wheel, wheel_directory)
    return wheel.name
"""


class SlowProject:
    """A project whose build begins, says so, and goes on when the test lets it; its build backend is its own."""

    def __init__(self, folder: Path, name: str = "slow") -> None:
        self.path = folder / "project"
        self.control = folder / "control"
        self.path.mkdir(parents=True)
        make_wheel(self.control, name)
        (self.path / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            f'[project]\nname = "{name}"\nversion = "1.0"\n'
        )
        (self.path / "backend.py").write_text(_BACKEND.format(control=str(self.control)))

    def started(self) -> list[int]:
        """The processes of the builds that have begun."""
        path = self.control / "started"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def go(self) -> None:
        """Let builds end."""
        (self.control / "go").touch()

    def fail(self, words: str) -> None:
        """Let builds end with an error."""
        (self.control / "fail").write_text(words)
        self.go()
