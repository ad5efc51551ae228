"""`spell hyper …` as a person types it: what is said of searches and their trials, on a terminal and off it."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BIN, Done, Spell, git, wait_for
from terminal import Terminal

from orchestrator import machine

CONFIG = f"""
grace_s = 1

[machine_types.cpu]
cpus = {machine.detect().cpus / 20}
"""
PAGE = Path(__file__).parents[1] / "docs" / "searches.md"
TRAIN = """
import argparse

from orchestrator.runtime import send_metric

parser = argparse.ArgumentParser()
parser.add_argument("x", nargs="?", type=float)
parser.add_argument("--lr", type=float)
parser.add_argument("--layers", type=int)
given = parser.parse_args()
send_metric("loss", (given.x - 3) ** 2 if given.x else given.lr)
"""


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests that leave nothing in the way."""
    return make_shared("hyper", config=CONFIG)


@pytest.fixture
def own(make_spell: Callable[..., Spell]) -> Spell:
    """A fresh home, on whose machine many runs have room."""
    return make_spell(config=CONFIG)


def waiting_for(gate: Path) -> str:
    return f"while [ ! -e {gate} ]; do sleep 0.02; done"


def send(value: str) -> str:
    """A command that sends `loss`; `x` is its parameter."""
    return f"""{sys.executable} -c 'from orchestrator.runtime import send_metric as s; x = :x:; s("loss", {value})'"""


def lines_of(done: Done) -> list[str]:
    return done.out.splitlines()


# -- the documents ----------------------------------------------------------------------------------------------------


def test_the_examples_of_the_docs(make_spell: Callable[..., Spell], repo: Path) -> None:
    """All commands of the page, in its order, in a repository with a train.py; the numbers of what is shown differ."""
    own = make_spell(config=CONFIG, cwd=repo)
    (repo / "train.py").write_text(TRAIN)
    git(repo, "add", "train.py")
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    commands = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    casts = [line for line in commands if re.match(r"spell hyper (grid|random|bayesian)", line)]
    assert [line.split()[2] for line in casts] == ["grid", "random", "bayesian", "grid"]
    for line in casts:
        words = shlex.split(line)[1:]
        if "-n" in words:
            words[words.index("-n") + 1] = "3"
        done = own(*words, "-f", env=env)
        assert done.code == 0, done
    assert "🎉 Best: run 12, loss 1, with x=2" in done.out
    shown = [line for line in blocks[1].splitlines() if line.startswith("🎉 Trial")]
    said = [line for line in done.out.splitlines() if line.startswith("🎉 Trial")]

    def plain(line: str) -> str:
        return re.sub(r"\(run \d+\)|\([\d.]+s\)", "", line)

    assert sorted(map(plain, said)) == sorted(map(plain, shown))
    codes = {line: own(*shlex.split(line, comments=True)[1:]).code for line in commands if line not in casts}
    assert len(codes) == 6
    assert {shlex.split(line)[2]: code for line, code in codes.items()} == {
        "resume": 1,  # there is nothing to resume
        "stop": 1,
        "kill": 1,
        "list": 0,
        "info": 0,
        "metrics": 0,
    }


# -- casting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["grid", "--param", "lr=1,2", "true"], 3, "The command has no ':lr:' for parameter 'lr'."),
        (["grid", "--param", "lr=1,2", "echo :lr: :b:"], 3, "The command's ':b:' has no value."),
        (["grid", "--param", "lr=1,2", "--param", "rl=1", "echo :lr:"], 3, "no ':rl:' for parameter 'rl'."),
        (["grid", "echo :lr:"], 2, "A search needs a parameter."),
        (["grid", "--param", "lr=0:1", "echo :lr:"], 3, "but a grid search needs values"),
        (["grid", "--param", "lr=", "echo :lr:"], 3, "Parameter 'lr': It has no value."),
        (
            ["grid", "--param", "lr=5..1", "echo :lr:"],
            3,
            "Any number between is 1:5:int, these two values are 1,5, and",
        ),
        (
            ["random", "-n", "20", "--param", "lr=a:b", "echo :lr:"],
            3,
            "trial would be the same: 'lr' has only one value, 'a:b'",
        ),
        (["random", "-n", "3", "--param", "lr=3:1", "echo :lr:"], 3, "The range 3:1 is empty"),
        (["random", "-n", "3", "--param", "lr=0:1:log", "echo :lr:"], 3, "MIN must be more than 0"),
        (["random", "-n", "3", "--json-param", "lr=[1", "echo :lr:"], 3, "'[1' is not JSON"),
        (["random", "-n", "0", "--param", "lr=0:1", "echo :lr:"], 2, "0 is not in the range"),
        (["random", "--param", "lr=0:1", "echo :lr:"], 2, "needs a number of runs.\n       Give it with: -n 20"),
        (["grid", "--param", "lr=1", "lr=2", "echo :lr:"], 2, "Write it as: --param lr=V1,V2"),
        (["random", "-n", "1", "--seed", str(1 << 63), "--param", "lr=0:1", "echo :lr:"], 2, "is not in the range"),
        (["bayesian", "-n", "3", "--param", "lr=0:1", "echo :lr:"], 2, "Name it with: --metric METRIC"),
        (["grid", "--param", "a\nb=1", "echo :a:"], 3, "is not a word of letters"),
        (["grid", "--param", "lr=1,2"], 2, "command"),
        (["grid", "--param", "lr=1,2", "-t", "giant", "echo :lr:"], 2, "There is no machine type 'giant'."),
        (["grid", "--param", "lr=1,2", "-m", "runs/777", "echo :lr:"], 1, "There is no run '777'."),
        (["gird"], 2, "Did you mean 'grid'?"),
        (["info", "777"], 1, "There is no search '777'."),
        (["stop", "a/../b"], 1, "There is no search 'a/../b'."),
        (["metrics", ""], 2, "SEARCH is empty."),
        (["resume", "latest~1"], 1, "There is no search 'latest~1'."),
    ],
)
def test_what_is_typed_wrong_casts_nothing(shared: Spell, words: list[str], code: int, said: str) -> None:
    shared.client.server.get()
    before = shared.client.searches.list()
    done = shared("hyper", *words)
    assert (done.code, said.lower() in done.err.lower()) == (code, True), done
    assert "Traceback" not in done.err
    assert "Casting" not in done.out
    assert shared.client.searches.list() == before


