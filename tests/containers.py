"""What tests of runs in containers share: homes, and a Unix socket before the engine's own on which answers can fail."""

from __future__ import annotations

import contextlib
import io
import re
import select
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from conftest import Spell, wait_for
from engines import TEST_IMAGE, containers_of, engine_api, need_engine

from orchestrator import machine
from orchestrator.engine import find

CORES = machine.detect().cpus
GRACE_S = 1.0
CONFIG = """
executor = "docker"
sample_interval_s = 0.2
grace_s = {grace_s}

[machine_types.cpu]
cpus = {quarter}

[machine_types.small]
cpus = {quarter}
memory_gb = 0.1

[machine_types.whole]
cpus = {cores}

[docker]
host = "{host}"
base_image = "{image}"
gpu_base_image = "{image}"

[docker.options]
binds = ["{folder}:{folder}"]
"""
ENGINE = find.find_host("", {})[0].removeprefix("unix://") or "/var/run/docker.sock"


def config(folder: Path, host: str = f"unix://{ENGINE}") -> str:
    """The configuration of a home whose runs are containers that see `folder` where the test does."""
    need_engine()
    return CONFIG.format(
        grace_s=GRACE_S, quarter=CORES / 4, cores=CORES, host=host, image=TEST_IMAGE, folder=folder.resolve()
    )


def none_left(spell: Spell) -> None:
    """Wait until no container of the home is there."""
    wait_for(lambda: not containers_of(spell.home), f"no container: {containers_of(spell.home)}")


def remove_images(spell: Spell) -> None:
    """Remove the images that a home has built."""
    for image in engine_api().images(filters={"label": f"spell.home={spell.home.root}"}):
        engine_api().remove_image(image["Id"], force=True)


def container_of(spell: Spell, number: int) -> str:
    """The ID of the container of a run."""
    (found,) = containers_of(spell.home, label=[f"spell.home={spell.home.root}", f"spell.run={number}"])
    return str(found["Id"])


def reaper_of(container: str) -> psutil.Process:
    """Process 1 of a container."""
    return psutil.Process(engine_api().inspect_container(container)["State"]["Pid"])


@contextlib.contextmanager
def image_with_apt(script: str, more: str = "") -> Iterator[str]:
    """The test image, with this script for its `apt-get install`; `more` are lines of its Dockerfile."""
    said = f"#!/bin/sh\ncase $* in *install*) ;; *) exit 0 ;; esac\n{script}\n"
    lines = "\\n".join(said.replace("\\", "\\\\").replace("'", "'\\''").splitlines())
    text = f"FROM {TEST_IMAGE}\nRUN printf '{lines}\\n' > /usr/local/bin/apt-get && chmod 755 /usr/local/bin/apt-get\n{more}\n"
    tag = f"spell-test-containers:{uuid.uuid4().hex}"
    told = list(engine_api().build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True, decode=True))
    assert "error" not in told[-1], told[-1]
    try:
        yield tag
    finally:
        engine_api().remove_image(tag, force=True)


# -- a socket before the engine's own -------------------------------------------------------------------------------


class Rule:
    """What becomes of requests.

    Attributes:
        how: `hold` before the engine gets them, `lose` the engine's answers, `refuse` with an error of the engine.
        came: set when one came.
        over: set when those that are held or lost go on.
    """

    def __init__(self, how: str, wanted: str, times: int | None) -> None:
        self.how, self._wanted, self._left = how, re.compile(wanted), times
        self.came, self.over = threading.Event(), threading.Event()

    def takes(self, line: str) -> bool:
        """Whether a request is one of these, by its first line."""
        if not self._wanted.match(line) or self._left == 0:
            return False
        self._left = None if self._left is None else self._left - 1
        self.came.set()
        return True


class EngineProxy:
    """Stands between a server and the engine. Serves each connection once."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.asked: list[tuple[str, bytes]] = []
        self.change: Callable[[str, bytes], bytes] = lambda line, body: body
        self._rules: list[Rule] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Nobody is served any more."""
        self._listening.close()

    @contextlib.contextmanager
    def rule(self, how: str, wanted: str, times: int | None = None) -> Iterator[Rule]:
        """Inside this, requests whose first line `wanted` matches are treated so; the first `times` of them."""
        rule = Rule(how, wanted, times)
        self._rules.append(rule)
        try:
            yield rule
        finally:
            self._rules.remove(rule)
            rule.over.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, body = _request(client)
            line = head.partition(b"\r\n")[0].decode()
            self.asked.append((line, body))
            rule = next((rule for rule in self._rules if rule.takes(line)), None)
            if rule and rule.how == "refuse":
                client.sendall(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n" + b'{"message": "it does not work"}')
                return
            if rule and rule.how == "hold":
                rule.over.wait()
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(ENGINE)
                engine.sendall(_once(head, body, self.change(line, body)))
                if rule and rule.how == "lose":
                    engine.recv(1)
                    rule.over.wait()
                else:
                    _relay(client, engine)


def _request(client: socket.socket) -> tuple[bytes, bytes]:
    """Its head, and of its body what its head tells the size of."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            raise OSError("no request")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while size and len(body) < int(size[1]):
        body += client.recv(65536)
    return head, body


def _once(head: bytes, body: bytes, changed: bytes) -> bytes:
    if b"Upgrade" not in head:
        head = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", head) + b"\r\nConnection: close"
    head = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % len(changed))
    return head + b"\r\n\r\n" + changed


def _relay(client: socket.socket, engine: socket.socket) -> None:
    """Until the engine has said all."""
    ends: dict[Any, socket.socket] = {client: engine, engine: client}
    while engine in ends:
        for ready in select.select(list(ends), [], [])[0]:
            data = ready.recv(65536)
            if data:
                ends[ready].sendall(data)
            else:
                with contextlib.suppress(OSError):
                    ends[ready].shutdown(socket.SHUT_WR)
                del ends[ready]
