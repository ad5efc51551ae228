"""The server and the machine, help and verbs that there are not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import click
import psutil
import pytest
from click.testing import CliRunner
from conftest import DEADLINE_S, Spell, awaited

import orchestrator
from orchestrator.cli.input import words as theirs
from orchestrator.cli.input.hints import explained
from orchestrator.cli.main import spell as group
from orchestrator.cli.verbs import VERBS
from orchestrator.machine import detect


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home with some machine types."""
    config = "[machine_types.Big]\ncpus = 0.5\nmemory_gb = 0.25\n[machine_types.huge]\ncpus = 9999\ngpus = 64\n"
    return make_shared("cli-server", config=config)


# -- the server -------------------------------------------------------------------------------------------------------


def test_life_of_a_server(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("living")
    for verb in ("status", "stop"):
        none = spell("server", verb)
        said = f"ERROR: No server serves {spell.home.root}.\n       Start it: spell server start\n"
        assert (none.code, none.out, none.err) == (1, "", said)
    assert not spell.home.store.exists()  # looking starts nothing
    none = spell("server", "logs")
    assert (none.code, none.out, none.err) == (0, "", "The server has no log yet.\n")

    started = spell("server", "start")
    server = psutil.Process(spell.server_pid)
    assert started.code == 0
    assert started.out.startswith(
        f"spelld {orchestrator.__version__} (process {server.pid}) serves {spell.home.root} since "
    )
    assert started.out.endswith("Executors: docker, process. Active runs: 0.\n")
    assert spell("server", "start").out == spell("server", "status").out == started.out  # it runs already
    status = spell("server", "status", "--json").json()
    assert (status["pid"], status["home"]) == (server.pid, str(spell.home.root))
    assert "Started server process" in spell("server", "logs").out
    assert len(spell("server", "logs", "-n", "2").out.splitlines()) == 2

    number = spell.cast("echo begun; sleep 1000")
    spell.says(number, b"begun")
    assert "Active runs: 1." in spell("server", "status").out
    stopped = spell("server", "stop")
    assert (stopped.code, stopped.out) == (0, "The server has ended.\n")
    server.wait(DEADLINE_S)
    assert spell("ps", "-s", "running", "--json").json()[0]["number"] == number  # it went on without a server
    assert spell.server_pid != server.pid


def test_stopping_a_server_lets_followers_go(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    """They lose nothing, it waits for nobody, and its log does not tell of errors."""
    spell = make_spell("followed")
    gate = tmp_path / "gate"
    number = spell.cast(f"echo begun; until [ -e {gate} ]; do sleep 0.02; done; echo over")
    following = spell.popen("logs", "-f", str(number))
    try:
        assert following.stdout.readline() == b"begun\n"
        with awaited(spell.server_pid):
            assert spell("server", "stop").code == 0
        said = spell.home.server_log.read_text()
        gate.touch()
        out, _ = following.communicate(timeout=DEADLINE_S)
    finally:
        following.kill()
    assert (following.returncode, out) == (0, b"over\n")
    assert "Finished server process" in said
    assert "Traceback" not in said


def test_machine_types(spell: Spell) -> None:
    lines = [line.split() for line in spell("machine-types").out.splitlines()]
    assert lines[0] == ["NAME", "CPUS", "MEMORY", "GPUS", "FREE", "NOW"]
    assert [line[0] for line in lines[1:]] == ["cpu", "gpu", "big", "huge"]
    assert lines[3] == ["big", "0.5", "256M", "-", str(int(detect().cpus * 2))]
    assert lines[4] == ["huge", "9999", "-", "64", "never", "here"]
    found = {item["name"]: item for item in spell("machine-types", "--json").json()}
    assert (found["big"]["memory_bytes"], found["huge"]["possible"], found["huge"]["free_now"]) == (256 << 20, False, 0)
    assert found["gpu"]["possible"] == bool(detect().gpus)


def test_a_machine_type_that_this_executor_cannot_hold_to(spell: Spell) -> None:
    done = spell("run", "-t", "BIG", "true")
    assert (done.code, "cannot limit a run to it" in done.err) == (0, True)


# -- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_of_every_verb(verb: str) -> None:
    done = CliRunner().invoke(group, [verb, "--help"], prog_name="spell")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: spell {verb} ")
    if verb != "ls":  # its -h is that of sizes
        assert CliRunner().invoke(group, [verb, "-h"], prog_name="spell").output == done.output


def test_help_and_version(spell: Spell) -> None:
    done = spell("--help")
    assert done.code == 0
    assert re.findall(r"^  ([a-z][a-z-]+)  +[A-Z]", done.out, re.MULTILINE) == list(VERBS)
    assert "Exit codes: 0 ok, 1 error, 2 usage, 3 invalid configuration" in " ".join(done.out.split())
    assert spell("-h").out == done.out
    assert spell("--version").out == f"spell, version {orchestrator.__version__}\n"
    for words in (["server"], []):
        assert "Usage: spell" in spell(*words).out + spell(*words).err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lgos", "'logs' or 'ls'"), ("rnu", "'run'"), ("p", "'ps' or 'cp'"), ("log", "'logs'"), ("status", "'ps'"),
        ("help", "'--help'"), ("machine-type", "'machine-types'"), ("cancel", "'stop'"), ("klil", "'kill' or 'skill'"),
        ("inspect", "'info'"), ("attach", "'logs -f'"), ("compare", "'diff'"), ("sweep", "'hyper'"), ("pull", "'cp'"),
        ("delete", "'archive' or 'rm'"), ("sbatch", "'run'"), ("squeue", "'ps'"), ("tag", "'label'"), ("grid", "'hyper grid'"),
    ],
)  # fmt: skip
def test_misspelled_verbs(spell: Spell, typed: str, meant: str) -> None:
    done = spell(typed, "1")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1] == f"Error: No such command {typed!r}. Did you mean {meant}?"


