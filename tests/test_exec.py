"""`spell exec`: a command or a shell beside a running run, with its streams, its terminal and its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from conftest import BIN, Spell, bearing, wait_for
from engines import TEST_IMAGE, need_engine
from terminal import Terminal, uses_a_shell
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from orchestrator.cli.main import spell as group
from orchestrator.engine import Engine
from orchestrator.errors import Conflict, InvalidConfig, NotFound
from orchestrator.executors.docker.exec import DockerExec
from orchestrator.home import Home
from orchestrator.machine import detect
from orchestrator.records import API_VERSION
from orchestrator.server.exec import WINDOW_BYTES

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GREETING": "hello there"}


# -- an exec in a plain container -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The engine of this machine."""
    need_engine()
    return Engine(Home(tmp_path_factory.mktemp("engine")))


@pytest.fixture(scope="module")
def container(engine: Engine) -> Iterator[str]:
    """A container that does nothing."""
    name = f"spell-test-exec-{uuid.uuid4().hex[:8]}"
    engine.api.create_container(
        TEST_IMAGE,
        ["sleep", "600"],
        name=name,
        host_config=engine.api.create_host_config(init=True, network_mode="none"),
    )
    engine.api.start(name)
    yield name
    engine.remove(name)


@pytest.fixture
def begin(engine: Engine, container: str) -> Iterator[Callable[..., DockerExec]]:
    """Starts commands in it; they are closed at the end."""
    begun = []

    def start(*command: str, terminal: bool = False, env: dict[str, str] | None = None) -> DockerExec:
        running = DockerExec(engine, container, command, ENV | (env or {}), "/tmp", terminal=terminal)
        begun.append(running)
        return running

    yield start
    for running in begun:
        running.close()


def said(running: DockerExec) -> tuple[bytes, bytes, int]:
    """All that it says, and how it ended."""
    streams = {1: b"", 2: b""}
    for channel, data in running.read():
        streams[channel] += data
    return streams[1], streams[2], running.exit_code()


def test_an_exec_has_environment_folder_user_and_two_streams(begin: Callable[..., DockerExec]) -> None:
    script = 'echo "$GREETING"; pwd; id -u; echo aside >&2; exit 7'
    assert said(begin("sh", "-c", script)) == (f"hello there\n/tmp\n{os.getuid()}\n".encode(), b"aside\n", 7)


def test_one_word_is_a_line_for_bash_and_none_is_the_shell(begin: Callable[..., DockerExec]) -> None:
    assert said(begin("echo $((6 * 7)) ${BASH_VERSION:0:1} | cat")) == (b"42 5\n", b"", 0)
    shell = begin()
    shell.write(b"echo ${BASH_VERSION:+bash}; exit 3\n")
    assert said(shell) == (b"bash\n", b"", 3)


def test_what_cannot_be_started_says_so(begin: Callable[..., DockerExec]) -> None:
    out, err, code = said(begin("no-such-program", "x"))
    assert (out, code) == (b"", 127)
    assert b"no-such-program" in err and b"OCI" not in err


def test_the_end_of_input_reaches_the_command(begin: Callable[..., DockerExec]) -> None:
    data = os.urandom(5 << 20)
    running = begin("cat", "-")

    def type_all() -> None:
        for start in range(0, len(data), 100_000):
            running.write(data[start : start + 100_000])
        running.write(b"")

    typist = threading.Thread(target=type_all)
    typist.start()
    out, err, code = said(running)
    typist.join()
    assert (out == data, err, code) == (True, b"", 0)


def test_much_and_fast_output_is_whole(begin: Callable[..., DockerExec]) -> None:
    for _ in range(10):
        out, err, code = said(begin("sh", "-c", "printf begun; head -c 300000 /dev/zero; printf done >&2"))
        assert (out[:5], len(out), err, code) == (b"begun", 300_005, b"done", 0)


def test_a_terminal_has_a_size_and_one_stream(begin: Callable[..., DockerExec]) -> None:
    running = begin("sh", "-c", "while read line; do stty size; done; test -t 2; echo $? >&2", terminal=True)
    running.resize(123, 45)
    running.write(b"\n")
    output = iter(running.read())
    seen = b""
    while b"45 123" not in seen:
        channel, data = next(output)
        seen += data
        assert channel == 1
    running.resize(77, 11)
    running.write(b"\n\x04")
    rest = b"".join(data for _, data in output)
    assert b"11 77" in rest and rest.endswith(b"0\r\n")
    assert running.exit_code() == 0


