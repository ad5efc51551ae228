"""The processes, limits, bytes and files of runs in containers, on a real engine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Spell, bearing, wait_for
from containers import ENGINE, GRACE_S, config, container_of, image_with_apt, none_left, remove_images
from engines import engine_api, need_engine
from hub import check_links_are_followed
from test_logs import SAYINGS, followed, log_of_a_run_that_is_ended
from test_processes import ESCAPES, _are_out, _let_out
from test_recovery import assert_free
from wheels import SlowProject

from orchestrator.errors import Conflict
from orchestrator.records.runs import RunRecord

pytestmark = pytest.mark.engine

PERSON_ID = 1000
AS_PERSON = ("setpriv", f"--reuid={PERSON_ID}", f"--regid={PERSON_ID}", "--clear-groups")
_LOOP = "echo ready; while :; do sleep 0.02; done"


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spell]:
    spell = make_shared("containers", config=config(tmp_path_factory.getbasetemp()))
    yield spell
    remove_images(spell)


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs and containers."""
    yield shared
    shared.clear()
    none_left(shared)


def _ready(spell: Spell, command: str, **fields: object) -> int:
    number = spell.cast(command, **fields)
    spell.says(number, b"ready\n")
    return number


# -- links ---------------------------------------------------------------------------------------------------------


def test_links_to_other_files_of_the_run_are_followed(spell: Spell, tmp_path: Path) -> None:
    check_links_are_followed(spell, tmp_path)


# -- F14: nothing of a run outlives it -----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["stop", "kill", "end", "limit"])
def test_f14_nothing_outlives_a_run(spell: Spell, token: str, tmp_path: Path, ending: str) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    escapes = [escape for name, escape in ESCAPES.items() if name != "fork loop" or ending == "end"]
    number = _let_out(spell, escapes, token, go, timeout_s=3.0 if ending == "limit" else None)
    _are_out(spell, number, escapes, token)
    if ending == "end":
        go.write_text("\n")
    elif ending != "limit":
        {"stop": spell.client.runs.stop, "kill": spell.client.runs.kill}[ending](str(number))
    run = spell.ended(number)
    assert not bearing(token)
    assert run.state == {"stop": "stopped", "kill": "killed", "end": "complete", "limit": "stopped"}[ending]


def test_f14_a_server_that_came_back_ends_the_whole_tree(spell: Spell, token: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    escapes = [ESCAPES["daemon"], ESCAPES["double fork"], ESCAPES["deaf"]]
    number = _let_out(spell, escapes, token, go)
    _are_out(spell, number, escapes, token)
    spell.kill_server()
    assert spell("stop", str(number)).code == 0
    assert spell.ended(number).state == "stopped"
    assert not bearing(token)


# -- F15: how a run is stopped -------------------------------------------------------------------------------------


def test_f15_trap_handler_gets_its_time(spell: Spell) -> None:
    number = _ready(spell, f"trap 'sleep 0.1; echo saved > kept.txt; echo bye; exit 7' TERM; {_LOOP}")
    spell.client.runs.stop(str(number))
    run = spell.ended(number)
    assert (run.state, run.exit_code, run.reason) == ("stopped", 7, "stop_requested")
    assert spell.log(number).endswith(b"\nbye\n")
    assert (spell.home.run_dir(number) / "kept.txt").read_text() == "saved\n"


def test_f15_kill_follows_when_the_grace_time_is_over(spell: Spell) -> None:
    """However often it is asked to stop meanwhile."""
    number = _ready(spell, f"trap '' TERM; echo early > kept.txt; {_LOOP}")
    asked, over = time.monotonic(), threading.Event()

    def ask_again() -> None:
        while not over.wait(GRACE_S / 5):
            spell("stop", str(number))

    spell.client.runs.stop(str(number))
    again = threading.Thread(target=ask_again)
    again.start()
    run = spell.ended(number)
    took_s = time.monotonic() - asked
    over.set()
    again.join()
    assert GRACE_S <= took_s < GRACE_S + 5
    assert (run.state, run.exit_code, run.signal) == ("stopped", None, 9)
    assert (spell.home.run_dir(number) / "kept.txt").read_text() == "early\n"


@pytest.mark.parametrize("name", ["INT", "KILL", "SEGV", "TERM"])
def test_f15_end_by_signal_is_reported(spell: Spell, name: str) -> None:
    number = signal.Signals[f"SIG{name}"].value
    run = spell.run(f"ulimit -c 0; kill -{name} $$")
    assert (run.state, run.signal, run.exit_code, run.reason) == ("failed", number, None, "signalled")


# -- F16: zombies ---------------------------------------------------------------------------------------------------

ORPHANS = """
python3 - <<'END'
import os, time
for _ in range(1000):
    child = os.fork()
    if child == 0:
        os.fork()  # its child is an orphan at once
        os._exit(0)
    os.waitpid(child, 0)
def zombies():
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            pass
    return found
def processes():
    return len([name for name in os.listdir("/proc") if name.isdigit()])
deadline = time.monotonic() + 20
while (zombies() or processes() > 3) and time.monotonic() < deadline:  # the last orphans may not have ended yet
    time.sleep(0.01)
print("zombies:", zombies(), "processes:", processes())
END
"""


def test_f16_no_zombies_after_a_thousand_orphans(spell: Spell) -> None:
    run = spell.run(ORPHANS)
    assert run.state == "complete"
    assert spell.log(run.number) == b"zombies: 0 processes: 3\n"  # reaper, shell, Python


# -- F19: out of memory --------------------------------------------------------------------------------------------

HUNGRY = "python3 -c 'print(len(b\"x\" * (1 << 29)))'"


@pytest.mark.parametrize("name", ["itself", "child", "stopped"])
def test_f19_out_of_memory_is_told(spell: Spell, name: str) -> None:
    """Also when it was only a child, after which the command ends as it likes; nobody else suffers."""
    command = {"itself": f"exec {HUNGRY}", "child": f"{HUNGRY}; exit 1", "stopped": f"{HUNGRY}; kill -TERM $$"}[name]
    other = _ready(spell, "echo ready; until [ -e go ]; do sleep 0.02; done", machine_type="small")
    run = spell.run(command, machine_type="small")
    assert (run.state, run.reason) == ("failed", "out_of_memory")
    assert (run.exit_code, run.signal) == {"itself": (None, 9), "child": (1, None), "stopped": (None, 15)}[name]
    more = ": some of its processes were killed, and it ended with exit code 1" if name == "child" else ""
    assert run.message == f"the command ran out of memory{more}"
    (spell.home.work_dir(other) / "code" / "go").touch()
    assert spell.ended(other).state == "complete"


def test_f19_a_command_that_copes_is_no_failure(spell: Spell) -> None:
    run = spell.run(f"{HUNGRY}; exit 0", machine_type="small")
    assert (run.state, run.reason) == ("complete", "exited_zero")
    notices = [event.text for event in spell.client.runs.events(str(run.number)) if event.kind == "notice"]
    assert len(notices) == 1 and "more memory than it may have" in notices[0], "but it is told"


# -- F20: every byte, up to the last -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["no newline at the end", "progress bar", "invalid UTF-8", "control characters", "1 MB line"]
)
def test_f20_log_is_byte_exact(spell: Spell, name: str) -> None:
    command, said = SAYINGS[name]
    number = spell.run(command).number
    assert spell.log(number) == said
    assert followed(spell.client.runs.follow(str(number))) == said


