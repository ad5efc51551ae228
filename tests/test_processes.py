"""The processes of a run: what becomes of them at its end, how it is stopped, and what it finds when it starts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import Spell, bearing, git, wait_for

from orchestrator.executors.process import ProcessExecutor
from orchestrator.lifecycle import threads

GRACE_S = 1.0
CONFIG = f"grace_s = {GRACE_S}\n[machine_types.cpu]\ncpus = 0.05\n"
NO_NAMESPACES = {"SPELL_NAMESPACES": "never"}


def _home(make: Callable[..., Spell], mode: str, name: str = "home") -> Spell:
    """A home whose runs are isolated in one of the two ways; its server runs."""
    if mode == "namespaces" and ProcessExecutor().isolation == "none":
        pytest.skip("the kernel gives no private namespaces here")
    spell = make(f"{name}-{mode}", CONFIG, **({} if mode == "namespaces" else NO_NAMESPACES))
    assert spell("server", "start").code == 0
    return spell


@pytest.fixture(scope="module", params=["namespaces", "processes"])
def spell(request: pytest.FixtureRequest, make_shared: Callable[..., Spell]) -> Spell:
    """A home that all tests share, in either mode."""
    return _home(make_shared, request.param)


@pytest.fixture(params=["namespaces", "processes"])
def own(request: pytest.FixtureRequest, make_spell: Callable[..., Spell]) -> Spell:
    """A home whose server may be killed, in either mode."""
    return _home(make_spell, request.param)


def test_both_modes_are_what_they_say(spell: Spell) -> None:
    number = spell.run("readlink /proc/self/ns/pid /proc/self/ns/mnt").number
    private = spell.log(number).decode().split()
    ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt")]
    if spell.home.root.name.endswith("namespaces"):
        assert len(private) == 2 and not set(private) & set(ours)
    else:
        assert private == ours


# -- F14: nothing of a run outlives it -----------------------------------------------------------------------------

DAEMON = """
import os, sys, time
if os.fork():
    sys.exit()
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.closerange(0, 64)
time.sleep(float(os.environ["TOKEN"]))
"""
WORKERS = """
import multiprocessing, os, time
def work():
    time.sleep(float(os.environ["TOKEN"]))