def test_a_terminal_has_its_size_from_the_start(begin: Callable[..., DockerExec]) -> None:
    for _ in range(5):
        running = begin("stty", "size", terminal=True)
        running.resize(91, 24)
        assert said(running) == (b"24 91\r\n", b"", 0)


def test_keys_that_detach_docker_reach_the_command_at_once(begin: Callable[..., DockerExec]) -> None:
    running = begin("sh", "-c", "stty raw -echo; printf ready; head -c 2 | od -An -tx1; exit 5", terminal=True)
    output = iter(running.read())
    assert next(output) == (1, b"ready")
    running.write(b"\x10")
    running.write(b"\x11")
    assert b"10 11" in b"".join(data for _, data in output)
    assert running.exit_code() == 5


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_lingers_when_nobody_listens_any_more(
    begin: Callable[..., DockerExec], token: str, terminal: bool
) -> None:
    script = f"trap '' HUP TERM; (setsid sleep {token} >/dev/null 2>&1 &); echo up; while :; do sleep {token}; done"
    running = begin("sh", "-c", script, terminal=terminal)
    assert next(running.read())[1].strip() == b"up"
    wait_for(lambda: len(bearing(token)) >= 3, "its processes")
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 5
    wait_for(lambda: not bearing(token), "the end of all its processes")


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("words", [["env", "-i", "/bin/sleep"], ["exec env -i /bin/sleep"]])
def test_nothing_lingers_that_has_forgotten_where_it_came_from(
    begin: Callable[..., DockerExec], token: str, words: list[str], terminal: bool
) -> None:
    running = begin(*([*words, token] if len(words) > 1 else [f"{words[0]} {token}"]), terminal=terminal)
    bare = ["/bin/sleep", token]
    wait_for(lambda: any(process.info["cmdline"] == bare for process in psutil.process_iter(["cmdline"])), "it")
    running.close()
    wait_for(lambda: not bearing(token), "the end of all its processes")


def test_what_an_exec_leaves_behind_on_purpose_stays(begin: Callable[..., DockerExec], token: str) -> None:
    running = begin("sh", "-c", f"setsid sleep {token} </dev/null >/dev/null 2>&1 & exit 0")
    assert said(running)[2] == 0
    running.close()
    left = wait_for(lambda: bearing(token), "what it left")
    for pid in left:
        os.kill(pid, 9)


def test_a_container_that_is_gone(engine: Engine) -> None:
    with pytest.raises(Conflict, match="No command can be started in its container now: No such container"):
        DockerExec(engine, "spell-no-such-container", ["true", "x"], {}, "/", terminal=False)


def test_the_end_of_the_container_ends_an_exec(engine: Engine) -> None:
    name = f"spell-test-exec-{uuid.uuid4().hex[:8]}"
    engine.api.create_container(TEST_IMAGE, ["sleep", "600"], name=name)
    try:
        engine.api.start(name)
        running = DockerExec(engine, name, ["sh", "-c", "echo up; sleep 600"], ENV, "/", terminal=False)
        assert next(running.read()) == (1, b"up\n")
        engine.remove(name)
        assert said(running) == (b"", b"", 137)
        running.close()
    finally:
        engine.remove(name)


# -- spell exec -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(make_shared: Callable[..., Spell], engine: Engine) -> Spell:
    """A home whose runs are containers, with one that goes on."""
    types = f"[machine_types.small]\ncpus = 0.1\n[machine_types.whole]\ncpus = {detect().cpus:g}\n"
    spell = make_shared("exec", config=types, docker=True)
    number = spell.cast("echo up; sleep 1000", name="sleeper", env={"COLOUR": "green"})
    spell.says(number, b"up")
    return spell