@pytest.mark.parametrize("ending", ["exit 3", "kill -9 $$", "exec true"])
def test_f20_last_line_before_the_end(spell: Spell, ending: str) -> None:
    number = spell.run(f"printf 'a\\nb'; {ending}").number
    assert spell.log(number) == b"a\nb"


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_f20_last_line_before_stop_and_kill(spell: Spell, verb: str) -> None:
    log_of_a_run_that_is_ended(spell, verb)


# -- F33: failed builds --------------------------------------------------------------------------------------------


def _failed_to_build(spell: Spell, number: int, words: str) -> None:
    run = spell.ended(number)
    assert (run.state, run.reason, run.exit_code) == ("build_failed", "build_failed", None)
    assert words in run.message
    assert words in spell.home.build_log(number).read_text()
    none_left(spell)
    assert_free(spell)


def test_f33_failed_packages(spell: Spell) -> None:
    spell.client.server.get()
    project = SlowProject(spell.home.environments / ".containers" / "failing")
    before = set(spell.home.environments.iterdir())
    project.fail("my compiler is missing")
    number = spell.cast("python -c 'import slow'", pip=(str(project.path),), machine_type="whole")
    _failed_to_build(spell, number, "my compiler is missing")
    kept = {path.name for path in set(spell.home.environments.iterdir()) - before if len(path.name) == 32}
    assert len(kept) <= 1, "that of `assert_free` alone"
    (project.control / "fail").unlink()
    assert spell.run("python -c 'import slow'", pip=(str(project.path),)).state == "complete"


def test_f33_failed_image(spell: Spell) -> None:
    words = "E: Unable to locate package tree"
    with image_with_apt(f"echo '{words}'; exit 100") as image:
        for _ in range(2):
            number = spell.cast("true", image=image, apt=("tree",), machine_type="whole")
            _failed_to_build(spell, number, words)
        labels = {"label": f"spell.home={spell.home.root}"}
        assert engine_api().images(filters=labels) == []


# -- F39: nothing is left ------------------------------------------------------------------------------------------


