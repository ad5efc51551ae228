"""What a run says: stored byte for byte, followed from any offset, through whatever happens to server and connection."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
import pytest
from conftest import DEADLINE_S, Spell, wait_for

from orchestrator.client.client import Client
from orchestrator.client.follow import Followed
from orchestrator.content.log_pattern import LogPattern
from orchestrator.home import Home
from orchestrator.telemetry import log_search
from orchestrator.telemetry.logs import tail

CONFIG = "grace_s = 1\n[machine_types.cpu]\ncpus = 0.05\n"
SIGTERM_SAYS = "trap 'printf \"last words, no newline\"; exit 3' TERM"
DETACHED = """\
✨ Your run goes on without this terminal.
✨ Use 'spell stop {0}' to save outputs and stop your run.
✨ Use 'spell kill {0}' to terminate your run. All outputs will be lost.
✨ Use 'spell logs -f {0}' to view logs again
"""


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that all tests share."""
    return make_shared(config=CONFIG)


@pytest.fixture
def own(make_spell: Callable[..., Spell]) -> Spell:
    """A home whose server may be killed."""
    return make_spell(config=CONFIG)


def raw(spell: Spell, *words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run `spell WORDS…`; its output as bytes."""
    with spell.popen(*words) as process:
        out, err = process.communicate(timeout=DEADLINE_S * 2)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def followed(items: Iterator[Followed], until: Callable[[bytes], bool] = lambda said: False) -> bytes:
    """What a followed run says until its end, or until enough was said."""
    said = b""
    for item in items:
        said += item.data if item.kind == "log" else b""
        if item.kind == "end" or until(said):
            return said
    raise AssertionError("a stream ends with its end")


# -- F20: every byte, up to the last -------------------------------------------------------------------------------

LINE = b"x" * (1 << 20)
SAYINGS = {
    "nothing": ("true", b""),
    "no newline at the end": ("printf 'a\\nb'", b"a\nb"),
    "only newlines": ("printf '\\n\\n\\n'", b"\n\n\n"),
    "progress bar": ("printf '1%%\\r2%%\\r3%%\\r\\n4%%\\r'", b"1%\r2%\r3%\r\n4%\r"),
    "invalid UTF-8": (r"printf '\xff\xfe ok \xc3\x28 \xed\xa0\x80\n\x80'", b"\xff\xfe ok \xc3\x28 \xed\xa0\x80\n\x80"),
    "control characters": (r"printf '\x00\x01\x1b[31mred\x1b[0m\x07\x7f\n'", b"\x00\x01\x1b[31mred\x1b[0m\x07\x7f\n"),
    "unicode": ("printf 'жук 🪲 é\\n'", "жук 🪲 é\n".encode()),
    "event stream": ("printf 'event: end\\ndata: {}\\n\\n: \\n\\n'", b"event: end\ndata: {}\n\n: \n\n"),
    "1 MB line": ("head -c 1048576 /dev/zero | tr '\\0' x; echo; echo after", LINE + b"\nafter\n"),
    "both streams": ("echo out; echo err >&2; echo out again", b"out\nerr\nout again\n"),
}


@pytest.mark.parametrize("name", SAYINGS)
def test_f20_log_is_byte_exact(spell: Spell, name: str) -> None:
    command, said = SAYINGS[name]
    number = spell.run(command).number
    assert spell.log(number) == said
    assert followed(spell.client.runs.follow(str(number))) == said
    shown = raw(spell, "logs", str(number))
    assert (shown.returncode, shown.stdout) == (0, said)
    assert raw(spell, "logs", "-f", str(number)).stdout == said


@pytest.mark.parametrize("name", ["no newline at the end", "progress bar", "invalid UTF-8", "1 MB line"])
def test_f20_foreground_run_shows_every_byte(spell: Spell, name: str) -> None:
    command, said = SAYINGS[name]
    done = raw(spell, "run", "-f", command)
    before, _, after = done.stdout.partition("✨ Run is running\n".encode())
    assert before.endswith("✨ Building… done\n".encode())
    shown = after.partition("✨ Saving… done\n".encode())[0]
    assert shown == said + (b"" if said.endswith(b"\n") else b"\n"), "what spell says begins on a line of its own"


@pytest.mark.parametrize(
    ("ending", "last"),
    [("exit 3", b"a\nb"), ("kill -9 $$", b"a\nb"), ("kill -SEGV $$", b"a\nb"), ("exec true", b"a\nb")],
)
def test_f20_last_line_before_the_end(spell: Spell, ending: str, last: bytes) -> None:
    number = spell.run(f"ulimit -c 0; printf 'a\\nb'; {ending}").number
    assert spell.log(number) == last
    assert followed(spell.client.runs.follow(str(number))) == last


def log_of_a_run_that_is_ended(spell: Spell, verb: str) -> tuple[int, bytes]:
    """Number and log of a run that speaks before and at TERM; checked against what a follower saw of it."""
    number = spell.cast(f"{SIGTERM_SAYS}; printf 'partial'; while :; do read -t 0.02 < <(sleep 1); done")
    spell.says(number, b"partial")
    said: list[bytes] = []
    follower = threading.Thread(target=lambda: said.append(followed(spell.client.runs.follow(str(number)))))
    follower.start()
    getattr(spell.client.runs, verb)(str(number))
    spell.ended(number)
    follower.join(DEADLINE_S)
    log = spell.log(number)
    assert log.startswith(b"partial")
    assert log.endswith(b"last words, no newline") == (verb == "stop")
    assert said == [log]
    return number, log


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_f20_last_line_before_stop_and_kill(spell: Spell, verb: str) -> None:
    """What was said before the stop request is there; after a stop also the last words, said at TERM."""
    number, log = log_of_a_run_that_is_ended(spell, verb)
    assert raw(spell, "logs", str(number)).stdout == log


def test_f20_every_byte_comes_before_the_next_state(spell: Spell) -> None:
    number = spell.run("head -c 3000000 /dev/urandom").number
    order = [(item.kind, item.event.state if item.event else "") for item in spell.client.runs.follow(str(number))]
    states = [state for kind, state in order if kind == "state"]
    assert states == ["machine_requested", "building", "running", "saving", "pushing", "complete"]
    logs = [position for position, (kind, _) in enumerate(order) if kind == "log"]
    assert order.index(("state", "running")) < min(logs) and max(logs) < order.index(("state", "saving"))


def test_f20_several_processes_write_whole_lines(spell: Spell) -> None:
    writer = "for i in $(seq 200); do echo $1-$i-end; done"
    command = f"cat > w.sh <<'END'\n{writer}\nEND\nfor n in 1 2 3 4; do bash w.sh $n & done; wait"
    lines = spell.log(spell.run(command).number).decode().splitlines()
    assert sorted(lines) == sorted(f"{n}-{i}-end" for n in range(1, 5) for i in range(1, 201))


# -- F21: a follower survives --------------------------------------------------------------------------------------

COUNTING = "i=0; while [ ! -e $GO ]; do echo line $i; i=$((i+1)); sleep 0.005; done; printf 'the end'"


def test_f21_follower_survives_a_killed_server(own: Spell, tmp_path: Path) -> None:
    number = own.cast(COUNTING, env={"GO": str(tmp_path / "go")})
    own.says(number, b"line 5\n")
    follower = own.popen("logs", "-f", str(number))
    assert follower.stdout is not None
    heard = bytearray()
    reader = threading.Thread(target=lambda: heard.extend(follower.stdout.read()))
    heard += follower.stdout.read(30)
    reader.start()
    for _ in range(2):
        own.kill_server()
        size = len(own.log(number))
        assert own("ps").code == 0  # starts another one
        wait_for(lambda size=size: len(own.log(number)) > size + 100, "the run goes on")
        assert follower.poll() is None, "it gave up while the run is alive"
    (tmp_path / "go").touch()
    run = own.ended(number)
    reader.join(DEADLINE_S)
    assert follower.wait(DEADLINE_S) == 0
    assert run.state == "complete"
    assert bytes(heard) == own.log(number), "every byte, and each once"
    assert own.log(number).endswith(b"the end")
    assert follower.stderr is not None
    assert f"Run {number} complete" in follower.stderr.read().decode()
    follower.stdout.close()
    follower.stderr.close()


def test_f21_foreground_run_survives_a_killed_server(own: Spell, tmp_path: Path) -> None:
    shown = (tmp_path / "shown").open("wb")
    command = COUNTING.replace("$GO", str(tmp_path / "go")) + "; exit 6"
    process = own.popen("run", "-f", command, stdout=shown, stderr=subprocess.DEVNULL)
    wait_for(lambda: b"line 5\n" in (tmp_path / "shown").read_bytes(), "the run's first lines")
    own.kill_server()
    size = len(own.log(1))
    wait_for(lambda: len(own.log(1)) > size + 100, "the run goes on")
    (tmp_path / "go").touch()
    assert process.wait(DEADLINE_S) == 6
    shown.close()
    text = (tmp_path / "shown").read_bytes()
    assert own.log(1) in text
    assert text.count(b"line 5\n") == 1
    assert "💥 Run 1 failed: the command ended with exit code 6".encode() in text


class Cutter:
    """A Unix socket before the server's own, which cuts every connection after so many bytes of answer."""

    def __init__(self, home: Home, path: Path, limit: int) -> None:
        self.limit, self.cuts, self._server = limit, 0, str(home.socket)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self.listening.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        left = self.limit
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._server)
            while True:
                ready = select.select([client, server], [], [])[0]
                if client in ready:
                    asked = client.recv(65536)
                    if not asked:
                        return
                    server.sendall(asked)
                if server in ready:
                    answer = server.recv(min(left, 65536))
                    if not answer:
                        return
                    client.sendall(answer)
                    left -= len(answer)
                    if left <= 0:
                        self.cuts += 1
                        return


