"""Requests over a socket, against a server that does what servers should not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import BIN, Spell, wait_for

from orchestrator.client.client import Client
from orchestrator.client.transport import Transport, chunks, lines
from orchestrator.errors import Conflict, ConnectionLost, InvalidConfig, ServerUnavailable, SpellError
from orchestrator.home import Home
from orchestrator.records.run_summary import RunSummary
from orchestrator.records.runs import RunRecord
from orchestrator.records.searches import SearchRecord
from orchestrator.records.workflows import WorkflowRecord

RUN = {item.name: None for item in dataclasses.fields(RunRecord)} | {"state": "running", "attempts": []}
FIELDS = {item.name: None for kind in (RunSummary, SearchRecord, WorkflowRecord) for item in dataclasses.fields(kind)}
TRIES = 6
"""How often a request that does no harm twice is sent at most."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"


class Rogue:
    """Listens on a home's socket; each connection is given to the next of its manners."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.create()
        self.manners: list[Callable[[socket.socket], None]] = []
        self.connections = self.closed = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.home.socket))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with contextlib.suppress(OSError), connection:
                    self.manners.pop(0)(connection)
                self.closed += 1

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def rogue(tmp_path: Path) -> Iterator[Rogue]:
    found = Rogue(tmp_path / "home")
    yield found
    found.close()


def heard(connection: socket.socket) -> bytes:
    """Hear a request to its end, where it says how long it is; else its head. Returns its first line, b"" at the end."""
    words = b""
    while b"\r\n\r\n" not in words:
        received = connection.recv(1 << 16)
        if not received:
            return b""
        words += received
    head, _, body = words.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    left = int(length[1]) - len(body) if length else 0
    while left > 0:
        left -= len(connection.recv(left))
    return head.partition(b"\r\n")[0]


def says(*answers: bytes) -> Callable[[socket.socket], None]:
    """Answers each request of a connection, and hangs up."""

    def manner(connection: socket.socket) -> None:
        for answer in answers:
            heard(connection)
            connection.sendall(answer)

    return manner


def test_one_connection_is_kept(rogue: Rogue) -> None:
    rogue.manners = [says(OK, OK, OK)]
    transport = Transport(rogue.home, start=False)
    assert [transport.call("GET", "/x") for _ in range(3)] == [True] * 3
    assert rogue.connections == 1
    transport.close()


def test_a_server_that_has_hung_up_is_asked_anew(rogue: Rogue) -> None:
    rogue.manners = [says(OK), says(OK)]
    transport = Transport(rogue.home, start=False)
    assert transport.call("POST", "/x", json={}) is True
    wait_for(lambda: rogue.closed, "the end of the connection")
    assert transport.call("POST", "/x", json={}) is True  # sent once: the old connection is seen to be closed
    assert rogue.connections == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "it was closed before an answer came"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "it was closed before an answer came"),
        (b"HTTP/1.1 200 OK\r\n\r\ntrue", "its answer was cut off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ntrue", r"peer closed .* \(received 4 bytes, expected 10\)"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n", "peer closed connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ntrue", "peer closed connection"),
        (b"no HTTP at all\r\n\r\n", "illegal status line"),
    ],
)
def test_an_answer_that_is_cut_off_is_no_answer(rogue: Rogue, answer: bytes, words: str) -> None:
    rogue.manners = [says(answer)] * TRIES
    with pytest.raises(ServerUnavailable, match=f"The connection to the server was lost: {words}"):
        Transport(rogue.home, start=False).call("GET", "/x")


@pytest.mark.parametrize("answer", [b"", OK[:20], OK[:-1]])
def test_who_meets_a_dying_server_asks_again(rogue: Rogue, answer: bytes) -> None:
    """Whatever it does no harm to do twice, and no more often than that."""
    removed = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
    with contextlib.closing(Transport(rogue.home, start=False)) as transport:
        for method, may_repeat in (("GET", None), ("PUT", None), ("POST", True)):
            rogue.manners = [says(answer), says(OK)]
            assert transport.call(method, "/x", json={}, may_repeat=may_repeat) is True
        rogue.manners = [says(answer), says(removed)]
        assert transport.call("DELETE", "/x") is None  # the first request had removed it
        rogue.manners = [says(removed)]
        with pytest.raises(SpellError, match="404"):
            transport.call("DELETE", "/x")
        rogue.manners = [says(answer)]
        with pytest.raises(ConnectionLost):
            transport.call("POST", "/x", json={})
        assert not rogue.manners


def answered(status: str, value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


def test_who_hears_that_it_is_done_already_has_done_it(rogue: Rogue) -> None:
    """The answer was lost. But where the record does not say so, or no answer was lost, it was somebody else, or nobody."""
    twice = answered("409 Conflict", {"error": {"code": "conflict", "message": "It is over.", "cure": ""}})
    with contextlib.closing(Client(rogue.home, start=False)) as client:
        for act, done in (
            (lambda: client.runs.kill(1), {"wish": "kill", "state": "killed"}),
            (lambda: client.runs.stop(1), {"wish": "stop", "state": "stopped"}),
            (lambda: client.archive.add(1), {"archived": True}),
            (lambda: client.archive.remove(1), {"archived": False}),
            (lambda: client.searches.stop(1), {"wish": "stop", "trials": []}),
            (lambda: client.workflows.kill(1), {"wish": "kill", "steps": []}),
        ):
            rogue.manners = [says(b""), says(twice), says(answered("200 OK", FIELDS | done))]
            act()
            assert not rogue.manners
            other = answered("200 OK", FIELDS | done | {"wish": None, "archived": None})
            for refused in ([says(twice)], [says(b""), says(twice), says(other)]):
                rogue.manners = refused
                with pytest.raises(Conflict, match="It is over"):
                    act()
                assert not rogue.manners


def test_what_follows_an_answer_is_not_the_next_one(rogue: Rogue) -> None:
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse"
    rogue.manners = [says(OK + stray), says(OK)]
    transport = Transport(rogue.home, start=False)
    assert [transport.call("GET", "/x") for _ in range(2)] == [True] * 2
    assert rogue.connections == 2
    transport.close()


def test_a_server_that_says_nothing_is_given_up(rogue: Rogue) -> None:
    over = threading.Event()
    rogue.manners = [lambda connection: (heard(connection), over.wait(30))[0]]
    with pytest.raises(ServerUnavailable, match="does not answer"):
        Transport(rogue.home, start=False).call("GET", "/x", read_limit_s=0.1)
    over.set()


def test_a_refusal_is_heard_while_the_body_is_being_sent(rogue: Rogue) -> None:
    body = b'{"error": {"code": "conflict", "message": "enough", "cure": ""}}'
    refusal = b"HTTP/1.1 409 Conflict\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    rogue.manners = [says(refusal)]
    with pytest.raises(Conflict, match="enough"):
        Transport(rogue.home, start=False).call("PUT", "/x", content=(bytes(1 << 20) for _ in range(64)))


def test_who_interrupts_a_cast_is_told_where_to_look(rogue: Rogue, tmp_path: Path) -> None:
    is_asked, is_over = threading.Event(), threading.Event()

    def manner(connection: socket.socket) -> None:
        heard(connection)
        is_asked.set()
        is_over.wait(30)

    rogue.manners = [manner]
    with run_at(rogue, tmp_path) as process:
        assert is_asked.wait(30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    is_over.set()
    assert process.returncode == 130
    assert err.endswith("\nCheck whether it was cast: spell ps\n")


def test_who_loses_the_server_in_a_cast_is_told_where_to_look(rogue: Rogue, tmp_path: Path) -> None:
    rogue.manners = [says(b"")] * TRIES
    with run_at(rogue, tmp_path) as process:
        _, err = process.communicate(timeout=30)
    assert rogue.connections == TRIES
    assert process.returncode == 1
    assert "ERROR: The connection to the server was lost: it was closed before an answer came.\n" in err
    assert "Check whether it was cast: spell ps\n" in err


def run_at(rogue: Rogue, cwd: Path) -> subprocess.Popen[str]:
    """`spell run -b true` of a person whose server this is."""
    env = os.environ | {"SPELL_HOME": str(rogue.home.root)}
    words = [str(BIN / "spell"), "run", "--force", "-b", "true"]
    return subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailable, match="No server serves"):
        Transport(Home(tmp_path), start=False).call("GET", "/server")


def test_who_waits_for_the_latest_run_waits_for_one_run(rogue: Rogue) -> None:
    """Another run is cast meanwhile: each time that the server is asked for `latest`, it is the next one."""
    asked: list[bytes] = []
    numbers = iter(range(1, 10))

    def manner(connection: socket.socket) -> None:
        while line := heard(connection):
            asked.append(line.split()[1])
            if asked[-1] == b"/runs/latest":
                kind, body = b"application/json", json.dumps(RUN | {"number": next(numbers)}).encode()
            else:
                run = json.dumps(RUN | {"number": int(asked[-1].split(b"/")[2]), "state": "complete"})
                kind, body = b"text/event-stream", b"event: end\nid: 9.0.0\ndata: " + run.encode() + b"\n\n"
            head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
            connection.sendall(head + body)

    rogue.manners = [manner, manner]
    with Client(rogue.home, start=False) as client:
        assert client.runs.wait("latest", 30).number == 1
    assert asked[0] == b"/runs/latest" and asked[1].startswith(b"/runs/1/follow?") and len(asked) == 2


def test_lines_of_any_length(rogue: Rogue) -> None:
    pieces = [b"one\ntw", b"o\n", b"x" * 100_000, b"\n\nend"]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    rogue.manners = [says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)]
    answer = Transport(rogue.home, start=False).stream("GET", "/x")
    assert list(lines(answer)) == [b"one", b"two", b"x" * 100_000, b""]


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests here."""
    return make_shared("transport")


def test_many_threads_use_one_client(spell: Spell) -> None:
    number = spell.run("seq 100000").number
    transport = spell.client.transport

    def ask(_turn: int) -> int:
        assert transport.call("GET", f"/runs/{number}")["number"] == number
        return len(b"".join(chunks(transport.stream("GET", f"/runs/{number}/log"))))

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(200))) == {588_895}


def test_a_stream_that_is_left_is_not_read_by_the_next_request(spell: Spell) -> None:
    number = spell.run("seq 1000000").number
    for _ in range(5):
        spell.client.transport.stream("GET", f"/runs/{number}/log").close()
        assert spell.client.runs.get(str(number)).number == number


def test_a_new_server_is_found_by_an_old_client(spell: Spell) -> None:
    spell.run("true")
    spell.kill_server()
    assert spell.run("true").state == "complete"


def test_what_is_too_big_is_refused_with_words(spell: Spell) -> None:
    with pytest.raises(InvalidConfig, match="must have a Content-Length of at most"):
        spell.client.transport.call("POST", "/trees", content=(bytes(1 << 20) for _ in range(2000)))
