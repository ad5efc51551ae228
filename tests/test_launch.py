"""One server for one home: started by whoever needs it first, found by everybody else, and its reasons when it cannot."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import BIN, DEADLINE_S, Spell, wait_for

from orchestrator.client.transport import Transport
from orchestrator.errors import HomeUnusable, ServerUnavailable, VersionMismatch
from orchestrator.home import Home, answers, default_home, is_served
from orchestrator.lifecycle import runtime_files
from orchestrator.records import API_VERSION


def servers_of(root: Path) -> list[int]:
    """The processes that serve a home, or try to."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[-2:] == ["--home", str(root)] and "orchestrator.server" in words:
            found.append(process.pid)
    return found


# -- one server -------------------------------------------------------------------------------------------------------


def test_ten_commands_at_once_start_one_server(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("fresh")
    commands = [spell.popen("ps") for _ in range(10)]
    for command in commands:
        out, err = command.communicate(timeout=120)
        assert (command.returncode, out.decode(), err) == (0, "There are no runs yet. Try: spell run …\n", b"")
    assert servers_of(spell.home.root) == [spell.server_pid]
    assert spell.home.server_log.read_text().count("Started server process") == 1


def test_a_second_spelld_is_refused(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("taken")
    spell.client.server.get()
    for words in ([], ["--home", str(spell.home.root)]):
        second = subprocess.run(
            [str(BIN / "spelld"), *words], env=spell.env, capture_output=True, text=True, check=False
        )
        said = f"ERROR: A server (process {spell.server_pid}) serves {spell.home.root} already.\n"
        assert (second.returncode, second.stderr) == (1, said)
    assert spell.client.server.get().pid == spell.server_pid


def test_a_new_server_waits_for_one_that_is_ending(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("changing")
    spell.client.server.get()
    for _ in range(3):
        old = psutil.Process(spell.server_pid)
        spell.client.server.stop()
        assert spell("ps").code == 0  # at once: the old one may not have gone yet
        assert spell.server_pid != old.pid
        old.wait(DEADLINE_S)
    assert spell("server", "stop").code == 0
    assert spell("server", "start").code == 0


def test_a_server_that_is_being_started_is_stopped(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell()
    with spell.popen("server", "start") as starting:
        wait_for((spell.home.store / "launch.lock").exists, "the start")
        done = spell("server", "stop")
        assert (done.code, done.out) == (0, "The server has ended.\n"), done
        starting.communicate(timeout=DEADLINE_S)
    assert not is_served(spell.home)
    assert spell("server", "stop").code == 1  # none is being started


def test_a_server_that_is_killed_while_it_starts_is_started_once_more(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell()
    with spell.popen("run", "--force", "--background", "true") as casting:
        (pid,) = wait_for(lambda: servers_of(spell.home.root), "a server that starts")
        os.kill(pid, signal.SIGKILL)
        _, err = casting.communicate(timeout=DEADLINE_S)
    assert casting.returncode == 0 and b"ERROR" not in err, err
    assert spell.ended(1).state == "complete"


def test_what_a_dead_server_left_is_no_obstacle(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("crashed")
    spell.client.server.get()
    spell.kill_server()
    assert spell.home.socket.exists() and not answers(spell.home.socket)
    assert spell("ps").code == 0


def test_what_a_killed_server_of_the_same_number_left(tmp_path: Path) -> None:
    """In a container, every server may have the same process number."""
    home = Home(tmp_path)
    for left in (home.runtime / "pip" / f".pip.{os.getpid()}", home.runtime / "pip" / ".pip.1"):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.symlink_to("nowhere")
    copied = home.runtime / "copied"
    (copied / f".pip.{os.getpid()}" / "half").mkdir(parents=True)
    runtime_files.install(home)
    runtime_files.copy_pip(home)
    assert [os.listdir(folder) for folder in (home.runtime / "pip", copied)] == [["pip"]] * 2
    assert (copied / "pip" / "__main__.py").is_file()


def test_the_server_outlives_the_terminal_that_started_it(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("detached")
    assert spell("ps").code == 0
    server = psutil.Process(spell.server_pid)
    assert os.getsid(server.pid) == server.pid != os.getsid(0)
    assert server.cwd() == "/"
    opened = [os.readlink(f"/proc/{server.pid}/fd/{number}") for number in range(3)]
    assert opened == ["/dev/null", *[str(spell.home.server_log)] * 2]


def test_strange_things_in_the_store(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("strange")
    (spell.home.work / "not-a-number").mkdir(parents=True)
    (spell.home.work / "77").mkdir()
    assert spell("ps").code == 0  # what is not ours, and a work dir of no run, are left alone
    assert (spell.home.work / "not-a-number").exists()


# -- where the home is ------------------------------------------------------------------------------------------------


def test_a_long_path(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    spell = make_spell(root=deep / "home", TMPDIR=str(tmp_path))
    assert len(os.fsencode(spell.home.store / "spelld.sock")) > 108
    assert spell("run", "echo hi").code == 0
    assert spell("ps", env={"TMPDIR": "/"}).code == 0  # found from any shell
    assert servers_of(spell.home.root) == [spell.server_pid]
    folder = spell.home.socket.parent
    assert folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == os.getuid()
    assert spell("server", "stop").code == 0
    wait_for(lambda: not folder.exists(), "the end of the socket's folder")
    assert spell("ps").code == 0


def test_a_socket_that_somebody_else_may_have_made(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make somebody else's folder")
    home = Home(tmp_path / ("x" * 120))
    home.socket.parent.mkdir()
    try:
        os.chown(home.socket.parent, 65534, 65534)
        with pytest.raises(HomeUnusable, match="belongs to another user"):
            Transport(home, start=True).call("GET", "/server")
        with pytest.raises(HomeUnusable, match="belongs to another user"):
            home.create()
    finally:
        home.socket.parent.rmdir()


def test_default_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, place in ((None, ".spell"), ("", ".spell"), ("~/mine", "mine"), (str(tmp_path / "x"), "x")):
        if value is None:
            monkeypatch.delenv("SPELL_HOME", raising=False)
        else:
            monkeypatch.setenv("SPELL_HOME", value)
        assert default_home() == tmp_path / place
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPELL_HOME", "relative")
    assert default_home() == tmp_path / "relative"


def unusable(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Homes that cannot be, and why not."""
    (tmp_path / "file").write_text("")
    yield str(tmp_path / "file"), "File exists"
    yield str(tmp_path / "file" / "below"), "Not a directory"
    yield "/proc/spell-home", "No such file or directory"
    yield str(tmp_path / ("x" * 300)), "File name too long"


def test_homes_that_cannot_be(make_spell: Callable[..., Spell], tmp_path: Path, repo: Path) -> None:
    spell = make_spell("unused")
    for place, why in unusable(tmp_path):
        for words in (["ps"], ["run", "true"], ["server", "start"]):
            done = spell(*words, env={"SPELL_HOME": place}, cwd=repo)
            assert (done.code, "Traceback" in done.err) == (1, False), done
            # the configuration is looked at first, and may be what cannot be reached
            assert why in done.err or f"ERROR: {place}/config.toml cannot be read: " in done.err
            assert "       Choose another one with SPELL_HOME=" in done.err or "config.toml" in done.err


AS_NOBODY = """
import difflib, importlib.resources, os
import orchestrator.cli.main, orchestrator.cli.run, orchestrator.cli.runs, orchestrator.cli.server
os.setgroups([]), os.setegid(65534), os.seteuid(65534)
orchestrator.cli.main.main()
"""


@pytest.mark.parametrize(
    "words", [["ps"], ["run", "-f", "true"], ["server", "start"], ["server", "logs"], ["server", "status"]]
)
def test_a_home_that_may_not_be_read(make_spell: Callable[..., Spell], words: list[str]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    spell = make_spell("private")
    command = [sys.executable, "-c", AS_NOBODY, *words]
    done = subprocess.run(command, env=spell.env, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, "Permission denied" in done.stderr, "Traceback" in done.stderr) == (1, True, False), done


# -- a server that cannot start says why ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("grace_s = 'soon'\n", "config.toml: grace_s: Input should be a valid number"),
        (
            "[machine_types.big]\ncpus = 0\n",
            "config.toml: machine_types.big.cpus: Input should be greater than or equal to 0.01",
        ),
        (
            "[machine_types.big]\nmemory_gb = 0.005\n",
            "config.toml: machine_types.big.memory_gb: Input should be greater than or equal to 0.005",
        ),
        ("sample_interval_s = inf\n", "config.toml: sample_interval_s: Input should be less than or equal to 604800"),
        ("[machine_types.big]\npids = 99999999999999999999\n", "pids: Input should be less than or equal to 4194304"),
        (
            "[machine_types.big]\ncpu = 1\n",
            "big.cpu: there is no such field; there are: cpus, memory_gb, gpus, pids, shm_gb",
        ),
        ("[docker]\nbase_imag = 'x'\n", "docker.base_imag: there is no such field; there are: host, base_image, "),
        ("grace = 1\n", "config.toml: grace: there is no such field; there are: executor, "),
        ("[docker]\nbase_image = 'a:{version}-{os}'\n", "docker.base_image: there is no {os}; there is: {version}"),
        (
            "[docker]\ngpu_base_image = 'a:{version'\n",
            "docker.gpu_base_image: there is no {version; there is: {version}",
        ),
        ("executor = 'kubernetes'\n", "config.toml: executor: there is no executor 'kubernetes'"),
        ("ignore = [\n", "config.toml: "),
    ],
)
def test_a_broken_configuration(make_spell: Callable[..., Spell], config: str, said: str) -> None:
    spell = make_spell("configured", config=config)
    done = spell("ps")
    assert (done.code, said in done.err) == (3, True), done
    assert done.err.splitlines()[0].startswith(f"ERROR: The server could not be started: {spell.home.config}: ")
    assert done.err.splitlines()[1] == f"       See {spell.home.server_log}"
    assert servers_of(spell.home.root) == []


def test_a_store_that_is_none(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("damaged")
    spell.home.store.mkdir()
    spell.home.database.write_text("this is no database, and long enough to be seen as none " * 10)
    done = spell("ps")
    assert (done.code, "spell.db cannot be opened: file is not a database" in done.err) == (1, True), done


def test_a_server_that_fails_while_it_starts(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("failing")
    spell.home.create()
    (spell.home.runtime / "modules").write_text("")  # where a folder is made when everything else has been set up
    done = spell("ps")
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert "store/runtime/modules" in done.err.splitlines()[0], done
    assert servers_of(spell.home.root) == []


def test_inside_a_run_of_the_same_home_no_server_is_started(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("inner")
    done = spell("ps", env={"SPELL_RUN": "1"})
    assert (done.code, done.err.splitlines()[0]) == (1, "ERROR: The server of this run's home does not answer.")
    assert not spell.home.store.exists()


# -- versions ---------------------------------------------------------------------------------------------------------


def test_an_old_client_is_refused_with_words(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("newer")
    spell.client.server.get()
    transport = httpx.HTTPTransport(uds=str(spell.home.socket))
    with httpx.Client(transport=transport, base_url="http://spell") as client:
        for version in ("0", str(API_VERSION + 1), "", "nonsense"):
            for method, path in (("GET", "/runs"), ("POST", "/runs"), ("GET", "/runs/1/follow")):
                answer = client.request(method, path, headers={"Spell-Api": version})
                assert answer.status_code == 426
                error = answer.json()["error"]
                assert error["code"] == VersionMismatch.code
                assert error["message"] == f"This server speaks version {API_VERSION} of the API, the client {version}."
                assert "spell server stop" in error["cure"]
        assert client.get("/runs").status_code == 200  # curl may look


def test_a_client_of_an_old_server_says_what_to_do(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell = make_spell("older")
    spell.home.create()
    with refusing(spell.home.socket):
        done = spell("ps")
    assert done.code == 1
    assert done.err == "ERROR: This server speaks version 0.\n       Restart it: spell server stop\n"


OTHER = """
import sys
from orchestrator import records
records.API_VERSION += int(sys.argv.pop(1))
from orchestrator.server.main import main
main()
"""


@pytest.mark.parametrize("later", [-1, 1])
def test_a_server_of_another_version_can_be_shown_and_replaced(make_spell: Callable[..., Spell], later: int) -> None:
    """The cure that its refusals name."""
    spell = make_spell("other")
    with subprocess.Popen([sys.executable, "-c", OTHER, str(later)], env=spell.env) as other:
        try:
            wait_for(lambda: answers(spell.home.socket), "the server of another version")
            refused = spell("ps")
            assert refused.code == 1
            assert (
                f"This server speaks version {API_VERSION + later} of the API, the client {API_VERSION}." in refused.err
            )
            assert "spell server stop" in refused.err
            shown = spell("server", "status")
            assert (shown.code, f"(process {other.pid})" in shown.out) == (0, True)
            assert shown.err == (
                f"This server speaks version {API_VERSION + later} of the API, this spell {API_VERSION}. "
                "To replace it: spell server stop\n"
            )
            assert spell("server", "status", "--json").json()["api"] == API_VERSION + later
            stopped = spell("server", "stop")
            assert (stopped.code, stopped.err, other.wait(DEADLINE_S)) == (0, "", 0)
        finally:
            other.kill()
    assert spell("ps").code == 0
    assert spell.client.server.get().api == API_VERSION


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """A server of another version on this socket."""
    body = b'{"error": {"code": "version_mismatch", "message": "This server speaks version 0.", '
    body += b'"cure": "Restart it: spell server stop"}}'
    head = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(head + body)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE_S)
    path.unlink()


def test_what_answers_nothing_is_no_server(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not answers(path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert not answers(path)
        listening.listen()
        assert not answers(path)  # it listens, and says nothing
    assert not answers(path)


def test_without_a_server_where_none_may_be_started(tmp_path: Path) -> None:
    home = Home(tmp_path / "none")
    with pytest.raises(ServerUnavailable, match="No server serves"):
        Transport(home, start=False).call("GET", "/server")
    assert not home.root.exists()