class Elsewhere(Home):
    """The same home, with its socket in another place."""

    place = Path()

    @property
    def socket(self) -> Path:
        return self.place


@pytest.fixture
def cut(spell: Spell, tmp_path: Path) -> Iterator[Callable[[int], tuple[Client, Cutter]]]:
    """Makes a client whose connections are cut after so many bytes."""
    with contextlib.ExitStack() as ends:

        def make(limit: int) -> tuple[Client, Cutter]:
            assert spell("server", "start").code == 0
            home = Elsewhere(spell.home.root)
            home.place = tmp_path / "s"
            cutter = Cutter(spell.home, home.place, limit)
            ends.callback(cutter.listening.close)
            return ends.enter_context(Client(home, start=False)), cutter

        yield make


def test_f21_dropped_connections_lose_and_repeat_nothing(
    spell: Spell, cut: Callable[[int], tuple[Client, Cutter]], tmp_path: Path
) -> None:
    """Cut at any place of a frame, again and again, while the run goes on."""
    number = spell.cast(COUNTING.replace("echo line $i", "printf '%s \\r' $i"), env={"GO": str(tmp_path / "go")})
    client, cutter = cut(1_500)
    items = []
    for item in client.runs.follow(str(number)):
        items.append(item)
        if cutter.cuts >= 4:
            (tmp_path / "go").touch()
    assert b"".join(item.data for item in items if item.kind == "log") == spell.log(number)
    states = [item.event.state for item in items if item.event]
    assert states == ["machine_requested", "building", "running", "saving", "pushing", "complete"]
    assert [item.kind for item in items].count("end") == 1


