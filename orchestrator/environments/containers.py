"""Runs the programs of a build in a short-lived container without privileges, made from the environment's image.

A container costs a quarter of a second, so one serves all programs of a build. Its command is the image's Python with a
few lines of ours (`_DRIVER`), which start the programs that we send and report how they ended. So the engine never stores
variables with passwords, the image needs no shell, and a container ends by itself when its connection is closed: the
server may be killed at any time.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestrator.engine import Engine, EngineError
from orchestrator.environments.base import Runner
from orchestrator.environments.host import POLL_S
from orchestrator.environments.uv import BuildCancelled, Interrupted, disk_full
from orchestrator.errors import BuildFailed, says_disk_full

_ROLE, _NAME = "build", "spell-build-"
_PID_DIGITS = 10
_HEADER_BYTES = 8  # of a frame of the engine's stream: its kind, three zeros, the size of what follows
_END_BYTES = 512  # no report of a driver is longer
_PIDS, _MEMORY_SHARE = 8192, 0.8  # of this machine's memory: a build may be hostile, or too big
_KEPT_BYTES = 400  # the end of the output, for the error when the container ends
# The image's variables stay, below those that are sent, except those that configure another environment than ours.
# Processes that a program left are killed before its end is reported: they could write to what is published then.
_DRIVER = """
import json, os, queue, signal, subprocess, sys, threading
wanted = queue.Queue()
mine = {n: v for n, v in os.environ.items() if not n.startswith(("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA_"))}
def work():
    while True:
        order = json.loads(wanted.get())
        try:
            code = str(subprocess.call(order["command"], cwd=order["cwd"], env=dict(mine, **order["env"]),
                                       stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT))
        except OSError as error:
            code = "!" + (error.strerror or str(error))
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        os.write(1, ("\\0" + order["end"] + code + "\\0").encode())
threading.Thread(target=work, daemon=True).start()
for line in sys.stdin:
    wanted.put(line)
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of this machine that a container sees, at the same path unless `target` names another."""

    source: Path
    writable: bool = False
    target: str = ""


class Container(Runner):
    """Containers of one image.

    Args:
        engine: runs them.
        image: the image's ID in the engine.
        python: the image's Python; a name is looked up on the image's PATH.
        mounts: what a container sees of this machine. Programs get the image's variables, overridden by those given.
        cpu_shares: its CPU weight among containers, relative to 1024; 0 for the engine's default.
    """

    def __init__(
        self, engine: Engine, image: str, python: str = "python3", mounts: Sequence[Mount] = (), cpu_shares: int = 0
    ) -> None:
        self.engine = engine
        self._image = image
        self._python = python
        self._mounts = tuple(mounts)
        self._cpu_shares = cpu_shares

    def with_mounts(self, mounts: Sequence[Mount]) -> Container:
        """Return the same with other mounts."""
        return Container(self.engine, self._image, self._python, mounts, self._cpu_shares)

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        process_file: Path,
        output: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> int:
        with self.opened(process_file) as runner:
            return runner.run(command, cwd=cwd, env=env, process_file=process_file, output=output, cancelled=cancelled)

    @contextmanager
    def opened(self, process_file: Path) -> Iterator[Runner]:
        """Start one container for several programs, and remove it at the end.

        Args:
            process_file: a file that names the container while it exists.
        Raises:
            BuildFailed, DiskFull: when the engine refuses.
        """
        name = new_name()
        process_file.write_text(json.dumps({"container": name}))
        try:
            with _translated_errors(), self.engine.translated_errors():
                opened = _Opened(self._start(name))
            try:
                yield opened
            finally:
                opened.close()
        finally:
            with suppress(EngineError):  # it ends by itself, or a later sweep removes it
                self.engine.remove(name)
            process_file.unlink(missing_ok=True)

    def _start(self, name: str) -> Any:
        """Start a container. Returns the SDK's wrapper of the stream to and from it."""
        api = self.engine.api
        limits = api.create_host_config(
            mounts=[_as_mount(mount) for mount in self._mounts],
            network_mode="bridge",
            init=True,
            mem_limit=int(psutil.virtual_memory().total * _MEMORY_SHARE),
            auto_remove=True,  # nothing else would, if the server is killed and never started again
            log_config={"Type": "none"},
            **({"cpu_shares": self._cpu_shares} if self._cpu_shares else {}),
            **self.engine.confinement(_PIDS),
            **self.engine.reach,
        )
        api.create_container(
            self._image,
            entrypoint=[self._python],
            command=["-I", "-S", "-c", _DRIVER],
            name=name,
            user=self.engine.user,
            working_dir="/",
            stdin_open=True,
            healthcheck={"Test": ["NONE"]},
            labels=labels(self.engine),
            host_config=limits,
        )
        stream = api.attach_socket(name, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        api.start(name)
        return stream


class _Opened(Runner):
    """Runs the programs of a build in a running container."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped  # kept, as it closes the stream when it is collected
        self._stream: socket.socket = wrapped._sock  # noqa: SLF001  the SDK has no other way to a two-way stream
        self._frames = self._said_last = b""

    def close(self) -> None:
        """Close the stream. The container then ends by itself."""
        with suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._wrapped.close()

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        process_file: Path,
        output: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> int:
        end = secrets.token_hex(16) + " "
        order = {"command": list(command), "cwd": str(cwd), "env": dict(env), "end": end}
        with _translated_errors(), suppress(BrokenPipeError):  # `_follow` reports why it has ended
            self._stream.sendall(json.dumps(order).encode() + b"\n")
        answer = self._follow(re.compile(b"\0" + end.encode() + b"([^\0]*)\0"), output, cancelled)
        if answer.startswith("!"):
            raise BuildFailed(
                f"{command[0]} cannot be started in the image: {answer[1:]}.",
                "Use an image with GNU's C library (Alpine has another one) and with this machine's architecture.",
            )
        return int(answer)

    def _follow(self, end: re.Pattern[bytes], output: Callable[[bytes], None], cancelled: Callable[[], bool]) -> str:
        kept = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            while not (found := end.search(kept)):
                sure, nul, maybe = kept.rpartition(b"\0")  # after the last NUL, it may be the beginning of the report
                if said := sure if nul else maybe:
                    output(said)
                kept = nul + maybe if nul and len(maybe) < _END_BYTES else b""
                if nul and not kept:
                    output(nul + maybe)
                if cancelled():
                    raise BuildCancelled
                if selector.select(POLL_S):
                    kept += self._read()
        if found.start():
            output(kept[: found.start()])
        return found[1].decode(errors="replace")

    def _read(self) -> bytes:
        """Return the output of the programs, from all complete frames."""
        with _translated_errors():
            data = self._stream.recv(1 << 16)
        if not data:
            words = self._said_last.decode(errors="replace").strip() or "it gave no reason"
            raise Interrupted(f"The container of the build ended before its work was done: {words}")
        self._frames += data
        said = b""
        while len(self._frames) >= _HEADER_BYTES:
            stop = _HEADER_BYTES + int.from_bytes(self._frames[4:_HEADER_BYTES], "big")
            if len(self._frames) < stop:
                break
            said += self._frames[_HEADER_BYTES:stop]
            self._frames = self._frames[stop:]
        self._said_last = (self._said_last + said)[-_KEPT_BYTES:]
        return said


def remove_abandoned(engine: Engine) -> None:
    """Remove the containers of builds of this home whose server is dead.

    Raises:
        EngineError: when the engine refuses or does not answer.
    """
    with engine.translated_errors():
        found = engine.api.containers(all=True, filters={"label": engine.ours(_ROLE)})
    for container in found:
        if not is_ours(container):
            continue
        if not is_alive(str(container["Labels"].get("spell.server", ""))):
            engine.remove(container["Id"])


def new_name() -> str:
    """Return a new name for a container that builds."""
    return f"{_NAME}{secrets.token_hex(8)}"


def labels(engine: Engine) -> dict[str, str]:
    """Return the labels of a container that builds, by which `remove_abandoned` finds its server."""
    return engine.labels(role=_ROLE, server=this_server())


def is_ours(container: Mapping[str, Any]) -> bool:
    """Whether a container of the engine's list has one of our names. Labels may come from any image."""
    return any(str(name).startswith(f"/{_NAME}") for name in container.get("Names") or ())


def this_server() -> str:
    """Return text that identifies this process, and no other process with the same pid."""
    return _server(os.getpid())


def is_alive(server: str) -> bool:
    """Whether the process that `this_server` named so is alive."""
    pid = server.partition(":")[0]
    return pid.isdecimal() and len(pid) < _PID_DIGITS and _server(int(pid)) == server


def _server(pid: int) -> str:
    """Return text that identifies the process with this pid; "" when none exists."""
    try:
        return f"{pid}:{psutil.Process(pid).create_time()}"
    except psutil.Error:
        return ""


def _as_mount(mount: Mount) -> dict[str, Any]:
    """Return a mount in the engine's form `mounts`, which makes no folder for a missing source, unlike `binds`."""
    source = str(mount.source)
    return {"Type": "bind", "Source": source, "Target": mount.target or source, "ReadOnly": not mount.writable}


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise errors of the engine as errors of a build."""
    try:
        yield
    except (EngineError, OSError) as error:
        words = error.message if isinstance(error, EngineError) else str(error)
        if says_disk_full(words):
            raise disk_full() from error
        raise BuildFailed(f"The container of the build cannot be run: {words}") from error
