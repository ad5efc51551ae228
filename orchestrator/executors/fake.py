"""The scripted executor, for tests of all that lies above executors. It runs nothing; the command says what happens.

    exit N        ends at once with exit code N
    signal N      ends at once, by signal N
    hang          goes on until it is stopped (exit code 143) or killed (signal 9)
    ignore        goes on until it is killed; a stop kills it after the grace time
    refuse        cannot be started (`executor_failed`)
    lose          its supervisor is lost

It keeps its state in the attempt's folder, as every executor must, so that another server can recover it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.environments import Base, Host
from orchestrator.errors import Conflict, ExecutorFailed, InvalidConfig
from orchestrator.executors.base import Executor, Handle, Launch, PlannedBase, Usage, Verdict
from orchestrator.executors.paths import GivenPaths, RunPaths
from orchestrator.records.machines import MachineType
from orchestrator.records.plans import READY
from orchestrator.spec.run import RunSpec

_VERSION = 1
_LOOK_S = 0.005


class FakeExecutor(Executor):
    """Does what the command says."""

    name = "fake"

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def refuse(self, spec: RunSpec) -> None:
        for mount in spec.mounts:
            if mount.path.startswith("/"):
                raise InvalidConfig(f"The fake executor cannot mount at the absolute path {mount.path!r}.")

    def warnings(self, spec: RunSpec, machine_type: MachineType) -> tuple[str, ...]:
        return ("The fake executor runs nothing.",)

    def base(self, spec: RunSpec, gpus: int, log: Path, cancelled: Callable[[], bool]) -> Base:
        return Base(Host())

    def look(self, spec: RunSpec, gpus: int) -> PlannedBase:
        return PlannedBase("", READY, Base(Host()))

    def base_of(self, image: str) -> Base:
        return Base(Host())

    def run_paths(self, base: Base, given: GivenPaths) -> RunPaths:
        return RunPaths(
            code=str(given.code),
            environment=str(given.environment),
            layer=str(given.layer),
            runtime=str(given.runtime),
            metrics=str(given.metrics),
            bytecode=str(given.bytecode or ""),
        )

    def prepare(self, launch: Launch) -> None:
        pass

    def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
        verb, _, number = launch.command.partition(" ")
        if verb == "refuse":
            raise ExecutorFailed("the command asks for a refusal")
        claim: dict[str, str | int] = {"verb": verb, "grace_ms": int(launch.grace_s * 1000)}
        if not _claim(launch.folder, claim):
            raise Conflict(f"Attempt {launch.attempt} of run {launch.number} was started before.")
        launch.log.touch()
        now = time.time()
        if verb in ("exit", "signal"):
            code, signal = (int(number), None) if verb == "exit" else (None, int(number))
            self._publish(launch.folder, Verdict(code, signal, started_at=now, ended_at=now))
        elif verb == "lose":
            self._publish(launch.folder, Verdict(reason="supervisor_lost", detail="the command asks for it"))
        return Handle(self.name, _VERSION, launch.folder, claim)

    def recover(self, folder: Path) -> Handle | None:
        if _claim(folder, {"verb": "abandoned"}):
            return None
        claim = json.loads((folder / "claim.json").read_text())
        return None if claim["verb"] == "abandoned" else Handle(self.name, _VERSION, folder, claim)

    def wait(self, handle: Handle, timeout_s: float | None = None) -> Verdict | None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not (verdict := self._verdict(handle)):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(_LOOK_S)  # another instance may have stopped it
        return verdict

    def stop(self, handle: Handle, *, kill: bool) -> None:
        if self._verdict(handle):
            return
        if handle.data["verb"] == "ignore" and not kill:
            with contextlib.suppress(FileExistsError):  # the first request counts
                (handle.folder / "stopping").touch(exist_ok=False)
            return
        now = time.time()
        code, signal = (None, 9) if kill else (143, None)
        self._publish(handle.folder, Verdict(code, signal, started_at=now, ended_at=now))

    def usage(self, handle: Handle) -> Usage | None:
        return None if self._verdict(handle) else Usage(0.0, 0, 1)

    def destroy(self, handle: Handle) -> None:
        self.stop(handle, kill=True)

    def _verdict(self, handle: Handle) -> Verdict | None:
        found = _verdict(handle.folder)
        stopping = handle.folder / "stopping"
        if found is None and stopping.exists():
            killed_at = stopping.stat().st_mtime + int(handle.data["grace_ms"]) / 1000
            if time.time() >= killed_at:
                found = Verdict(signal=9, ended_at=killed_at)
                self._publish(handle.folder, found)
        return found

    def _publish(self, folder: Path, verdict: Verdict) -> None:
        fields = {name: getattr(verdict, name) for name in Verdict.__slots__}
        beside = folder / f"verdict-{threading.get_ident()}.tmp"
        beside.write_text(json.dumps(fields))
        with self._changed:
            beside.rename(folder / "verdict.json")
            self._changed.notify_all()


def _claim(folder: Path, words: Mapping[str, str | int]) -> bool:
    beside = folder / f"claim-{os.getpid()}-{threading.get_ident()}.tmp"
    beside.write_text(json.dumps(words))
    try:
        os.link(beside, folder / "claim.json")
    except FileExistsError:
        return False
    finally:
        beside.unlink()
    return True


def _verdict(folder: Path) -> Verdict | None:
    try:
        return Verdict(**json.loads((folder / "verdict.json").read_text()))
    except FileNotFoundError:
        return None