def test_f21_dropped_connections_in_a_big_log(spell: Spell, cut: Callable[[int], tuple[Client, Cutter]]) -> None:
    number = spell.run("head -c 3000000 /dev/urandom").number
    client, cutter = cut(600_000)
    assert followed(client.runs.follow(str(number))) == spell.log(number)
    assert cutter.cuts >= 5


def test_f21_follower_resumes_at_its_offset(spell: Spell) -> None:
    number = spell.run("seq 100; printf tail").number
    items = list(spell.client.runs.follow(str(number)))
    for position, item in enumerate(items[:-1]):
        rest = list(spell.client.runs.follow(str(number), item.position))
        assert [(one.kind, one.data) for one in rest] == [(one.kind, one.data) for one in items[position + 1 :]]
    again = dataclasses.replace(items[-1].position, log=100)
    assert followed(spell.client.runs.follow(str(number), again)) == spell.log(number)[100:]


def test_f21_wait_survives_a_killed_server(own: Spell, tmp_path: Path) -> None:
    number = own.cast("while [ ! -e $GO ]; do sleep 0.02; done; exit 7", env={"GO": str(tmp_path / "go")})
    own.reaches(number, "running")
    waiting = own.popen("wait", str(number))
    own.kill_server()
    assert own("ps").code == 0
    assert waiting.poll() is None
    (tmp_path / "go").touch()
    out, _ = waiting.communicate(timeout=DEADLINE_S)
    assert waiting.returncode == 7
    assert f"Run {number} failed" in out.decode()