def in_group(*words: str) -> str:
    """What is said last about these words."""
    return CliRunner().invoke(group, list(words), prog_name="spell").output.splitlines()[-1]


def test_commands_of_verbs_have_hints_too() -> None:
    assert in_group("hyper", "describe", "1") == "Error: No such command 'describe'. Did you mean 'info'?"
    assert in_group("project", "ls") == "Error: No such command 'ls'. Did you mean 'list'?"
    assert in_group("secret", "add", "x") == "Error: No such command 'add'. Did you mean 'set'?"
    assert in_group("server", "restart").endswith("Type `spell server stop`; any command starts it again.")
    assert "spell stop RUN" in in_group("pause", "1") and "spell image build" in in_group("build")
    assert "spell logs -v RUN" in in_group("events")


def hint(option: str, verb: str = "run") -> str:
    """What an error adds about an option that there is not."""
    command = VERBS[verb].load()
    with pytest.raises(click.NoSuchOption) as caught:
        click.Command.parse_args(command, click.Context(command, **command.context_settings), [option, "true"])
    return explained(caught.value).format_message().removeprefix(f"No such option {option!r}.").strip()


def test_options_of_other_tools_lead_to_ours(spell: Spell) -> None:
    meant = {
        "--gpu": "--gpus", "--tag": "--label", "--detach": "--background", "--volume": "--mount",
        "--requirements": "--pip-req", "--mem": "--memory", "--partition": "--machine-type", "--image": "--from", "--job-name": "--name",
        "--nmae": "--name", "--machin-type": "--machine-type",
    }  # fmt: skip
    assert {option: hint(option) for option in meant} == {
        option: f"Did you mean {ours!r}?" for option, ours in meant.items()
    }
    assert hint("--tail", "logs") == "Did you mean '-n'?" and hint("--format", "ps") == "Did you mean '--json'?"
    assert hint("--epochs") == "" and hint("--dotenv") == "Did you mean '--env-file'?"
    assert "spell exec RUN" in hint("--tty") and hint("--tty", "ps") == ""
    lines = spell("run", "--gpu", "2", "python train.py").err.splitlines()
    assert lines[-1] == "Error: No such option '--gpu'. Did you mean '--gpus'?"


def test_words_of_other_tools_lead_to_what_there_is() -> None:
    groups = [command for verb in VERBS.values() if isinstance(command := verb.load(), click.Group)]
    commands = {*VERBS, *(name for item in groups for name in item.commands)}
    options = {"--help", "--version"}
    for command in (
        *(verb.load() for verb in VERBS.values()),
        *(one for item in groups for one in item.commands.values()),
    ):
        options |= {name for item in command.params for name in item.opts}
    assert {name.split()[0] for name in theirs.VERBS} <= commands | options
    assert {name.split()[0] for name in theirs.OPTIONS} <= options
    for ours, foreign in theirs.VERBS.items():
        assert not {ours} & set(foreign.split()), f"{ours} leads to itself"


def test_words_that_are_close_to_nothing(spell: Spell) -> None:
    assert spell("xyzzy").err.splitlines()[-1] == "Error: No such command 'xyzzy'."
    cast = "To cast it: spell run 'python train.py'"
    assert spell("python train.py").err.splitlines()[-1] == f"Error: No such command 'python train.py'. {cast}"
    assert in_group("true", "-x").endswith("To cast it: spell run -- true -x")
    assert spell("server", "begin").code == 2
    assert spell("--jsn").code == 2
    assert spell("completion", "tcsh").code == 2


# -- small errors of the environment ----------------------------------------------------------------------------------


def test_a_user_without_a_home_is_told(spell: Spell, tmp_path: Path) -> None:
    done = spell("server", "status", env={"SPELL_HOME": "", "HOME": str(tmp_path)})
    assert done.err.startswith(f"ERROR: No server serves {tmp_path}/.spell.")
    nobody = spell("ps", env={"SPELL_HOME": "~no-such-user/x"})
    assert (nobody.code, nobody.err.splitlines()[0]) == (
        1,
        "ERROR: The path of the home is unknown: Could not determine home directory.",
    )


def test_python_variables_of_the_person_do_no_harm(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the project was imported')")
    for env in ({"PYTHONWARNINGS": "error"}, {"COLUMNS": "3"}, {"PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}):
        assert spell("ps", env=env, cwd=tmp_path).code == 0, env
    assert os.listdir(tmp_path) == ["json.py"]
