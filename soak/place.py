"""The home in which it happens: its disk can be filled, and its clock can be set."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker

from orchestrator.engine import find
from orchestrator.home import Home

IMAGE = "spell-test-base:bookworm"
DATA = "the data of the code"
_DISK = "size=512m,mode=755"
_CONFIG = f"""
grace_s = 1
sample_interval_s = 0.5
[machine_types.cpu]
cpus = {{cpus}}
[docker]
base_image = "{IMAGE}"
gpu_base_image = "{IMAGE}"
"""
_CLOCK = """
import time
_real, _path = time.time, {path!r}
def _set():
    with open(_path) as file:
        return _real() + float(file.read() or 0)
time.time = _set
"""
_BACKEND = """
import time, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    time.sleep(0.4)
    info = "{name}-1.0.dist-info"
    with zipfile.ZipFile(folder + "/{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("{name}.py", "")
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        archive.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "/RECORD", "")
    return "{name}-1.0-py3-none-any.whl"
"""
_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "{name}"
version = "1.0"
"""


class Place:
    """A folder with a home, the repository that runs are cast from, and the command `spell`.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk, self.repo, self._clock = folder / "disk", folder / "repo", folder / "clock"
        self.has_disk = False
        self.home = Home(self.disk / "home")
        self.spell = str(Path(sys.executable).with_name("spell"))
        ours = ("SPELL_", "GIT_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.env = {**clean, "SPELL_HOME": str(self.home.root), "PYTHONPATH": str(folder / "python")}

    def make(self) -> None:
        """Make the home, its disk, its clock and the repository."""
        self.disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", _DISK, "tmpfs", str(self.disk)]
        self.has_disk = subprocess.run(mount, check=False, capture_output=True).returncode == 0
        self.home.root.mkdir()
        self.home.config.write_text(_CONFIG.format(cpus=len(os.sched_getaffinity(0)) / 8))
        (self.folder / "python").mkdir()
        self.set_clock(0)
        # Every Python that a person or `spell` starts here reads this clock; supervisors keep that of the machine.
        (self.folder / "python" / "sitecustomize.py").write_text(_CLOCK.format(path=str(self._clock)))
        self.repo.mkdir()
        for words in (["init", "-q"], ["config", "user.email", "p@example.org"], ["config", "user.name", "P"]):
            subprocess.run(["git", *words], cwd=self.repo, check=True)
        (self.repo / "data.txt").write_text("of the commit\n")
        subprocess.run(["git", "add", "."], cwd=self.repo, check=True)
        subprocess.run(["git", "commit", "-q", "-m", "one"], cwd=self.repo, check=True)
        (self.repo / "data.txt").write_text(f"{DATA}\n")

    def project(self, name: str) -> Path:
        """A Python project whose build takes a moment."""
        folder = self.folder / "projects" / name
        folder.mkdir(parents=True)
        (folder / "backend.py").write_text(_BACKEND.format(name=name))
        (folder / "pyproject.toml").write_text(_PROJECT.format(name=name))
        return folder

    def set_clock(self, offset_s: float) -> None:
        """Let the clock go wrong by so much."""
        beside = self._clock.with_name("clock.next")
        beside.write_text(str(offset_s))
        beside.rename(self._clock)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """No byte is free on the disk of the home inside this."""
        filler = self.disk / "filler"
        try:
            with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            yield
        finally:
            filler.unlink(missing_ok=True)

    def end(self) -> None:
        """End the server."""
        self.set_clock(0)
        subprocess.run([self.spell, "server", "stop"], env=self.env, check=False, capture_output=True)

    def remove(self) -> None:
        """Remove all of it."""
        if self.has_disk:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def engine() -> docker.APIClient | None:
    """The Docker engine; None where there is none with the image of the tests."""
    host = find.find_host("", os.environ)[0]
    if not host or not find.answers(host):
        return None
    api = docker.APIClient(base_url=host, version="auto")
    return api if api.images(IMAGE) else None