# -- F22: ^C only detaches -----------------------------------------------------------------------------------------


def _interrupted(own: Spell, tmp_path: Path, *, terminal_group: bool) -> tuple[str, str]:
    """What a foreground run shows that is interrupted; it starts the server, as a person's first command does."""
    out, err = tmp_path / "out", tmp_path / "err"
    command = (
        f"for i in 1 2 3; do echo said $i; done; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo late; exit 9"
    )
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = own.popen("run", "-f", command, stdout=stdout, stderr=stderr, start_new_session=True)
    wait_for(lambda: b"said 3\n" in out.read_bytes(), "the run's first lines")
    if terminal_group:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything in the foreground
    else:
        process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 130
    return out.read_text(), err.read_text()


@pytest.mark.parametrize("terminal_group", [False, True])
def test_f22_interrupt_only_detaches(own: Spell, tmp_path: Path, terminal_group: bool) -> None:
    out, err = _interrupted(own, tmp_path, terminal_group=terminal_group)
    assert out.endswith("said 3\n\n" + DETACHED.format(1)), out
    assert "Traceback" not in err
    run = own.client.runs.get("1")
    assert (run.state, run.wish) == ("running", None)
    (tmp_path / "go").touch()
    assert own.ended(1).exit_code == 9
    assert own("logs", "1").out == "said 1\nsaid 2\nsaid 3\nlate\n"


def test_f22_interrupt_of_logs_only_detaches(spell: Spell, tmp_path: Path) -> None:
    number = spell.cast("echo said; while [ ! -e $GO ]; do sleep 0.02; done", env={"GO": str(tmp_path / "go")})
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = spell.popen("logs", "-f", str(number), stdout=stdout, stderr=stderr)
    wait_for(lambda: out.read_bytes() == b"said\n", "what it said")
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 130
    assert out.read_bytes() == b"said\n", "standard output holds the run's own words only"
    assert err.read_text().endswith(DETACHED.format(number))
    assert spell.client.runs.get(str(number)).state == "running"
    (tmp_path / "go").touch()
    assert spell.ended(number).state == "complete"


def test_f22_several_clients_see_the_same_log(spell: Spell, tmp_path: Path) -> None:
    number = spell.cast(
        "seq 500; while [ ! -e $GO ]; do sleep 0.02; done; printf late", env={"GO": str(tmp_path / "go")}
    )
    early = [spell.popen("logs", "-f", str(number)) for _ in range(2)]
    spell.says(number, b"500\n")
    late = spell.popen("logs", "-f", str(number), bufsize=0)
    assert late.stdout is not None
    first = late.stdout.read(4)
    (tmp_path / "go").touch()
    heard = [process.communicate(timeout=DEADLINE_S)[0] for process in early]
    rest = late.communicate(timeout=DEADLINE_S)[0]
    assert heard == [spell.log(number)] * 2
    assert first + rest == spell.log(number)
    assert spell.log(number).endswith(b"500\nlate")
    assert [process.returncode for process in (*early, late)] == [0, 0, 0]


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)])
def test_f22_foreground_run_exits_as_its_command(spell: Spell, command: str, code: int) -> None:
    assert spell("run", "-f", command).code == code
    assert spell("run", "-f", "--json", command).code == code


