"""What a run in a container can do to its reaper, and to the server by sheer mass: nothing."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import Spell, git, wait_for
from engines import containers_of, engine_api
from wheels import make_wheel

from orchestrator.records.runs import RunRecord

pytestmark = pytest.mark.engine

CONFIG = """
executor = "docker"
grace_s = 0.5
sample_interval_s = 0.2
[machine_types.cpu]
cpus = 0.25
[machine_types.few]
cpus = 0.25
pids = 64
memory_gb = 0.25
"""
SOON_S = 10.0  # answers of a server that is not held up; far more than they take


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that the tests share."""
    return make_shared("security", config=CONFIG, docker=True)


def said(spell: Spell, run: RunRecord | int) -> str:
    return spell.log(run if isinstance(run, int) else run.number).decode()


# -- the reaper ------------------------------------------------------------------------------------------------------

FORGER = """import os
open(f"/spell/as-{os.getpid()}", "w").close()
"""


@pytest.fixture
def forging(repo: Path) -> Path:
    """A workspace whose Python and shell files would run in a reaper that took its variables or paths from a run."""
    for name in ("sitecustomize.py", "usercustomize.py", "json.py", "orchestrator/supervisor/container.py"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(FORGER)
    for folder in ("orchestrator", "orchestrator/supervisor"):
        (repo / folder / "__init__.py").write_text(FORGER)
    (repo / "rc").write_text("touch /spell/as-$$\n")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "forge")
    return repo


def test_variables_and_files_of_a_run_do_not_reach_its_reaper(spell: Spell, forging: Path) -> None:
    names = ("PYTHONSTARTUP=/spell/rc", "PYTHONHOME=/spell", "PYTHONPATH=/spell", "BASH_ENV=/spell/rc", "ENV=/spell/rc")
    more = ("LD_PRELOAD=/spell/evil.so", "LD_LIBRARY_PATH=/spell", "PYTHONBREAKPOINT=os.system", "LINES=a\nB=c\nPATH=/")
    words = [word for value in (*names, *more) for word in ("--env", value)]
    done = spell("run", *words, 'test "$LINES" != a && test -z "$B"; ls; exit 7', cwd=forging)
    run = spell.client.runs.get("latest")
    assert (run.state, run.exit_code, done.code) == ("failed", 7, 7), done
    assert "as-1\n" not in said(spell, run)
    assert not (spell.home.run_dir(run.number) / "as-1").exists()


def test_a_run_cannot_end_its_reaper(spell: Spell) -> None:
    command = "for sign in INT KILL STOP HUP QUIT SEGV ALRM PIPE CHLD WINCH 35; do kill -$sign 1; kill -$sign 1; done"
    run = spell.run(f"{command}; sleep 0.1; echo alive; exit 5")
    assert (run.state, run.exit_code, said(spell, run).splitlines()[-1]) == ("failed", 5, "alive")


@pytest.mark.parametrize("sign", ["TERM", "USR1"])
def test_a_run_that_stops_itself_was_stopped_by_nobody(spell: Spell, sign: str) -> None:
    run = spell.run(f"kill -{sign} 1; sleep 1000")
    assert (run.state, run.reason) == ("failed", "signalled")


def test_a_run_that_takes_its_reapers_limits_away_is_told_so(spell: Spell) -> None:
    code = "import resource as r; [r.prlimit(1, n, (0, 0)) for n in (r.RLIMIT_FSIZE, r.RLIMIT_NOFILE)]"
    run = spell.run(f"python -c '{code}'; exit 0")
    assert run.state in ("complete", "failed") and run.message
    wait_for(lambda: not containers_of(spell.home), "its container is gone")


