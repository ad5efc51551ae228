"""Ports of runs: listed, and forwarded to this machine, for processes and for containers without a network."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DEADLINE_S, Spell, wait_for

from orchestrator.errors import Conflict, InvalidConfig, NotFound
from orchestrator.executors.docker.ports import Answer, asked
from orchestrator.records.ports import PortRecord

PROGRAM = """
import hashlib, select, socket, struct, threading

def listen():
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,)).start()
    return listener.getsockname()[1]

def serve(listener):
    while True:
        threading.Thread(target=talk, args=listener.accept()[:1]).start()

def talk(peer):
    kind = peer.recv(1)
    if kind == b"d":  # the digest of all that comes until its end
        digest = hashlib.sha256()
        while data := peer.recv(65536):
            digest.update(data)
        peer.sendall(digest.hexdigest().encode())
    elif kind == b"e":  # what comes, at once
        while data := peer.recv(65536):
            peer.sendall(data)
    elif kind == b"f":  # a flood, until nobody reads
        sent = 0
        peer.setblocking(False)
        while select.select([], [peer], [], 1)[1]:
            sent += peer.send(bytes(65536))
        print("blocked at", sent, flush=True)
        peer.setblocking(True)
        peer.sendall(b"end")
    elif kind == b"r":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif kind == b"l":
        peer.sendall(str(listen()).encode())
    elif kind == b"b":  # a port that this program will listen on, but does not yet
        print("told", flush=True)
        late = socket.create_server(("127.0.0.1", int(peer.recv(10))))
        threading.Thread(target=serve, args=(late,)).start()
    peer.close()

print("port", listen(), flush=True)
"""
LISTENING = f"exec python3 - <<'END'\n{PROGRAM}END"


def port_of(spell: Spell, number: int) -> int:
    """The port that the program in this run listens on."""
    spell.says(number, b"port ")
    return int(spell.log(number).split()[1])


def said(port: int, words: bytes) -> bytes:
    """All that a port of this machine answers to these bytes and their end."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as peer:
        peer.sendall(words)
        peer.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: peer.recv(65536), b""))