# -- spell logs ----------------------------------------------------------------------------------------------------


def test_logs_of_a_running_run_end_at_once(spell: Spell) -> None:
    number = spell.cast("printf 'so far'; sleep 1000")
    spell.says(number, b"so far")
    shown = raw(spell, "logs", str(number))
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"so far", b"")
    spell.client.runs.kill(str(number))
    spell.ended(number)


def test_logs_of_a_queued_run(spell: Spell, make_spell: Callable[..., Spell]) -> None:
    own = make_spell(config=f"[machine_types.cpu]\ncpus = {len(os.sched_getaffinity(0))}")
    first = own.cast("sleep 1000")
    second = own.cast("echo hello")
    own.reaches(first, "running")
    assert raw(own, "logs", str(second)).stdout == b""
    follower = own.popen("logs", "-f", str(second))
    own.client.runs.kill(str(first))
    out, err = follower.communicate(timeout=DEADLINE_S)
    assert (out, follower.returncode) == (b"hello\n", 0)
    assert "Run is running" in err.decode()


def test_logs_say_how_a_run_ended_on_standard_error(spell: Spell) -> None:
    number = spell.run("echo said; exit 3").number
    shown = raw(spell, "logs", str(number))
    assert shown.stdout == b"said\n"
    assert f"Run {number} failed: the command ended with exit code 3" in shown.stderr.decode()


def test_logs_of_what_is_not_there(spell: Spell) -> None:
    done = spell("logs", "9999")
    assert (done.code, done.out) == (1, "")
    assert "There is no run '9999'" in done.err


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 4, 100])
@pytest.mark.parametrize(
    "command", ["printf 'a\\nb\\nc\\n'", "printf 'a\\nb\\nc'", "printf '\\n\\n\\n'", "true", "printf x"]
)
def test_logs_last_lines(spell: Spell, command: str, lines: int) -> None:
    number = _said(spell, command)
    whole = spell.log(number)
    expected = b"".join(whole.splitlines(keepends=True)[-lines:] if lines else [])
    assert spell.client.logs.get(str(number), lines).read() == expected


_numbers: dict[tuple[int, str], int] = {}


def _said(spell: Spell, command: str) -> int:
    """The number of a run of this command; it is cast once."""
    key = (id(spell), command)
    if key not in _numbers:
        _numbers[key] = spell.run(command).number
    return _numbers[key]


def test_logs_last_lines_on_the_command_line(spell: Spell) -> None:
    number = spell.run("seq 10; printf '11\\r12'").number
    assert raw(spell, "logs", "-n", "2", str(number)).stdout == b"10\n11\r12"
    assert raw(spell, "logs", "-n", "0", str(number)).stdout == b""
    assert raw(spell, "logs", "-f", "-n", "1", str(number)).stdout == b"11\r12"
    assert spell("logs", "-n", "-1", str(number)).code == 2


def test_logs_last_lines_then_what_follows(spell: Spell, tmp_path: Path) -> None:
    number = spell.cast("seq 50; while [ ! -e $GO ]; do sleep 0.02; done; seq 51 60", env={"GO": str(tmp_path / "go")})
    spell.says(number, b"50\n")
    follower = spell.popen("logs", "-f", "-n", "2", str(number), bufsize=0)
    assert follower.stdout is not None
    assert follower.stdout.read(6) == b"49\n50\n"
    (tmp_path / "go").touch()
    assert follower.communicate(timeout=DEADLINE_S)[0] == b"".join(b"%d\n" % i for i in range(51, 61))


def _tail(path: Path, lines: int | None, end: int | None = None) -> bytes:
    return b"".join(tail(path, lines, path.stat().st_size if end is None else end))