def test_f39_nothing_is_left_of_many_runs(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    """Some of them killed, of an image that has a volume; the server's own temporary folder counts as well."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    spell = make_spell(config=config(tmp_path), TMPDIR=str(temporary), PATH=f"/usr/bin:/bin:{os.environ['PATH']}")
    assert spell("server", "start").code == 0
    networks = {item["Id"] for item in engine_api().networks()}
    with image_with_apt("echo waiting; exec sleep 1000000", more="VOLUME /data") as image:
        hanging = spell.cast("true", image=image, apt=("tree",))
        log = spell.home.build_log(hanging)
        wait_for(lambda: log.exists() and "waiting\n" in log.read_text(), "the build hangs")
        spell.client.runs.kill(str(hanging))
        long = [_ready(spell, _LOOP, image=image) for _ in range(2)]
        mounts = [
            item for number in long for item in engine_api().inspect_container(container_of(spell, number))["Mounts"]
        ]
        volumes = {item["Name"] for item in mounts if item["Type"] == "volume"}
        assert len(volumes) == len(long)
        numbers = [
            spell.cast(f"touch /data/x /tmp/x; echo {index} > out; exit {index % 2}", image=image)
            for index in range(100)
        ]
        for number in long:
            spell.client.runs.kill(str(number))
        for index, number in enumerate(numbers):
            if index % 10 == 9:
                with contextlib.suppress(Conflict):  # it has ended
                    spell.client.runs.kill(str(number))
        ends = [spell.ended(number, 120).state for number in numbers]
        assert ends.count("complete") >= 40 and ends.count("failed") >= 30
        assert spell.ended(hanging).state == "killed"
        none_left(spell)
        remove_images(spell)
    assert not volumes & {item["Name"] for item in engine_api().volumes()["Volumes"] or ()}
    assert {item["Id"] for item in engine_api().networks()} <= networks
    wait_for(lambda: not any(spell.home.work.iterdir()), "no work dir")
    assert list(temporary.rglob("*")) == []
    left = {path.name for path in spell.home.logs.glob("*/attempt-*/*")}
    assert left <= {"begun", "claim.json", "line", "result", "errors", "process.json", "untaken", "verdict.json"}
    assert not any(spell.home.logs.glob("*/attempt-*/inside/*"))
    environments = spell.home.environments
    hidden = {path.name for path in [*environments.glob(".*"), *environments.glob(".containers/.*")]}
    assert hidden <= {".containers", ".images"}


# -- F42: the files of a run are its person's ----------------------------------------------------------------------


def _python_for(who: tuple[str, ...]) -> str:
    """A Python like ours that this person may execute."""
    same = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([*who, "sh", "-c", f'exec "$0" -c "{same}"', python], check=False).returncode == 0:
            return python
    pytest.skip("nobody can become another user here who may use this Python")


@pytest.fixture
def person(make_spell: Callable[..., Spell]) -> Iterator[Spell]:
    """A home of somebody who is not root, but may use the engine."""
    need_engine()
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    who = (*AS_PERSON[:-1], f"--groups={Path(ENGINE).stat().st_gid}")
    python = _python_for(who)
    folder = Path(tempfile.mkdtemp(prefix="spell-person-"))  # pytest's own are root's only
    (folder / "home").mkdir()
    spell = make_spell(
        config=config(folder),
        cwd=folder,
        root=folder / "home",
        prefix=(*who, python),
        HOME=str(folder),
        PYTHONPATH=":".join(path for path in sys.path if Path(path).is_dir()),
    )
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, PERSON_ID, PERSON_ID)
    started = spell("server", "start")
    assert started.code == 0, started
    yield spell
    spell.end()
    shutil.rmtree(folder)


def test_f42_files_of_a_run_are_its_persons(person: Spell) -> None:
    script = """id -u; id -g; touch $HOME/x && echo writable; mkdir -p shut/deep ~/.cache/a; echo x > shut/deep/file
        echo y > out.txt; chmod 600 out.txt; umask; chmod 0 shut/deep shut; python -c 'import os; print(os.getuid())'"""
    run: RunRecord = person.run(script)
    said = person.log(run.number).decode()
    assert said == f"{PERSON_ID}\n{PERSON_ID}\nwritable\n0022\n{PERSON_ID}\n", said
    assert (run.state, run.outputs_count) == ("complete", 2)
    running = _ready(person, "touch code-file; mkdir shut; touch shut/x; chmod 0 shut; echo ready; sleep 1000")
    for path in [person.home.root, *person.home.root.rglob("*")]:
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (PERSON_ID, PERSON_ID), path
    assert stat.S_IMODE((person.home.run_dir(run.number) / "shut").stat().st_mode) == 0o555
    person.client.runs.kill(str(running))
    assert person.ended(running).state == "killed"
    wait_for(lambda: not any(person.home.work.iterdir()), "the work dirs are gone")
    folder = person.home.run_dir(run.number)
    assert (
        subprocess.run([*AS_PERSON, "sh", "-c", f"chmod -R u+w {folder} && rm -r {folder}"], check=False).returncode
        == 0
    )
    assert not folder.exists()
    none_left(person)
