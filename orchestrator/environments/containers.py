"""Programs of a build that run in a container: short-lived, without rights, of the image that the environment is for.

A container costs a quarter of a second, so one serves all programs of a build. Its own command is the image's Python
with a few lines of ours (`_DRIVER`), which start what is sent to it and send back how that ended. So variables with
passwords stand nowhere in what the engine keeps about the container, no shell need be in the image, and a container
ends by itself when nobody listens any more: the server may be killed at any time.
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
from orchestrator.environments.base import Place
from orchestrator.environments.host import POLL_S
from orchestrator.environments.uv import BuildCancelled, disk_full
from orchestrator.errors import BuildFailed, says_disk_full

_ROLE, _NAME = "build", "spell-build-"
_PID_DIGITS = 10
_HEADER_BYTES = 8  # of a frame of the engine's stream: its kind, three zeros, the size of what follows
_END_BYTES = 512  # no end that a driver tells is longer
_PIDS, _MEMORY_SHARE = 8192, 0.8  # of this machine's: a build may be hostile, or only too big
_KEPT_BYTES = 400  # of what was said, for the error when nothing more is
# The image's own variables stay, below those that are sent, but for those that are about another environment than ours.
# What a program leaves running is killed before its end is told: it could write to what is published then.
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
    """A file or folder of this machine that a container sees; at the same path, unless `target` names another."""

    source: Path
    writable: bool = False
    target: str = ""


class Container(Place):
    """Containers of one image.

    Args:
        engine: runs them.
        image: the engine's ID of it.
        python: its Python; a name is looked for on the image's PATH.
        mounts: what a container sees of this machine. The programs' variables are the image's own and, above them,
            those that are given.
        cpu_shares: its weight among containers, of 1024; 0 for the usual one.
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
        """The same, seeing other files of this machine."""
        return Container(self.engine, self._image, self._python, mounts, self._cpu_shares)

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        record: Path,
        output: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> int:
        with self.opened(record) as place:
            return place.run(command, cwd=cwd, env=env, record=record, output=output, cancelled=cancelled)

    @contextmanager
    def opened(self, record: Path) -> Iterator[Place]:
        """One container for several programs; it is gone when this is left.

        Args:
            record: a file that names it while it is there.
        Raises:
            BuildFailed, DiskFull: the engine has said no.
        """
        name = new_name()
        record.write_text(json.dumps({"container": name}))
        try:
            with _told(), self.engine.told():
                opened = _Opened(self._start(name))
            try:
                yield opened
            finally:
                opened.close()
        finally:
            with suppress(EngineError):  # it ends by itself, and what does not is swept later
                self.engine.remove(name)
            record.unlink(missing_ok=True)

    def _start(self, name: str) -> Any:
        """Start a container; returns the SDK's wrapping of the stream to and from it."""
        api = self.engine.api
        limits = api.create_host_config(
            mounts=[_as_told(mount) for mount in self._mounts],
            network_mode="bridge",
            init=True,
            mem_limit=int(psutil.virtual_memory().total * _MEMORY_SHARE),
            auto_remove=True,  # nobody else would, when the server is killed and never started again
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


class _Opened(Place):
    """A container that runs, seen from the programs in it."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped  # kept, as it would close the stream when it goes
        self._stream: socket.socket = wrapped._sock  # noqa: SLF001  the SDK has no other way to a two-way stream
        self._frames = self._said_last = b""

    def close(self) -> None:
        """Nobody listens any more: it ends by itself."""
        with suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._wrapped.close()

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        record: Path,
        output: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> int:
        end = secrets.token_hex(16) + " "
        order = {"command": list(command), "cwd": str(cwd), "env": dict(env), "end": end}
        with _told(), suppress(BrokenPipeError):  # why it has ended is said below
            self._stream.sendall(json.dumps(order).encode() + b"\n")
        told = self._follow(re.compile(b"\0" + end.encode() + b"([^\0]*)\0"), output, cancelled)
        if told.startswith("!"):
            raise BuildFailed(
                f"{command[0]} cannot be started in the image: {told[1:]}.",
                "The image needs the C library of GNU (that of Alpine is another), and this machine's architecture.",
            )
        return int(told)

    def _follow(self, end: re.Pattern[bytes], output: Callable[[bytes], None], cancelled: Callable[[], bool]) -> str:
        kept = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            while not (found := end.search(kept)):
                sure, nul, maybe = kept.rpartition(b"\0")  # from there on, it may be the beginning of the end
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
        """What the programs have said, of all frames that are whole."""
        with _told():
            data = self._stream.recv(1 << 16)
        if not data:
            words = self._said_last.decode(errors="replace").strip() or "it does not say why"
            raise BuildFailed(f"The container of the build ended before its work was done: {words}")
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
        EngineError: when that cannot be.
    """
    wanted = [f"{name}={value}" for name, value in engine.labels(role=_ROLE).items()]
    with engine.told():
        found = engine.api.containers(all=True, filters={"label": wanted})
    for container in found:
        if not is_ours(container):
            continue
        if not is_alive(str(container["Labels"].get("spell.server", ""))):
            engine.remove(container["Id"])


def new_name() -> str:
    """A name for a container that builds."""
    return f"{_NAME}{secrets.token_hex(8)}"


def labels(engine: Engine) -> dict[str, str]:
    """The labels of a container that builds: whose it is, for `remove_abandoned`."""
    return engine.labels(role=_ROLE, server=this_server())


def is_ours(container: Mapping[str, Any]) -> bool:
    """Whether a container of the engine's list has a name of ours. Labels may be those of an image, of anybody's."""
    return any(str(name).startswith(f"/{_NAME}") for name in container.get("Names") or ())


def this_server() -> str:
    """This process, and no other one that has its number before or after it."""
    return _server(os.getpid())


def is_alive(server: str) -> bool:
    """Whether the process that called itself so (`this_server`) is there."""
    pid = server.partition(":")[0]
    return pid.isdecimal() and len(pid) < _PID_DIGITS and _server(int(pid)) == server


def _server(pid: int) -> str:
    """A process and no later one of the same number; "" when there is none."""
    try:
        return f"{pid}:{psutil.Process(pid).create_time()}"
    except psutil.Error:
        return ""


def _as_told(mount: Mount) -> dict[str, Any]:
    """A mount as the engine wants it told; it makes no folder where the source is missing, as it does for `binds`."""
    source = str(mount.source)
    return {"Type": "bind", "Source": source, "Target": mount.target or source, "ReadOnly": not mount.writable}


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the engine, as those of a build."""
    try:
        yield
    except (EngineError, OSError) as error:
        words = error.message if isinstance(error, EngineError) else str(error)
        if says_disk_full(words):
            raise disk_full() from error
        raise BuildFailed(f"The container of the build cannot be run: {words}") from error