def test_tail_over_the_edges_of_blocks(tmp_path: Path) -> None:
    """The file is read backwards, a mebibyte at a time: lines that begin or end just there are found."""
    block, path = 1 << 20, tmp_path / "log"
    for shift in (-2, -1, 0, 1, 2):
        path.write_bytes(b"first\n" + b"y" * (block + shift) + b"\n" + b"z" * (block - 2) + b"\nlast\n")
        whole = path.read_bytes().splitlines(keepends=True)
        for lines in range(6):
            assert _tail(path, lines) == b"".join(whole[-lines:] if lines else [])
        assert _tail(path, None) == path.read_bytes()


def test_tail_ends_where_it_is_told(tmp_path: Path) -> None:
    """What is written meanwhile comes later, from that offset on."""
    path = tmp_path / "log"
    path.write_bytes(b"1\n2\n3\n4\n")
    assert _tail(path, None, 4) == b"1\n2\n"
    assert _tail(path, 1, 4) == b"2\n"
    assert _tail(path, 1, 5) == b"3"
    assert _tail(path, 5, 0) == b""
    assert b"".join(tail(path, 2, 5, 3)) == b"2\n3"


def test_f23_followers_of_a_big_log_do_not_fill_the_servers_memory(own: Spell) -> None:
    """100 MB of log: what the server holds of it at any time is bounded by its blocks."""
    number = own.run("yes 'a line of some forty characters, or so it is' | head -c 100000000").number
    server = psutil.Process(own.server_pid)
    before = server.memory_info().rss
    size = 0
    for item in own.client.runs.follow(str(number)):
        size += len(item.data) if item.kind == "log" else 0
    assert size == 100_000_000
    assert own.client.logs.get(str(number), 2).read().count(b"\n") >= 1
    assert server.memory_info().rss - before < 50 << 20


# -- looked for --------------------------------------------------------------------------------------------------------


def naive(
    data: bytes, expression: bytes, start: int, last: int | None, around: int
) -> list[tuple[int, int, int, bool]]:
    """What `search` should find, by the simplest means."""
    pieces, line, at = [], 1, 0
    for end in re.finditer(rb"\r\n|\r|\n", data):
        pieces.append((line, at, end.start() - at))
        line, at = line + end[0].count(b"\n"), end.end()
    pieces += [(line, at, len(data) - at)] if at < len(data) else []
    hits = [i for i, (_, at, size) in enumerate(pieces) if at >= start and re.search(expression, data[at : at + size])]
    hits = hits if last is None else hits[max(0, len(hits) - last) :]
    shown = {near for hit in hits for near in range(hit - around, hit + around + 1) if 0 <= near < len(pieces)}
    return [(*pieces[place], place in hits) for place in sorted(shown) if pieces[place][1] >= start]