def test_values_go_into_the_command_as_they_stand(shared: Spell) -> None:
    done = shared(
        "hyper", "grid", "--json-param", 'x=["a,b", 2.50, true, [1, 2.0], {"a": [3, "b"]}]', "--json", "echo ':x:'"
    )
    assert done.code == 0, done
    values = ["a,b", "2.50", "true", "[1,2.0]", '{"a":[3,"b"]}']
    assert [trial["params"]["x"] for trial in done.json()["trials"]] == values
    assert "Space     x=a,b,2.50,true" in shared("hyper", "info", "latest").out
    run = done.json()["trials"][0]["run"]
    assert shared.log(run) == b"a,b\n"
    assert "grid" in shared("hyper", "list").out


def test_a_failing_trial_is_told_and_how_to_go_on(own: Spell) -> None:
    done = own("hyper", "grid", "--param", "x=1,0,4", "--metric", "loss", "--direction", "maximize", send("8 / x"))
    assert done.code == 0, done
    said = re.sub(r" \([\d.]+s\)", "", done.out)
    assert "💥 Trial 2 (run 2) failed: the command ended with exit code 1  x=0" in said
    assert said.splitlines()[-4:] == [
        "🎉 Best: run 1, loss 8, with x=1",
        "🎉 Search 1 complete: 2 of 3 trials complete, 1 failed",
        "ℹ️  Use 'spell logs -v 2' to see what happened in run 2.",
        "ℹ️  Use 'spell hyper resume 1' to cast failed trials again, and those that were never cast.",
    ]
    table = [re.split(r"  +", line) for line in said.splitlines() if re.match(r"RUN ID|\d", line)]
    assert [[row[0], row[1], *row[3:]] for row in table] == [
        ["RUN ID", "STATUS", "x", "loss"],
        ["1", "Complete (0)", "1", "8 (best)"],
        ["2", "Failed (1)", "0", "-"],
        ["3", "Complete (0)", "4", "2"],
    ]
    again = own("hyper", "resume", "latest")
    assert lines_of(again)[0] == "💫 Resuming hyperparameter search #1…"
    assert "Trial 2 (run 4) failed" in again.out
    assert "Trial 1" not in again.out.split("RUN ID")[0] or "(run 1) complete" in again.out

    assert own("hyper", "grid", "--param", "x=0", send("1 / x")).code == 1, "none is complete"


