"""What reapers are made of: that of a container loads little, and so writes JSON by itself; others have all they need."""

from __future__ import annotations

import errno
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import wait_for
from launches import make_launch

import orchestrator
from orchestrator.errors import is_disk_full
from orchestrator.executors.forkserver import Forkserver
from orchestrator.executors.process import ProcessExecutor
from orchestrator.supervisor.container import as_json
from orchestrator.supervisor.verdict import words_of

_LOADED = """
import sys; sys.path.insert(0, sys.argv[1])
from orchestrator.supervisor import container
print(*sys.modules)
"""
_SLOW = {"collections", "contextlib", "enum", "functools", "json", "pathlib", "re", "signal", "subprocess", "typing"}


def test_a_container_waits_for_little() -> None:
    package = str(Path(orchestrator.__file__).parent.parent)
    words = [sys.executable, "-I", "-S", "-B", "-c", _LOADED, package]
    loaded = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert "orchestrator.supervisor.reaper" in loaded
    assert not loaded & _SLOW


@pytest.mark.parametrize(
    "value",
    [
        {"exit_code": 0, "signal": None, "timed_out": False, "disk_full": True, "ended_at": 1795846014.25, "error": {}},
        {"error": {"reason": "executor_failed", "detail": 'No such "file": C:\\x\n\x00\x1b\x7f é 🎉 \udcff'}},
        {"one": 1, "zero": 0, "small": 1e-300, "big": 10**20},
    ],
)
def test_json_is_what_json_says(value: dict[str, object]) -> None:
    assert json.loads(as_json(value)) == value
    assert as_json(value).isascii()


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_a_full_disk_is_the_same_to_supervisor_and_server(number: int) -> None:
    error = OSError(number, "x", "/x")
    assert (words_of(error)["reason"] == "disk_full") == is_disk_full(error)


_UPGRADED = """
import pathlib, shutil, sys
package = pathlib.Path(sys.argv[1])
sys.path[:0] = [str(package.parent), sys.argv[2]]
import orchestrator
from launches import make_launch
from orchestrator.executors.process import ProcessExecutor
assert pathlib.Path(orchestrator.__file__).parent == package
place, executor = pathlib.Path(sys.argv[3]), ProcessExecutor()
assert executor.wait(executor.start(make_launch(place, "true"))).exit_code == 0
shutil.rmtree(package)
handle = executor.start(make_launch(place, "echo it is $KEY", number=2, secrets={"KEY": "swordfish"}))
print(executor.wait(handle).exit_code, (place / "log-2").read_text())
"""


def test_a_forkserver_needs_no_file_of_the_package_once_it_runs(tmp_path: Path) -> None:
    """An upgrade puts other files there, while the old server still starts runs."""
    package = Path(shutil.copytree(Path(orchestrator.__file__).parent, tmp_path / "old" / "orchestrator"))
    words = [sys.executable, "-c", _UPGRADED, str(package), str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("0 it is ***\n\n", "")


def test_the_number_of_a_killed_forkserver_is_nobody_elses(tmp_path: Path) -> None:
    """Else the children of whoever has it then would be taken for what runs have left, and be killed."""
    executor, me = ProcessExecutor(), psutil.Process()
    before = me.children()
    assert executor.wait(executor.start(make_launch(tmp_path, "true")))
    (forkserver,) = (child for child in me.children() if child not in before)
    forkserver.kill()
    wait_for(lambda: forkserver.status() == psutil.STATUS_ZOMBIE, "its end")
    subprocess.run(["true"], check=True)  # buries the children that nobody holds
    assert forkserver.status() == psutil.STATUS_ZOMBIE


class _KilledAtOnce(Forkserver):
    """Its processes are killed before they have begun, as often as told."""

    left = 2

    def _open(self) -> socket.socket:
        opened = super()._open()
        if self.left and self._process:
            self.left -= 1
            self._process.kill()
            self._process.wait()
        return opened


def test_a_forkserver_that_is_killed_before_it_has_begun_is_started_again(tmp_path: Path) -> None:
    executor = ProcessExecutor()
    executor._forkserver = _KilledAtOnce()
    verdict = executor.wait(executor.start(make_launch(tmp_path, "exit 3")))
    assert verdict and verdict.exit_code == 3
    assert executor._forkserver.left == 0