@contextlib.contextmanager
def typed(spell: Spell, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`spell port WORDS…`, which has told of its first port; it is interrupted at the end."""
    with spell.popen("port", *words, text=True, bufsize=1) as forwarding:
        try:
            yield forwarding
        finally:
            with contextlib.suppress(ProcessLookupError):
                forwarding.send_signal(signal.SIGINT)


def local(forwarding: subprocess.Popen[str]) -> int:
    """The next port of this machine that it tells of."""
    assert forwarding.stdout
    line = forwarding.stdout.readline()
    found = re.search(r"127\.0\.0\.1:(\d+) leads to", line)
    assert found, line
    return int(found[1])


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home whose runs are processes."""
    return make_shared("ports")


@pytest.fixture(scope="module")
def number(spell: Spell) -> int:
    """A run that listens on a port."""
    return spell.cast(LISTENING)


def test_what_is_sent_arrives_whole_from_many_connections_at_once(spell: Spell, number: int) -> None:
    port, data, answers = port_of(spell, number), os.urandom(8 << 20), []
    with spell.client.ports.forward(number, port, 0) as forward:
        forward.open()
        threads = [threading.Thread(target=lambda: answers.append(said(forward.local, b"d" + data))) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert said(forward.local, b"ehello") == b"hello", "one waits for no other"
        for thread in threads:
            thread.join()
    assert answers == [hashlib.sha256(data).hexdigest().encode()] * 4
    with pytest.raises(ConnectionRefusedError):
        said(forward.local, b"e")


def test_nobody_is_sent_more_than_is_read(spell: Spell, number: int) -> None:
    with spell.client.ports.forward(number, port_of(spell, number), 0) as forward:
        forward.open()
        with socket.create_connection(("127.0.0.1", forward.local), DEADLINE_S) as peer:
            peer.sendall(b"f")
            spell.says(number, b"blocked at ")
            found = re.search(rb"blocked at (\d+)", spell.log(number))
            assert found and int(found[1]) < 32 << 20
            read = b"".join(iter(lambda: peer.recv(1 << 20), b""))
    assert (len(read), read[-3:]) == (int(found[1]) + 3, b"end")


def test_a_broken_connection_is_broken_here_too(spell: Spell, number: int) -> None:
    with spell.client.ports.forward(number, port_of(spell, number), 0) as forward:
        forward.open()
        with pytest.raises(ConnectionResetError):
            said(forward.local, b"r")
        assert said(forward.local, b"eon") == b"on"


def test_only_ports_of_the_run_itself_can_be_reached(spell: Spell, number: int) -> None:
    errors: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as others:
        port = others.getsockname()[1]
        assert port_of(spell, number) in {item.port for item in spell.client.ports.list(number)} - {port}
        with spell.client.ports.forward(number, port, 0, lambda error: errors.append(str(error))) as forward:
            forward.open()
            with pytest.raises(ConnectionResetError):
                said(forward.local, b"")
    assert errors == [f"Run {number} does not listen on port {port}."]


def test_a_port_that_is_taken_is_told_with_a_way_out(spell: Spell, number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as others:
        taken = others.getsockname()[1]
        done = spell("port", str(number), f"8888:{taken}")
    assert done.code == 1 and done.err.splitlines()[-2:] == [
        f"ERROR: Another program of this machine listens on port {taken}.",
        "       Take another one, 8888:NUMBER, or 8888:0 for any that is free.",
    ]
    with pytest.raises(InvalidConfig):
        spell.client.ports.forward(number, 0, 0)
    with pytest.raises(NotFound):
        spell.client.ports.forward("nobody", 1, 0)
    assert spell("port", str(number), "http").code == 2


def test_a_port_waits_until_the_run_listens_and_ends_with_it(spell: Spell) -> None:
    number = spell.cast(LISTENING)
    first = port_of(spell, number)
    assert spell("port", str(number)).out.splitlines() == [
        "PORT   ADDRESS    PROGRAM",
        f"{first:<5}  127.0.0.1  {spell.client.ports.list(number)[0].program}",
    ]
    with socket.create_server(("127.0.0.1", 0)) as free:
        later = free.getsockname()[1]
    with typed(spell, str(number), f"{first}:0", f"{later}:0") as forwarding:
        now, then = local(forwarding), local(forwarding)
        with socket.create_connection(("127.0.0.1", then), DEADLINE_S) as early:  # before the run listens
            early.sendall(b"eearly")
            assert said(now, b"b%d" % later) == b""
            assert early.recv(5) == b"early"
            assert spell("stop", str(number)).code == 0
            assert early.recv(5) == b"", "the end of the run ends its connections"
        assert forwarding.wait(DEADLINE_S) == 0
        assert forwarding.stderr and f"Run {number} has ended (stopped)" in forwarding.stderr.read()
    with pytest.raises(Conflict, match="not running"):
        spell.client.ports.list(number)
    assert "is not running: it is stopped" in spell("port", str(number), "1:0").err


def test_detaching_says_that_the_run_goes_on(spell: Spell, number: int) -> None:
    with typed(spell, str(number), f"{port_of(spell, number)}:0") as forwarding:
        local(forwarding)
        forwarding.send_signal(signal.SIGINT)
        assert forwarding.wait(DEADLINE_S) == 130
        assert forwarding.stderr and "the run goes on" in forwarding.stderr.read()


def test_what_a_container_answers_is_checked_and_what_it_passes_is_closed(tmp_path: Path) -> None:
    """The run can put another program in the place of ours."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one, other = socket.socketpair()
    with ours, theirs, one, other, (tmp_path / "file").open("wb") as file:

        def answered(words: bytes, *fds: int) -> Answer:
            if fds:
                socket.send_fds(theirs, [words], fds)
            else:
                theirs.send(words)
            return asked(ours, b"list")

        before = len(os.listdir("/proc/self/fd"))
        for words in (
            b"no JSON", b"5", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"ports": 5}', b'{"ports": [5]}', b'{"ports": [["80", "", ""]]}',
            b'{"ports": [[80, "", 5]]}', b'{"ports": [[65536, "", ""]]}', b'{"ports": [[80, ""]]}', b'{"error": {}}',
        ):  # fmt: skip
            for fds in ((), (one.fileno(),)):
                with pytest.raises(ValueError, match="its answer"):
                    answered(words, *fds)
        with pytest.raises(ValueError, match="something else than a connection"):
            answered(b"{}", file.fileno())
        assert len(os.listdir("/proc/self/fd")) == before
        assert answered(b'{"ports": [[80, "::", "x"]]}').ports == [PortRecord(80, "::", "x")]
        connection = answered(b'{"connected": true}', one.fileno()).connection
        assert connection is not None
        with connection:
            connection.send(b"on")
        assert other.recv(2) == b"on"


def test_a_container_without_a_network_has_ports_too(docker_spell: Spell) -> None:
    number = docker_spell.cast(LISTENING, network="none")
    port, data = port_of(docker_spell, number), os.urandom(8 << 20)
    assert [item.port for item in docker_spell.client.ports.list(number)] == [port]
    with docker_spell.client.ports.forward(number, port, 0) as forward:
        forward.open()
        assert said(forward.local, b"d" + data) == hashlib.sha256(data).hexdigest().encode()
        inner = int(said(forward.local, b"l"))
        assert sorted(item.port for item in docker_spell.client.ports.list(number)) == sorted([port, inner])
        docker_spell.kill_server()
        assert said(forward.local, b"eon") == b"on", "through the next server"
        with socket.create_connection(("127.0.0.1", forward.local), DEADLINE_S) as peer:
            peer.sendall(b"eon")
            assert peer.recv(2) == b"on"
            docker_spell.client.runs.stop(number)
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(2) == b""
    assert docker_spell.ended(number).state == "stopped"
    inside = docker_spell.home.attempt_dir(number, 1) / "inside"
    wait_for(lambda: not inside.exists(), "the folder that it was shown is gone")