def test_list_info_and_metrics(own: Spell) -> None:
    assert own("hyper", "list").out == "There are no searches yet. Try: spell hyper grid -h\n"
    done = own("hyper", "grid", "-b", "--param", "x=1,2", "--metric", "loss", send("x / 3"))
    assert lines_of(done) == ["💫 Casting hyperparameter search #1…", "Follow it with `spell hyper info -f 1`"]
    followed = own("hyper", "info", "-f", "1")
    assert followed.code == 0
    assert "🎉 Best: run 1, loss 0.333333, with x=1" in lines_of(followed)
    assert lines_of(own("hyper", "list"))[1].split()[:8] == "1 grid 2/2 Complete loss 0.333333 (run 1)".split()
    shown = own("hyper", "info", "latest").out
    assert "Metric    loss (last, minimize)" in shown.splitlines()
    assert "0.333333 (best)" in shown
    rows = list(csv.DictReader(io.StringIO(own("hyper", "metrics", "1", "--csv").out)))
    assert [(row["run_id"], row["metric_name"], row["index"], float(row["value"])) for row in rows] == [
        ("1", "loss", "0", 1 / 3),
        ("2", "loss", "0", 2 / 3),
    ]
    values = lines_of(own("hyper", "metrics", "1", "loss"))
    assert len(values) == 3
    assert (
        values[0].split()
        == lines_of(own("metrics", "1", "2", "loss"))[0].split()
        == "RUN METRIC STEP VALUE TIME".split()
    )
    assert [item["run"] for item in own("hyper", "metrics", "1", "--json").json()] == [1, 2]
    drawn = own(
        "hyper", "metrics", "1", "--chart", "--log", env={"LC_ALL": "C.UTF-8", "COLUMNS": "60"}
    ).out.splitlines()
    assert drawn[:2] == ["loss", "* 1 x=1   + 2 x=2"]
    assert own("hyper", "metrics", "1", "--chart", "--csv").code == 2
    nothing = own("hyper", "metrics", "1", "acc")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "Its trials have sent no such metrics.\nSent: loss\n")
    cast = own("hyper", "random", "-b", "--json", "-n", "2", "--param", "x=0:1", "true :x:").json()
    assert (cast["number"], cast["kind"], cast["trials_count"]) == (2, "random", 2)
    assert own("hyper", "info", "2", "-f", "--json").json()["trials_complete"] == 2


def test_a_metric_that_nobody_sends(shared: Spell) -> None:
    done = shared("hyper", "grid", "--param", "x=1,2", "--metric", "lose", send("x"))
    assert done.code == 0
    assert "No trial sent the metric 'lose'. They sent these: loss." in done.err
    assert "Best" not in done.out


# -- looking on -------------------------------------------------------------------------------------------------------


def test_interrupt_only_detaches(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"[ :x: = 1 ] || {waiting_for(gate)}"
    process = own.popen("hyper", "grid", "--param", "x=1,2,3", command, start_new_session=True)
    assert process.stdout
    said = b""
    while b"Trial 1 (run 1) complete" not in said:
        said += process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out.decode().splitlines()[1:] == [
        "✨ Your search goes on without this terminal.",
        "✨ Use 'spell hyper info -f 1' to follow it again.",
        "✨ Use 'spell hyper stop 1' to save outputs and stop it, 'spell hyper kill 1' to lose them.",
    ]
    assert b"Traceback" not in err
    following = own.popen("hyper", "info", "-f", "1")
    own.kill_server()
    gate.touch()
    out, err = following.communicate(timeout=60)
    assert following.returncode == 0, (out, err)
    assert "Search 1 complete: 3 of 3 trials complete" in out.decode().splitlines()[-1]


def test_a_terminal_shows_a_table_of_what_goes_on(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"[ :x: = 1 ] || {waiting_for(gate)}"
    words = [str(BIN / "spell"), "hyper", "grid", "-f", "--param", "x=1,2", command]
    with Terminal(words, own.cwd, own.env, 100) as terminal:
        terminal.sees(
            lambda lines: (
                "1 of 2 trials have ended" in lines[-1] and any(line.split()[:2] == ["2", "*Running"] for line in lines)
            )
        )
        gate.touch()
        assert terminal.ends() == 0
        lines = [line for line in terminal.screen.lines if line]
    assert lines[-1].startswith("🎉 Search 1 complete: 2 of 2 trials complete")
    assert not [line for line in lines if "trials have ended" in line], "the live table leaves no trace"


def test_nothing_is_left_of_an_ascii_terminal(shared: Spell) -> None:
    done = shared("hyper", "grid", "--param", "x=1", "true :x:", env={"LC_ALL": "C"})
    assert (done.code, done.out.isascii()) == (0, True), done


def test_a_reader_that_goes_away_ends_nothing(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    process = own.popen("hyper", "grid", "--param", "x=1,2", f"{waiting_for(gate)}; true :x:")
    assert process.stdout
    assert process.stdout.readline()
    process.stdout.close()
    gate.touch()
    process.wait(timeout=60)
    assert process.stderr
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    wait_for(lambda: own.client.searches.get("1").state == "complete", "the end of the search")


def test_completion_offers_searches(shared: Spell) -> None:
    shared("hyper", "grid", "-b", "--param", "x=1", "true :x:")
    env = {"_SPELL_COMPLETE": "bash_complete", "COMP_WORDS": "spell hyper info ", "COMP_CWORD": "3"}
    offered = shared(env=env).out.split()
    assert {"plain,latest", "plain,1"} <= set(offered)


@pytest.mark.parametrize("module", ["orchestrator.cli.main", "orchestrator.cli.searches"])
def test_the_command_line_loads_neither_optuna_nor_rich(module: str) -> None:
    code = f"import {module}, sys; print([name for name in ('optuna', 'rich', 'sqlalchemy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