@pytest.mark.parametrize("forged", ["echo x > $N", "mkdir $N", "ln -s $VICTIM $N", "ln -s request $N"])
def test_a_run_cannot_have_itself_taken_for_never_started(
    make_spell: Callable[..., Spell], tmp_path: Path, forged: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    spell = make_spell(config=CONFIG, docker=True)
    command = f"""N=/opt/spell/inside/$(tr '\\0' '\\n' < /proc/1/cmdline | grep ^request-); {forged}; echo ready
        while ! test -e go; do sleep 0.05; done; exit 5"""
    number = spell.cast(command, env={"VICTIM": str(victim)})
    spell.says(number, b"ready\n")
    spell.kill_server()
    spell.reaches(number, "running")
    (spell.home.work_dir(number) / "code/go").touch()
    run = spell.ended(number)
    assert (run.state, run.exit_code, spell.stored(number)[1]) == ("failed", 5, 1)
    assert said(spell, run) == "ready\n" and victim.read_text() == "mine\n"


def test_byte_code_is_not_shared(spell: Spell, tmp_path: Path) -> None:
    """A run that could put byte code where another looks for it would run in that other."""
    wheel = (str(make_wheel(tmp_path, "tiny")),)
    told = "P=${PYTHONPYCACHEPREFIX:-/home/spell/compiled}; echo $P; cat /proc/self/mountinfo | grep -c '/[.]bytecode-'"
    place, shared = said(spell, spell.run(f"{told}; mkdir -p $P; touch $P/mine", pip=wheel)).split()
    assert place.startswith("/home/spell/") and shared == "0"
    assert said(spell, spell.run(f"ls {place}", pip=wheel)).count("mine") == 0


# -- floods ----------------------------------------------------------------------------------------------------------


def answers(spell: Spell) -> None:
    """The server answers, and another run is run."""
    began = time.monotonic()
    spell.client.runs.list(limit=5)
    assert spell.run("echo fine").state == "complete"
    assert time.monotonic() - began < SOON_S


def test_a_fork_bomb_is_bounded_and_ends_on_stop(spell: Spell) -> None:
    code = "import os\\nprint('ready', flush=True)\\nwhile True:\\n try: os.fork()\\n except OSError: pass"
    number = spell.cast(f'printf "{code}" > bomb.py; python bomb.py', machine_type="few")
    spell.says(number, b"ready\n")
    answers(spell)
    (container,) = containers_of(spell.home, label=[f"spell.home={spell.home.root}", f"spell.run={number}"])
    assert engine_api().inspect_container(container["Id"])["HostConfig"]["PidsLimit"] == 64
    assert len(engine_api().top(container["Id"])["Processes"]) <= 64
    spell.client.runs.stop(str(number))
    assert spell.ended(number).state == "stopped"


def test_a_log_flood_holds_up_nobody(spell: Spell) -> None:
    """The disk is bounded by nothing but itself: see F38. The server's memory is."""
    number = spell.cast("yes", machine_type="few")
    before = psutil.Process(spell.server_pid).memory_info().rss
    follower = spell.popen("logs", "--follow", str(number))
    try:
        wait_for(
            lambda: len(spell.log(number)) > 0 and spell.home.log(number).stat().st_size > 200 << 20, "a large log"
        )
        answers(spell)
        spell.client.runs.stop(str(number))
        assert spell.ended(number).state == "stopped"
        assert psutil.Process(spell.server_pid).memory_info().rss - before < 200 << 20
    finally:
        follower.kill()
        follower.communicate()
        spell.home.log(number).write_bytes(b"")


def test_files_of_terabytes_made_out_of_nothing(spell: Spell) -> None:
    """Its own log, metrics and outputs: no more of them is read than is wanted."""
    run = spell.run("truncate -s 8T /proc/self/fd/1; truncate -s 8T $SPELL_METRICS; echo end", machine_type="few")
    try:
        assert run.state == "complete"
        began = time.monotonic()
        assert next(spell.client.logs.get(str(run.number), lines=1).chunks)
        assert time.monotonic() - began < SOON_S
        answers(spell)
    finally:
        for path in (spell.home.log(run.number), spell.home.metrics(run.number)):
            os.truncate(path, 0)


def test_whatever_a_run_leaves_can_be_removed(spell: Spell) -> None:
    command = """for place in . "$HOME"; do cd $place; mkdir -p many shut/deep/er; : > shut/deep/er/file
        (cd many; seq 1 1500 | xargs touch); chmod 0 shut/deep/er/file shut/deep/er shut/deep shut; chmod 555 many; done
        chmod 0 "$HOME"; mkdir /opt/spell/inside/left; chmod 0 /opt/spell/inside; chmod 0 /spell; kill -9 $$"""
    run = spell.run(command, ignore=("*",))
    assert run.state == "failed"
    wait_for(lambda: not spell.home.work_dir(run.number).exists(), "its work dir is gone")


def test_too_much_is_refused(spell: Spell) -> None:
    run = spell.run("true", env={"LARGE": "x" * 200_000})
    assert run.state == "failed" and "too long" in run.message
    spec = json.dumps({"command": "true", "description": "x" * (20 << 20)})
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(str(spell.home.socket))
        head = f"POST /runs HTTP/1.1\r\nHost: spell\r\nContent-Type: application/json\r\nContent-Length: {len(spec)}\r\n\r\n"
        server.sendall(head.encode())
        answer = server.recv(65536)
    assert b" 413 " in answer.split(b"\r\n")[0], answer
    answers(spell)