def test_a_command_sees_what_the_run_sees(home: Spell) -> None:
    done = home("exec", "sleeper", "echo $COLOUR $SPELL_RUN; pwd; which python; echo aside >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "green 1\n/spell\n/opt/spell/layer/bin/python\n", "aside\n")
    code = "import os, sys; print(os.environ['COLOUR'], sys.argv[1:])"
    assert home("exec", "1", "python", "-c", code, "-x", "a b").out == "green ['-x', 'a b']\n"
    assert home("exec", "1", "--", "ls", "-d", "/").out == "/\n"


def test_input_between_pipes(home: Spell) -> None:
    data = os.urandom(4 << 20)
    command = [str(BIN / "spell"), "exec", "1", "cat", "-"]
    done = subprocess.run(command, env=home.env, input=data, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")
    shell = subprocess.run(command[:3], env=home.env, input=b"echo $COLOUR\nexit 9\n", capture_output=True, check=False)
    assert (shell.returncode, shell.stdout) == (9, b"green\n")


def test_output_into_a_closed_pipe(home: Spell, token: str) -> None:
    line = f"{BIN}/spell exec 1 'yes {token}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=home.env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{token}\n141\n", "")
    wait_for(lambda: not bearing(token), "the end of the command")


def test_a_shell_on_a_terminal(home: Spell) -> None:
    script = f"before=$(stty -g); {BIN}/spell exec 1; code=$?; [ $before = $(stty -g) ] && echo same $code"
    with Terminal(["sh", "-c", script], home.cwd, home.env, columns=91) as terminal:
        terminal.sees("run-1:/spell")  # the prompt
        terminal.type("stty size; echo $((40 + 2))-$COLOUR-$TERM\r")
        uses_a_shell(terminal, "run-1:/spell")


def test_the_terminal_is_restored_when_we_are_asked_to_end(home: Spell, token: str) -> None:
    script = f"before=$(stty -g); {BIN}/spell exec 1 'echo u''p; sleep {token}'; code=$?; [ $before = $(stty -g) ] && echo same $code"
    with Terminal(["sh", "-c", script], home.cwd, home.env) as terminal:
        terminal.sees("up")
        ours = [child for child in psutil.Process(terminal._process.pid).children() if "exec" in child.cmdline()]
        ours[0].terminate()
        terminal.sees("same 143")
        assert terminal.ends() == 0
    wait_for(lambda: not bearing(token), "the end of the command")


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
@pytest.mark.parametrize("command", ["trap '' INT HUP TERM; sleep {}", "exec sleep {}"])
def test_nothing_lingers_when_the_client_is_gone(home: Spell, token: str, command: str, sign: int, code: int) -> None:
    client = home.popen("exec", "1", f"echo up; {command.format(token)}", stdin=subprocess.PIPE)
    assert client.stdout is not None and client.stdout.readline() == b"up\n"
    wait_for(lambda: len(bearing(token)) > 1, "the command")
    client.send_signal(sign)
    assert client.wait(10) == code
    client.communicate()
    wait_for(lambda: not bearing(token), "the end of the command")


def test_a_command_that_does_not_read_holds_up_who_types_and_nothing_else(home: Spell, token: str) -> None:
    line = f"cat /dev/zero | {BIN}/spell exec 1 'echo up; sleep {token}'"
    client = subprocess.Popen(["bash", "-c", line], env=home.env, stdout=subprocess.PIPE, start_new_session=True)
    assert client.stdout is not None and client.stdout.readline() == b"up\n"
    server = psutil.Process(home.server_pid)
    cat = next(child for child in psutil.Process(client.pid).children() if child.name() == "cat")
    memory, looks = server.memory_info().rss, [0]

    def held_up() -> bool:
        looks.append(cat.io_counters().write_chars)
        return looks[-1] > WINDOW_BYTES and looks[-20:] == looks[-1:] * 20

    wait_for(held_up, "nothing more is typed")
    assert server.memory_info().rss - memory < 32 << 20
    os.killpg(client.pid, signal.SIGINT)
    client.communicate()
    wait_for(lambda: not bearing(token), "the end of the command")


def test_the_end_of_the_run_ends_its_execs(home: Spell) -> None:
    number = home.cast("echo up; sleep 1000", machine_type="small")
    home.says(number, b"up")
    client = home.popen("exec", str(number), "echo up; sleep 1000")
    assert client.stdout is not None and client.stdout.readline() == b"up\n"
    home.client.runs.kill(str(number))
    assert client.wait(20) == 137
    assert client.communicate() == (b"", f"Run {number} has ended, so this command was ended too.\n".encode())
    assert home.ended(number).state == "killed"


def test_a_command_that_is_killed_alone_says_nothing_of_the_run(home: Spell) -> None:
    done = home("exec", "1", "kill -9 $$")
    assert (done.code, done.out, done.err) == (137, "", "")


def test_options_stand_before_the_run_and_must_exist(home: Spell) -> None:
    done = home("exec", "-x", "1", "true")
    assert (done.code, done.out) == (2, "")
    assert "No such option" in done.err and "-x" in done.err


def test_a_server_that_ends_takes_its_execs_with_it_and_not_the_run(home: Spell, token: str) -> None:
    client = home.popen("exec", "1", f"echo up; sleep {token}")
    assert client.stdout is not None and client.stdout.readline() == b"up\n"
    assert home("server", "stop").code == 0
    assert client.wait(20) == 1
    assert b"ERROR: The connection to the server was lost." in client.communicate()[1]
    wait_for(lambda: not bearing(token), "the end of the command")
    assert home("exec", "1", "echo again").out == "again\n"  # by the next server


def test_runs_that_have_no_container_now(home: Spell) -> None:
    ended = home.run("true", machine_type="small").number
    done = home("exec", str(ended), "true")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"ERROR: Run {ended} is not running: it is complete.\n")
    assert home("exec", "4711", "true").err.startswith("ERROR: There is no run '4711'.")
    waiting = home.cast("true", machine_type="whole")
    assert "it is queued" in home("exec", str(waiting)).err
    home.client.runs.kill(str(waiting))


