"""A uv project: the time to its first line of output by `spell run`, side by side with `uv run`; and `spell env`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from uv import find_uv_bin

from benchmarks.measure import BIN, Bench, Row, command, medians, ratio
from orchestrator.environments.bytecode import MARKER
from orchestrator.environments.pip_conf import pip_settings

_COLD_REPEATS, _WARM_REPEATS, _ENV_REPEATS = 3, 7, 9
_LIMIT_S = 0.3
_LINE = "first line"
_TRAIN = f"import torch, transformers\nprint({_LINE!r}, flush=True)\n"
_PROJECT = """[project]
name = "training"
version = "0.1"
requires-python = ">=3.11"
dependencies = {dependencies}

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""
_MANY = 300


def projects(bench: Bench) -> Iterator[Row]:
    """Measure a project with torch and transformers in its lock, with a new environment and with a known one."""
    torch = os.environ.get("TORCH", "torch")
    env = _env(bench)
    folder = _make(bench.repo.with_name("project"), [torch, "transformers>=4.45,<6"], env)
    started = _Started(bench, folder)
    uv = started.until_first_line([find_uv_bin(), "run", "python", "train.py"], env)
    spell = started.until_first_line([str(BIN / "spell"), "run", "python", "train.py"], bench.env)
    words = f"{torch} and transformers in uv.lock, packages in uv's cache, to the first line of output"
    new_uv_s, new_spell_s = medians(_COLD_REPEATS, uv, spell, ready=started.forget_environments)
    yield Row(f"U = `uv run` without a .venv, {words}", f"{new_uv_s:.2f} s", "", holds=True)
    yield ratio("`spell run` of the same, new environment", new_spell_s, new_uv_s, 1.1, "U")
    started.await_byte_code()
    uv_s, spell_s = medians(_WARM_REPEATS, uv, spell, ready=started.end)
    yield Row("V = `uv run` again", f"{uv_s:.2f} s", "", holds=True)
    yield ratio("`spell run` again", spell_s, uv_s, 0.9, "V")


def found_environment(bench: Bench) -> list[Row]:
    """Measure `spell env` on a lock of many packages, from a folder of wheels."""
    folder, wheels = bench.repo.with_name("many"), bench.repo.with_name("wheels")
    names = [f"part{number}" for number in range(_MANY)]
    wheels.mkdir()
    for name in names:
        _make_wheel(wheels, name)
    _make(folder, names, {**_env(bench), "UV_FIND_LINKS": str(wheels), "UV_NO_INDEX": "1"})
    (taken_s,) = medians(_ENV_REPEATS, command([str(BIN / "spell"), "env"], bench.env, folder))
    return [
        Row(f"`spell env`, {_MANY} packages in uv.lock", f"{taken_s * 1000:.0f} ms", "≤ 300 ms", taken_s <= _LIMIT_S)
    ]


class _Started:
    """What was started in a project, and may still run after its first line."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self._bench, self._folder = bench, folder
        self._last: subprocess.Popen[str] | None = None

    def until_first_line(self, words: list[str], env: Mapping[str, str]) -> Callable[[], object]:
        """An action that runs a command, and returns when it has written its first line."""

        def act() -> None:
            self._last = subprocess.Popen(words, env=dict(env), cwd=self._folder, stdout=subprocess.PIPE, text=True)
            assert self._last.stdout is not None
            assert any(line.strip() == _LINE for line in self._last.stdout), words

        return act

    def end(self) -> None:
        """Wait for its end."""
        if self._last is not None:
            self._last.communicate()
            self._last = None

    def forget_environments(self) -> None:
        """Wait for its end, and remove the environments. The caches of packages stay, and so does the build of the project
        itself: uv has it in its cache, spell as an environment of its own."""
        self.end()
        shutil.rmtree(self._folder / ".venv", ignore_errors=True)
        gone = Path(tempfile.mkdtemp(dir=self._bench.home.environments, prefix=".gone-"))
        for path in self._environments():
            if (path / "spell-projects.json").exists():
                continue
            path.rename(gone / path.name)  # whoever compiles it loses it
        shutil.rmtree(gone, ignore_errors=True)

    def await_byte_code(self) -> None:
        """Wait until the server has compiled what was built."""
        self.end()
        while not all((path / MARKER).exists() for path in self._environments()):
            time.sleep(0.1)

    def _environments(self) -> list[Path]:
        return [path for path in self._bench.home.environments.iterdir() if not path.name.startswith(".")]


def _make(folder: Path, dependencies: list[str], env: Mapping[str, str]) -> Path:
    (folder / "src" / "training").mkdir(parents=True)
    (folder / "src" / "training" / "__init__.py").touch()
    (folder / "train.py").write_text(_TRAIN)
    (folder / ".gitignore").write_text(".venv\n")
    (folder / "pyproject.toml").write_text(_PROJECT.format(dependencies=dependencies))
    for words in (
        [find_uv_bin(), "lock", "--quiet"],
        ["git", "init", "-q"],
        ["git", "add", "."],
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "x"],
    ):
        subprocess.run(words, cwd=folder, env=dict(env), check=True)
    return folder


def _make_wheel(folder: Path, name: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def _env(bench: Bench) -> dict[str, str]:
    """The variables for uv: its cache lies on the disk of the home, and it looks for wheels where pip does."""
    links = pip_settings(bench.env)[0].get("find-links", "")
    found = {name: value for name, value in bench.env.items() if name != "VIRTUAL_ENV"}
    found |= {"UV_CACHE_DIR": str(bench.home.root.with_name("uv-cache"))}
    return found | ({"UV_FIND_LINKS": ",".join(links.split())} if links else {})