if __name__ == "__main__":
    workers = [multiprocessing.get_context(kind).Process(target=work) for kind in ("fork", "fork", "spawn")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
"""
DEAF = """
import os, signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
os.setsid()
print("deaf", flush=True)
while True:
    time.sleep(1)
"""
FORK_LOOP = """
import os
print("looping", flush=True)
while True:
    if os.fork():
        os._exit(0)
"""
BREEDER = """
import os, time
os.setsid()
print("breeding", flush=True)
while True:
    if os.fork() == 0:
        time.sleep(float(os.environ["TOKEN"]))
    time.sleep(0.002)
"""


@dataclass(frozen=True)
class Escape:
    """A way out: its command, how many processes it leaves beside the shell, and what it says when it is on its way."""

    command: str
    processes: int = 1
    says: bytes = b""


def _script(text: str) -> str:
    return f"python -c '{text}'".replace('"', '"')


ESCAPES = {
    "background": Escape("sleep $TOKEN &"),
    "setsid": Escape("setsid sleep $TOKEN &"),
    "nohup": Escape("nohup sleep $TOKEN > /dev/null 2>&1 &"),
    "double fork": Escape("( ( sleep $TOKEN & ) & ); ( setsid sleep $TOKEN & )", 2),
    "clean environment": Escape("env -i setsid $(command -v sleep) $TOKEN &"),
    "stopped": Escape("sleep $TOKEN & kill -STOP $!"),
    "daemon": Escape(_script(DAEMON)),
    "workers": Escape("python workers.py &", 4),
    "deaf": Escape(_script(DEAF) + " &", 1, b"deaf"),
    "fork loop": Escape(_script(FORK_LOOP) + " &", 0, b"looping"),
    "breeder": Escape(_script(BREEDER) + " &", 3, b"breeding"),
}


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """A named pipe: a command that reads it goes on when somebody writes."""
    path = tmp_path / "go"
    os.mkfifo(path)
    return path


def _let_out(spell: Spell, escapes: list[Escape], token: str, go: Path, timeout_s: float | None = None) -> int:
    """Cast a run that lets them all out and waits for `go`."""
    lines = [f"cat > workers.py <<'END'\n{WORKERS}\nEND", *(escape.command for escape in escapes), "read line < $GO"]
    return spell.cast("\n".join(lines), env={"TOKEN": token, "GO": str(go)}, timeout_s=timeout_s)


def _are_out(spell: Spell, number: int, escapes: list[Escape], token: str) -> None:
    count = 1 + sum(escape.processes for escape in escapes)
    for escape in escapes:
        spell.says(number, escape.says)
    wait_for(lambda: len(bearing(token)) >= count, f"{count} processes of run {number}")


@pytest.mark.parametrize(
    ("name", "ending"),
    [(name, ending) for name in ESCAPES for ending in ("stop", "end")]
    + [(name, "kill") for name in ("workers", "deaf", "fork loop")],
)
def test_f14_nothing_outlives_a_run(spell: Spell, token: str, go: Path, name: str, ending: str) -> None:
    escapes = [ESCAPES[name]]
    number = _let_out(spell, escapes, token, go)
    _are_out(spell, number, escapes, token)
    if ending == "stop":
        spell.client.runs.stop(str(number))
    elif ending == "kill":
        spell.client.runs.kill(str(number))
    else:
        go.write_text("\n")
    run = spell.ended(number)
    assert not bearing(token)
    assert run.state == {"stop": "stopped", "kill": "killed", "end": "complete"}[ending]


def test_f14_nothing_outlives_the_time_limit(spell: Spell, token: str, go: Path) -> None:
    escapes = [escape for name, escape in ESCAPES.items() if name not in ("fork loop", "breeder")]
    run = spell.ended(_let_out(spell, escapes, token, go, timeout_s=1.5))
    assert not bearing(token)
    assert (run.state, run.reason) == ("stopped", "timed_out")


def test_f14_nothing_outlives_a_failed_run(spell: Spell, token: str) -> None:
    run = spell.run("setsid sleep $TOKEN & (nohup sleep $TOKEN &) ; exit 4", env={"TOKEN": token})
    assert not bearing(token)
    assert (run.state, run.exit_code) == ("failed", 4)


def test_f14_a_server_that_came_back_ends_the_whole_tree(own: Spell, token: str, go: Path) -> None:
    escapes = [ESCAPES["daemon"], ESCAPES["double fork"], ESCAPES["deaf"]]
    number = _let_out(own, escapes, token, go)
    _are_out(own, number, escapes, token)
    own.kill_server()
    assert own("stop", str(number)).code == 0
    assert own.ended(number).state == "stopped"
    assert not bearing(token)


@pytest.mark.parametrize("killed", ["supervisor", "reaper", "both"])
def test_f14_nothing_outlives_its_supervisor(spell: Spell, token: str, go: Path, killed: str) -> None:
    escapes = [ESCAPES["setsid"], ESCAPES["daemon"]]
    number = _let_out(spell, escapes, token, go)
    _are_out(spell, number, escapes, token)
    command = next(pid for pid in bearing(token) if "workers.py" in " ".join(psutil.Process(pid).cmdline()))
    reaper = psutil.Process(command).parent()
    assert reaper is not None
    supervisor = reaper.parent()
    assert supervisor is not None
    doomed = {"supervisor": [supervisor], "reaper": [reaper], "both": [supervisor, reaper]}[killed]
    for process in doomed:
        process.suspend()
    for process in doomed:
        process.kill()
    run = spell.ended(number)
    assert not bearing(token)
    assert run.state == "failed"
    assert run.reason == "supervisor_lost"
    folder = spell.home.attempt_dir(number, 1)
    wait_for(lambda: not list(folder.glob("*.tmp")), "the end of the verdict that was not written")


# -- F15: how a run is stopped -------------------------------------------------------------------------------------

_LOOP = "echo ready; while :; do sleep 0.02; done"


def _ready(spell: Spell, command: str, **fields: object) -> int:
    number = spell.cast(command, **fields)
    spell.says(number, b"ready\n")
    return number


def test_f15_trap_handler_gets_its_time(spell: Spell) -> None:
    number = _ready(spell, f"trap 'sleep 0.1; echo saved > kept.txt; echo bye; exit 7' TERM; {_LOOP}")
    assert spell("stop", str(number)).code == 0
    run = spell.ended(number)
    assert (run.state, run.exit_code, run.reason) == ("stopped", 7, "stop_requested")
    assert spell.log(number).startswith(b"ready\n") and spell.log(number).endswith(b"\nbye\n")
    assert (spell.home.run_dir(number) / "kept.txt").read_text() == "saved\n"


def test_f15_kill_follows_when_the_grace_time_is_over(spell: Spell) -> None:
    number = _ready(spell, f"trap '' TERM; echo early > kept.txt; {_LOOP}")
    asked = time.monotonic()
    spell.client.runs.stop(str(number))
    run = spell.ended(number)
    assert time.monotonic() - asked >= GRACE_S
    assert (run.state, run.exit_code, run.signal) == ("stopped", None, 9)
    assert (spell.home.run_dir(number) / "kept.txt").read_text() == "early\n"


def test_f15_children_get_the_grace_time_too(spell: Spell) -> None:
    """The shell ends at TERM; its child, in a session of its own, still saves."""
    child = "trap 'sleep 0.1; echo saved > kept.txt; exit' TERM; echo ready; while :; do sleep 0.02; done"
    number = _ready(spell, f'setsid bash -c "{child}" & wait')
    spell.client.runs.stop(str(number))
    assert spell.ended(number).state == "stopped"
    assert (spell.home.run_dir(number) / "kept.txt").read_text() == "saved\n"


@pytest.mark.parametrize("name", ["HUP", "INT", "ABRT", "KILL", "SEGV", "PIPE", "TERM", "XFSZ"])
def test_f15_end_by_signal_is_reported(spell: Spell, name: str) -> None:
    number = signal.Signals[f"SIG{name}"].value
    run = spell.run(f"ulimit -c 0; kill -{name} $$")
    assert (run.state, run.signal, run.exit_code, run.reason) == ("failed", number, None, "signalled")
    assert f"signal {number}" in run.message


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 255])
def test_f15_exit_code_is_the_commands(spell: Spell, code: int) -> None:
    run = spell.run(f"exit {code}")
    assert (run.exit_code, run.signal, run.state) == (code, None, "failed" if code else "complete")


@pytest.mark.parametrize(("command", "code"), [("exit 254", 254), ("kill -SEGV $$", 139), ("kill -TERM $$", 143)])
def test_f15_foreground_run_exits_as_its_command(spell: Spell, command: str, code: int) -> None:
    done = spell("run", "-f", f"ulimit -c 0; {command}")
    assert done.code == code
    assert f"Run {done.number} failed: the command" in done.out


def test_f15_time_limit_stops_and_keeps(spell: Spell) -> None:
    done = spell("run", "--timeout", "0.02", f"trap 'echo late > b.txt; exit 5' TERM; echo early > a.txt; {_LOOP}")
    run = spell.client.runs.get(str(done.number))
    assert (run.state, run.reason, run.exit_code, done.code) == ("stopped", "timed_out", 5, 5)
    assert sorted(os.listdir(spell.home.run_dir(run.number))) == ["a.txt", "b.txt"]
    assert run.duration_s is not None and run.duration_s >= 1.2
    assert "time limit" in done.out


def test_f15_kill_keeps_nothing(spell: Spell) -> None:
    number = _ready(spell, f"trap 'echo late > b.txt' TERM; echo early > a.txt; {_LOOP}")
    assert spell("kill", str(number)).code == 0
    run = spell.ended(number)
    assert (run.state, run.signal, run.outputs_count) == ("killed", 9, 0)
    assert not spell.home.run_dir(number).exists()
    assert spell("ls", f"runs/{number}").code == 1
    wait_for(lambda: not spell.home.work_dir(number).exists(), "its work dir is gone")


def test_f15_kill_cuts_a_stop_short(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config="grace_s = 1000")
    number = _ready(spell, f"trap '' TERM; echo early > a.txt; {_LOOP}")
    spell.client.runs.stop(str(number))
    spell.client.runs.kill(str(number))
    assert spell.ended(number).state == "killed"
    assert not spell.home.run_dir(number).exists()


def test_f15_stop_of_a_queued_run_ends_it_at_once(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config=f"[machine_types.cpu]\ncpus = {len(os.sched_getaffinity(0))}")
    first = _ready(spell, _LOOP)
    second = spell.cast("echo never > never.txt")
    assert spell("stop", str(second)).code == 0
    assert spell.ended(second).state == "killed"
    spell.client.runs.kill(str(first))
    spell.ended(first)
    third = spell.run("true")  # a run that comes after it
    assert third.state == "complete"
    assert not spell.home.run_dir(second).exists() and not spell.home.log_dir(second).exists()


def test_f15_stop_of_what_is_over_is_refused(spell: Spell) -> None:
    number = spell.run("true").number
    for verb in ("stop", "kill"):
        done = spell(verb, str(number))
        assert done.code == 1
        assert f"Run {number} is already finished" in done.err
    assert spell.client.runs.get(str(number)).state == "complete"


def test_f15_on_stop_of_the_runtime(spell: Spell) -> None:
    script = """exec python - <<'END'
import time
from orchestrator.runtime import checkpoint_dir, on_stop
def save():
    (checkpoint_dir() / "last.txt").write_text("step 12")
    raise SystemExit(0)
on_stop(save)
print("ready", flush=True)
while True:
    time.sleep(0.02)
END"""
    number = _ready(spell, script)
    spell.client.runs.stop(str(number))
    run = spell.ended(number)
    assert (run.state, run.exit_code) == ("stopped", 0)
    assert (spell.home.run_dir(number) / "checkpoints" / "last.txt").read_text() == "step 12"
    # not complete is never 0: `spell wait 3 && spell run next` must not go on
    assert [spell(*words, str(number)).code for words in (["wait"], ["logs", "-f"], ["logs"])] == [1, 1, 0]


def test_f15_a_command_that_ends_well_at_its_time_limit_is_not_complete(spell: Spell) -> None:
    done = spell("run", "--timeout", "2s", "--force", f"trap 'exit 0' TERM; {_LOOP}")
    run = spell.client.runs.get(str(done.number))
    assert (run.state, run.reason, run.exit_code, done.code) == ("stopped", "timed_out", 0, 1)


# -- F51: a run inside a run ---------------------------------------------------------------------------------------


def test_f51_run_inside_a_run_is_its_own(spell: Spell) -> None:
    inner = "echo inner=$SPELL_RUN secret=$SECRET; echo $SPELL_METRICS $SPELL_CHECKPOINT_DIR; exit 5"
    outer = f"echo outer=$SPELL_RUN; spell run '{inner}'; echo code=$?; echo still=$SPELL_RUN"
    number = spell.run(outer, env={"SECRET": "xyz"}).number
    said = spell.log(number).decode()
    child = number + 1
    run = spell.client.runs.get(str(child))
    assert (run.state, run.exit_code) == ("failed", 5)
    assert f"outer={number}\n" in said and f"still={number}\n" in said
    assert f"Casting spell #{child}…" in said
    assert "code=5\n" in said, said
    heard = spell.log(child).decode()
    assert heard.startswith(f"inner={child} secret=\n")
    assert str(spell.home.metrics(child)) in heard and str(spell.home.work_dir(child)) in heard
    assert str(spell.home.metrics(number)) not in heard


def test_f51_run_inside_a_run_lives_on(spell: Spell, token: str) -> None:
    """It has a supervisor of its own: it is no descendant of the run that cast it."""
    number = _ready(spell, f"spell run -b -e TOKEN={token} '{_LOOP}'; echo ready; sleep 1000")
    child = number + 1
    spell.says(child, b"ready\n")
    spell.reaches(child, "running")
    spell.client.runs.kill(str(number))
    spell.ended(number)
    assert spell.client.runs.get(str(child)).state == "running"
    assert bearing(token)
    spell.client.runs.stop(str(child))
    assert spell.ended(child).state == "stopped"


# -- what a run finds ----------------------------------------------------------------------------------------------


def test_environment_is_clean(spell: Spell) -> None:
    number = spell.run("env -0", env={"ASKED": "a=b c"}).number
    found = dict(item.split("=", 1) for item in spell.log(number).decode().rstrip("\0").split("\0"))
    work, record = spell.home.work_dir(number) / "code", spell.home.log_dir(number)
    assert found["ASKED"] == "a=b c"
    assert found["SPELL_RUN"] == str(number)
    assert found["SPELL_HOME"] == str(spell.home.root)
    assert found["SPELL_METRICS"] == str(record / "metrics.jsonl")
    assert found["SPELL_CHECKPOINT_DIR"] == str(work / "checkpoints")
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["PYTHONPATH"].split(":") == [str(work), f"{spell.home.runtime}/modules"]
    ours = [f"{spell.home.runtime}/bin", f"{spell.home.runtime}/tools", f"{spell.home.layer(number)}/bin"]
    assert found["PATH"].split(":")[:3] == ours
    assert found["VIRTUAL_ENV"] == str(spell.home.layer(number))
    own = {
        "ASKED",
        "PYTHONUNBUFFERED",
        "CUDA_DEVICE_ORDER",
        "CUDA_VISIBLE_DEVICES",
        "PYTHONPATH",
        "PATH",
        "VIRTUAL_ENV",
        *threads.variables(1, (), is_held=True),
    }
    caches = {
        "TORCH_HOME",
        "NLTK_DATA",
        "SCIKIT_LEARN_DATA",
        "WANDB_CACHE_DIR",
        "PIP_CACHE_DIR",
        "UV_CACHE_DIR",
        "UV_LINK_MODE",
    }
    trackers = {"WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_DIR"}
    shell = {"PWD", "SHLVL", "_"}
    usual = {"HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
    rest = {
        name
        for name in set(found) - own - caches - trackers - shell - usual
        if not name.startswith(("SPELL_", "LC_", "HF_", "CUDA_"))
    }
    assert not {
        name for name in rest if not name.lower().endswith("_proxy") and "CERT" not in name and "BUNDLE" not in name
    }


def test_environment_of_the_server_is_passed_as_configured(make_spell: Callable[..., Spell]) -> None:
    variables = {"FOO": "1", "WANDB_KEY": "2", "SPELL_TOKEN": "3", "LC_ALL": "C.UTF-8", "PYTHONPATH": "/nowhere"}
    spell = make_spell(config='pass_env = ["WANDB_*", "SPELL_*"]', **variables)
    assert spell("server", "start").code == 0
    number = spell.run("echo foo=$FOO wandb=$WANDB_KEY token=$SPELL_TOKEN lc=$LC_ALL; echo $PYTHONPATH").number
    first, second = spell.log(number).decode().splitlines()
    assert first == "foo= wandb=2 token= lc=C.UTF-8"
    assert "/nowhere" not in second


def test_environment_asked_for_wins(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "tool"
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    asked = {
        "HOME": "/elsewhere",
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "PYTHONPATH": "/more",
        "PYTHONUNBUFFERED": "",
    }
    number = spell.run(
        "echo $HOME; tool; echo $PYTHONPATH; command -v python; echo [$PYTHONUNBUFFERED]", env=asked
    ).number
    home, said, path, python, unbuffered = spell.log(number).decode().splitlines()
    assert (home, said, unbuffered) == ("/elsewhere", "mine", "[]")
    assert path.split(":") == [f"{spell.home.work_dir(number)}/code", "/more", f"{spell.home.runtime}/modules"]
    assert python == str(spell.home.layer(number) / "bin" / "python")


def test_python_is_there(spell: Spell) -> None:
    run = spell.run("python -c 'import sys; print(sys.prefix); print(sys.version.split()[0])'")
    prefix, version = spell.log(run.number).decode().splitlines()
    assert prefix == str(spell.home.layer(run.number))
    assert version == run.python


def test_standard_input_is_empty(spell: Spell) -> None:
    number = spell.run(
        "cat; [ -t 0 ] || echo no terminal; python -c 'import sys; print(repr(sys.stdin.read()))'"
    ).number
    assert spell.log(number) == b"no terminal\n''\n"


def test_output_is_unbuffered(spell: Spell) -> None:
    number = spell.cast("python -c 'import time; print(\"said\"); time.sleep(1000)'")
    spell.says(number, b"said\n")
    spell.reaches(number, "running")
    assert spell.client.runs.get(str(number)).state == "running"
    spell.client.runs.kill(str(number))
    spell.ended(number)


def test_it_starts_where_it_was_cast(spell: Spell, repo: Path) -> None:
    (repo / "tool.py").write_text("answer = 42\n")
    (repo / "deep" / "er").mkdir(parents=True)
    (repo / "deep" / "er" / "file.txt").write_text("near\n")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "More")
    done = spell("run", "pwd; cat file.txt; ls; python -c 'import tool; print(tool.answer)'", cwd=repo / "deep" / "er")
    said = spell.log(done.number).decode().splitlines()
    assert said == [f"{spell.home.work_dir(done.number)}/code/deep/er", "near", "file.txt", "42"]


def test_it_starts_in_an_empty_folder_without_code(spell: Spell) -> None:
    number = spell.run("ls -A; pwd").number
    assert spell.log(number).decode() == f"{spell.home.work_dir(number)}/code\n"


def test_signals_files_and_mask_are_as_a_login_gives_them(spell: Spell) -> None:
    """Nothing of the server's own settings: no signal ignored or blocked, no open file, the usual mask."""
    number = spell.run("grep -E 'SigBlk|SigIgn' /proc/self/status; umask; ls /proc/self/fd").number
    lines = spell.log(number).decode().splitlines()
    settable = sum(1 << (number - 1) for number in signal.valid_signals())  # the C library keeps two for itself
    assert [int(line.split()[1], 16) & settable for line in lines[:2]] == [0, 0]
    assert lines[2] == "0022"
    assert lines[3:] == ["0", "1", "2", "3"], "3 is what ls reads"


def test_the_command_leads_a_session(spell: Spell) -> None:
    number = spell.run(
        "python -c 'import os; print(os.getsid(0) == os.getppid(), os.getpgid(0) == os.getppid())' | cat"
    ).number
    assert spell.log(number) == b"True True\n"


def test_many_short_children_leave_no_zombie(spell: Spell) -> None:
    """F16, as far as processes without a container go."""
    command = """python - <<'END'
import os, time
for _ in range(300):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
deadline = time.monotonic() + 20
def zombies():
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
        except OSError:
            continue
        found += words[0] == "Z" and words[3] == str(os.getsid(0))
    return found
while (left := zombies()) and time.monotonic() < deadline:
    time.sleep(0.01)
print(left)
END"""
    assert spell.log(spell.run(command).number) == b"0\n"