def test_a_search_finds_what_a_simple_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In logs of lines, progress bars and both, at every boundary of blocks, from either end."""
    random, path = Random(5), tmp_path / "log"
    words = [b"a", b"b", b"ab", b"xyz", b"", b"\n", b"\n", b"\r", b"\r\n"]
    wanted = {"ab": b"ab", "/^a/": b"^a", "/b$/": rb"b\Z", "/a.*B/i": b"(?i)a.*B", "/^$/": rb"^\Z", r"/a\sb/": rb"a\tb"}
    for _ in range(400):
        data = b"".join(random.choices(words, k=random.randrange(120)))
        path.write_bytes(data)
        longest = max(map(len, re.split(rb"[\r\n]", data)))
        monkeypatch.setattr(log_search, "_BLOCK_BYTES", random.choice([longest + 3, 64 + longest, 1000]))
        monkeypatch.setattr(log_search, "_FIRST_BYTES", random.choice([8, 1024]))
        start = log_search.aligned(path, random.choice([0, random.randrange(len(data) + 1)]), len(data))
        start = start if data[start - 1 : start] in (b"\n", b"\r") else 0
        text, last, around = random.choice(list(wanted)), random.choice([None, 0, 1, 5]), random.choice([0, 0, 1, 3])
        found = log_search.search(
            path, tmp_path / "none", LogPattern(text), log_search.Wanted(last, around), (start, len(data))
        )
        simple = naive(data, wanted[text], start, last, around)
        assert [(line.line, line.offset, line.size, line.is_hit) for line in found] == simple, (data, text, start, last)


def test_lines_around_hits_are_not_read_again_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"a line with number %d\n" % number for number in range(5000)))
    size, read, pread = path.stat().st_size, [0], os.pread

    def counting(fd: int, count: int, offset: int) -> bytes:
        read[0] += count
        return pread(fd, count, offset)

    monkeypatch.setattr(os, "pread", counting)
    for text, hits, around in (("line", 5000, 1), ("line", 5000, 50), ("/[05]$/", 1000, 1), ("/99$/", 50, 2)):
        read[0] = 0
        wanted = log_search.Wanted(None, around)
        found = list(log_search.search(path, tmp_path / "none", LogPattern(text), wanted, (0, size)))
        assert sum(item.is_hit for item in found) == hits
        assert read[0] < 8 * size + (64 << 10), f"{text} with {around} around reads {read[0] / size:.0f} times the log"


def test_a_search_passes_over_the_hole_of_a_long_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"one\ntwo\n")
        file.seek(64 << 20)
        file.write(b"\nthree\n")
    end = path.stat().st_size
    shown = b"".join(tail(path, None, end)).splitlines()
    for last in (None, 5):
        found = log_search.search(path, tmp_path / "none", LogPattern("/^t/"), log_search.Wanted(last), (0, end))
        numbers = {line.text: line.line for line in found}
        assert list(numbers) == ["two", "three"] and shown[numbers["two"] - 1] == b"two"


def test_lines_that_are_looked_for(spell: Spell) -> None:
    script = (
        r"""for i in 1 2 3; do echo "row $i"; done; printf '\r10%% loss=0.5\r20%% loss=0.25\n'; echo 'error: NaN /x/'"""
    )
    number = str(spell.run(script).number)

    def said(*words: str) -> tuple[int, list[str]]:
        done = spell("logs", number, *words)
        return done.code, done.out.splitlines()

    assert said("--search", "row") == (0, ["1:row 1", "2:row 2", "3:row 3"])
    assert said("-s", "row", "-n", "1", "-C", "1") == (0, ["2-row 2", "3:row 3", "4-"])
    assert said("-s", r"/loss=0\.2\d/") == (0, ["4:20% loss=0.25"]), "of a progress bar one state"
    assert said("-s", "/nan/i") == (0, ["5:error: NaN /x/"])
    code, (line,) = said("-s", "NaN", "-t", "--since", "1h")
    assert code == 0 and re.fullmatch(r"\d{4}-.*Z 5:error: NaN /x/", line)
    assert said("-s", "row", "--since", "2099-01-01") == (1, [])
    assert said("--since", "2099-01-01") == (0, []) and len(said("--since", "1h")[1]) == 7
    assert said("--since", "1h", "-n", "1") == (0, ["error: NaN /x/"])
    assert said("-f", "-s", "row 2") == (0, ["row 2"])
    refused = spell("logs", number, "-s", r"/(a)\1/")
    assert refused.code == 3 and r"/(a)\1/ is not a regular expression" in refused.err and "grep -P" in refused.err
    assert spell("logs", number, "-C", "2").code == 3


def test_what_comes_is_looked_for_too(spell: Spell, tmp_path: Path) -> None:
    """An expression that takes for ever in Python ends at once."""
    gate = tmp_path / "gate"
    hard = "echo " + "a" * 5000 + "b"
    number = spell.cast(f"echo first x; {hard}; while [ ! -e {gate} ]; do sleep 0.05; done; echo no; printf 'last x'")
    spell.says(number, b"first")
    assert spell("logs", str(number), "-s", "/^(a+)+$/").code == 1
    with spell.popen("logs", "-f", str(number), "-s", "/ x$/", stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"first x\n"
        gate.touch()
        assert process.stdout.read() == b"last x\n"
    assert process.returncode == 0