def test_a_run_that_has_removed_its_layer(home: Spell) -> None:
    number = home.cast("rm -rf /opt/spell/layer/*; echo gone; sleep 1000", machine_type="small")
    home.says(number, b"gone")
    done = home("exec", str(number), "echo $SPELL_RUN")
    assert (done.code, done.out) == (0, f"{number}\n"), done
    home.client.runs.kill(str(number))


def test_python_api(home: Spell) -> None:
    with home.client.exec.start("sleeper", ["sh", "-c", "cat; exit 4"]) as started:
        started.write(b"hello")
        started.write(b"")
        assert b"".join(output.data for output in started.read()) == b"hello"
        assert started.exit_code == 4
    with pytest.raises(InvalidConfig, match="not text in UTF-8"):
        home.client.exec.start("1", ["echo", "\udcff"])
    with pytest.raises(NotFound):
        home.client.exec.start("nobody")


def talk(home: Spell, *frames: str | bytes, api: str = str(API_VERSION)) -> dict[str, Any]:
    """Send these frames as a client would; the last text frame that the server answers."""
    uri, headers = "ws://spell/runs/1/exec", {"Spell-Api": api}
    with unix_connect(str(home.home.socket), uri, additional_headers=headers, ping_interval=None) as connection:
        with contextlib.suppress(ConnectionClosed):
            for frame in frames:
                connection.send(frame)
        texts = [frame for frame in connection if isinstance(frame, str)]
    return json.loads(texts[-1])


def test_clients_that_speak_otherwise(home: Spell) -> None:
    assert talk(home, api="0")["error"]["code"] == "version_mismatch"
    hello = '{"command": ["sleep", "100"], "terminal": false}'
    for frames in (
        ["{"],
        [b"x"],
        ["[]"],
        ['{"command": 7}'],
        [hello, b"\x07x"],
        [hello, "{}"],
        [hello, '{"resize": [1]}'],
    ):
        assert talk(home, *frames)["error"]["code"] == "invalid_config", frames
    flood = [b"\0" + bytes(1 << 20)] * 8
    assert talk(home, hello, *flood)["error"]["code"] == "invalid_config"


def test_help_and_completion(home: Spell) -> None:
    help_ = CliRunner().invoke(group, ["exec", "--help"], prog_name="spell").output
    assert help_.startswith("Usage: spell exec [OPTIONS] RUN [COMMAND]...")
    env = home.env | {"_SPELL_COMPLETE": "bash_complete", "COMP_WORDS": "spell exec sl", "COMP_CWORD": "2"}
    done = subprocess.run([BIN / "spell"], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,sleeper\n"
