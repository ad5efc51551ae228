"""Looking at runs and ending them: logs, ps, info, stop, kill, wait, metrics."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import BIN, Done, Spell, wait_for
from terminal import Terminal

from orchestrator.cli.output.show import width
from orchestrator.errors import ServerUnavailable, SpellError
from orchestrator.machine import detect


@pytest.fixture(scope="module")
def home(make_shared: Callable[..., Spell]) -> Spell:
    """One home for all of these; a run of type `whole` takes the whole machine."""
    return make_shared("cli-runs", config=f"[machine_types.whole]\ncpus = {detect().cpus:g}\n")


@pytest.fixture
def spell(home: Spell) -> Iterator[Spell]:
    """That home, without active runs."""
    yield home
    home.clear()


@pytest.fixture(scope="module")
def told(make_shared: Callable[..., Spell]) -> Spell:
    """A home with four runs that are only looked at."""
    spell = make_shared("told")
    spell.run("echo one", name="a", labels=("x", "y"), description="the first")
    spell.run("exit 3", name="b", labels=("y",))
    spell.run("kill -9 $$", name="a")
    spell.run("echo 'wide: 日本語 🎉 ü'\necho more; printf '\\033[31mred\\033[0m' # \x1b[2J", labels=("größe 1",))
    return spell


def bash(spell: Spell, line: str) -> Done:
    """What a person gets who types this line; `spell` is found."""
    env = spell.env | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], env=env, cwd=spell.cwd, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


# -- ps ---------------------------------------------------------------------------------------------------------------


def numbers(done: Done) -> list[int]:
    """The numbers of the runs that were listed."""
    assert done.code == 0, done
    return [run["number"] for run in done.json()]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], [1, 2, 3, 4]),
        (["-n", "2"], [3, 4]),
        (["--all"], [1, 2, 3, 4]),
        (["-s", "complete"], [1, 4]),
        (["--state", "FAILED"], [2, 3]),
        (["-s", "complete", "-s", "failed", "-n", "1"], [4]),
        (["-s", "active"], []),
        (["-s", "queued"], []),
        (["-l", "x"], [1]),
        (["-l", "x", "--label", "y"], [1, 2]),
        (["-l", "größe 1"], [4]),
        (["--name", "a"], [1, 3]),
        (["--name", "a", "-s", "failed"], [3]),
        (["--name", "nobody"], []),
    ],
)
def test_ps_filters_and_lists_the_newest_last(told: Spell, words: list[str], found: list[int]) -> None:
    assert numbers(told("ps", "--json", *words)) == found


def test_ps_table(told: Spell) -> None:
    lines = told("ps").out.splitlines()
    assert lines[0].split() == "ID NAME REPOSITORY COMMAND STATUS CREATED".split()
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert "Complete (0)" in lines[1] and "Failed (3)" in lines[2] and "Failed (signal 9)" in lines[3]
    assert "echo 'wide: 日本語 🎉 ü' echo more; pri…" in lines[4]
    assert {
        width(line[: line.index(word)]) for line, word in zip(lines[1:], ["Comp", "Fail", "Fail", "Comp"], strict=True)
    } == {lines[0].index("STATUS")}
    verbose = told("ps", "-v").out.splitlines()
    assert verbose[0].split()[-6:] == "COMMIT MACHINE DURATION DESCRIPTION PROJECT LABELS".split()
    assert "the first" in verbose[1] and verbose[1].endswith("x, y")
    assert "\x1b" not in told("ps", "-v").out


def test_ps_of_an_empty_home_and_of_nothing(make_spell: Callable[..., Spell], told: Spell) -> None:
    empty = make_spell("empty")
    assert empty("ps").out == "There are no runs yet. Try: spell run …\n"
    assert empty("ps", "--json").json() == []
    assert empty("info", "latest").err.startswith("ERROR: There is no run 'latest'.")
    assert told("ps", "-l", "nobody").out == "No runs match.\n"


def test_ps_shows_what_is_going_on(spell: Spell) -> None:
    running = spell.cast("trap '' TERM; echo begun; while :; do sleep 0.1; done", machine_type="whole")
    waiting = spell.cast("true")
    spell.says(running, b"begun")
    shown = spell("ps", "-s", "active")
    _, *rows = shown.out.splitlines()
    assert [("*Running" in row, "Queued" in row) for row in rows] == [(True, False), (False, True)]
    assert f"Run {waiting} waits for " in shown.err and f"run {running}" in shown.err
    spell("stop", str(running))
    assert "*Stopping" in spell("ps", "-n", "2").out
    assert numbers(spell("ps", "-s", "queued", "--json")) == [waiting]


def test_ps_of_an_unknown_state_and_number(told: Spell) -> None:
    done = told("ps", "-s", "asleep")
    assert (done.code, done.err.splitlines()[0]) == (2, "ERROR: There is no state 'asleep'.")
    assert "Use one of: active, queued, machine_requested, building," in done.err
    assert told("ps", "-n", "0").code == 2


def test_listings_into_closed_pipes_and_full_disks(told: Spell) -> None:
    done = bash(told, "spell ps --all | head -n 1; echo ${PIPESTATUS[0]}")
    assert (done.out.splitlines()[0].split()[0], done.out.splitlines()[1], done.err) == ("ID", "0", "")
    for line in ("spell ps --json | true", "spell logs 4 | true", "spell info 4 | true"):
        assert bash(told, line).err == "", line
    for line in ("spell ps >&-", "spell ps <&-", "spell info 1 2>&-"):
        assert bash(told, line).code == 0, line
    if os.path.exists("/dev/full"):
        done = bash(told, "spell ps > /dev/full")
        assert (done.code, done.err) == (1, "ERROR: The output: No space left on device\n")


# -- naming a run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "number"),
    [("1", 1), ("a", 3), ("b", 2), ("latest", 4), ("latest~0", 4), ("latest~3", 1), ("0002", 2)],
)
def test_a_run_is_named_by_number_name_or_age(told: Spell, reference: str, number: int) -> None:
    assert told("info", "--json", reference).json()["number"] == number
    assert told("logs", reference).code == 0


@pytest.mark.parametrize("verb", ["info", "logs", "stop", "kill", "wait", "metrics"])
def test_unknown_runs(told: Spell, verb: str) -> None:
    done = told(verb, "99")
    assert (done.code, done.err) == (1, "ERROR: There is no run '99'.\n       See them with: spell ps\n")


@pytest.mark.parametrize(
    "reference",
    ["", ".", "..", "../server", "1/stop", "runs/1", "a b", "é🎉", "9" * 30, "latest~9", "latest~x", "1.0", "%2e"],
)
def test_what_can_be_no_run(told: Spell, reference: str) -> None:
    with pytest.raises(SpellError, match="There is no run "):
        told.client.runs.get(reference)


def test_missing_and_superfluous_words(told: Spell) -> None:
    for words in (["info"], ["logs", "1", "2"], ["stop"], ["wait"], ["logs", "1", "-n", "-1"], ["logs", "-x", "1"]):
        done = told(*words)
        assert (done.code, "Usage: spell " in done.err) == (2, True), words


# -- logs -------------------------------------------------------------------------------------------------------------


def test_logs_of_a_run_that_has_ended(told: Spell) -> None:
    done = told("logs", "4")
    assert done.out == "wide: 日本語 🎉 ü\nmore\n\x1b[31mred\x1b[0m"  # byte for byte
    assert done.err.splitlines()[-1] == "🎉 Run 4 complete"
    assert told("logs", "2").err.startswith("💥 Run 2 failed: the command ended with exit code 3 (")
    assert told("logs", "-n", "1", "4").out == "\x1b[31mred\x1b[0m"
    assert told("logs", "-n", "0", "4").out == ""
    assert told("logs", "-n", "99", "4").out == done.out


def test_logs_verbose_say_every_state(told: Spell) -> None:
    done = told("logs", "-v", "1")
    assert done.out == "one\n"
    states = [line for line in done.err.splitlines() if line.startswith("✨")]
    assert states == [f"✨ Run is {name}" for name in "machine_requested building running saving pushing".split()]


def test_logs_followed_from_different_places(spell: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    number = spell.cast(f"seq 3; until [ -e '{gate}' ]; do sleep 0.02; done; echo last")
    spell.says(number, b"3\n")
    assert spell("logs", "latest").out == "1\n2\n3\n"  # up to now
    followers = [spell.popen("logs", "-f", *words, str(number), bufsize=0) for words in ([], ["-n", "1"], ["-n", "0"])]
    assert [follower.stderr.readline().decode()[:1] for follower in followers] == ["✨"] * 3  # they follow
    gate.touch()
    for index, follower in enumerate(followers):
        out, err = follower.communicate(timeout=60)
        assert out == [b"1\n2\n3\nlast\n", b"3\nlast\n", b"last\n"][index]
        assert err.decode().splitlines()[-1] == f"🎉 Run {number} complete"
        assert follower.returncode == 0


def test_logs_follow_over_the_death_of_a_server(spell: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    number = spell.cast(f"echo before; until [ -e '{gate}' ]; do sleep 0.02; done; echo after")
    follower = spell.popen("logs", "-f", str(number), bufsize=0)
    assert follower.stdout.read(7) == b"before\n"
    spell.kill_server()
    gate.touch()
    out, _ = follower.communicate(timeout=90)
    assert (out, follower.returncode) == (b"after\n", 0)


def test_a_reader_that_goes_away_detaches(spell: Spell) -> None:
    number = spell.cast("while :; do echo x; sleep 0.02; done")
    spell.says(number, b"x")
    done = bash(spell, f"spell logs -f {number} | head -n 2; echo ${{PIPESTATUS[0]}}")
    assert (done.out, done.err.splitlines()[-1]) == ("x\nx\n141\n", "✨ Run is running")
    assert spell.client.runs.get(str(number)).state == "running"


# -- info -------------------------------------------------------------------------------------------------------------


def test_info_shows_what_there_is(spell: Spell, repo: Path) -> None:
    made = spell.run("echo x > f").number
    done = spell(
        "run", "-m", f"runs/{made}/f:g", "-e", "KEY=secret", "--param", "P=1", "--timeout", "2", "--name", "shown",
        "--label", "l", "echo :P:\nwc -c < g > h", cwd=repo,
    )  # fmt: skip
    info = spell("info", "shown").out
    facts = dict(line.split("  ", 1) for line in info.splitlines() if line[0] != " ")
    facts = {key: value.strip() for key, value in facts.items()}
    assert facts["Run"] == str(done.number)
    assert facts["Status"] == "Complete (0)"
    assert (facts["Repository"], facts["Description"], len(facts["Git Commit"])) == ("project", "Say hello", 40)
    assert (facts["Mounts"], facts["Parameters"], facts["Time Limit"]) == (f"runs/{made}/f at g", "P=1", "2m0s")
    assert (facts["Environment Vars"], facts["Labels"], facts["Outputs"]) == ("KEY", "l", "1 file, 2B")
    assert "secret" not in info
    lines = info.splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("Command "))
    assert lines[place].endswith("  echo 1") and lines[place + 1].strip() == "wc -c < g > h"
    assert lines[place + 1].index("wc") == lines[place].index("echo")
    assert ["Mounted", "By", "run", str(done.number)] in [
        line.split() for line in spell("info", str(made)).out.splitlines()
    ]


# -- ending runs ------------------------------------------------------------------------------------------------------


def test_stop_keeps_and_kill_loses(spell: Spell) -> None:
    for verb, words, state in (
        ("stop", "Stopping run {n}. Use 'spell logs -f {n}' to view logs while the job finishes.\n", "stopped"),
        ("kill", "Killing run {n}.\n", "killed"),
    ):
        number = spell.cast("echo x > kept; echo begun; sleep 1000", name="victim")
        spell.says(number, b"begun")
        done = spell(verb, "victim")
        assert (done.code, done.out, done.err) == (0, words.format(n=number), "")
        assert spell.ended(number).state == state
        assert spell("cat", f"runs/{number}/kept").code == (0 if verb == "stop" else 1)
        again = spell(verb, str(number))
        assert (again.code, again.err) == (
            1,
            f"ERROR: Run {number} is already finished: {state}.\n       See how: spell info {number}\n",
        )


def test_stop_of_a_run_that_has_not_started(spell: Spell) -> None:
    spell.reaches(spell.cast("sleep 1000", machine_type="whole"), "running")
    number = spell.cast("true")
    done = spell("stop", str(number))
    assert (done.code, done.out) == (0, f"Run {number} had not started and will not start.\n")
    assert spell.client.runs.get(str(number)).state == "killed"


def test_several_at_once_are_reported_one_by_one(spell: Spell) -> None:
    over = spell.run("true").number
    first, second = spell.cast("sleep 1000"), spell.cast("sleep 1000")
    done = spell("kill", str(first), "9999", str(over), str(second))
    assert done.code == 1
    assert done.out == f"Killing run {first}.\n" + done.out.splitlines(keepends=True)[-1]
    assert str(second) in done.out.splitlines()[-1]
    assert done.err == f"ERROR: There is no run '9999'.\nERROR: Run {over} is already finished: complete.\n"
    assert {spell.ended(first).state, spell.ended(second).state} == {"killed"}
    third = spell.cast("sleep 1000")
    quiet = spell("kill", "-q", str(third))
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_wait(spell: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    number = spell.cast(f"until [ -e '{gate}' ]; do sleep 0.02; done; exit 4")
    good = spell.run("true").number
    began = time.monotonic()
    done = spell("wait", "--timeout", "0", str(good))
    assert (done.code, done.out) == (0, f"Run {good} complete: the command ended with exit code 0\n")
    done = spell("wait", "--timeout", "0.2", str(number))
    follow = f"       It goes on. Follow it: spell logs -f {number}\n"
    assert (done.code, done.err) == (1, f"ERROR: Run {number} has not ended in time.\n{follow}")
    assert time.monotonic() - began > 0.2
    waiting = spell.popen("wait", str(good), "latest~1", bufsize=0)
    assert waiting.stdout.readline().decode() == f"Run {good} complete: the command ended with exit code 0\n"
    assert completed(spell, "spell stop ") == [str(number)], "the newest run has ended"
    interrupted = spell.popen("wait", str(good), str(number), bufsize=0, start_new_session=True)
    interrupted.stdout.readline()
    process = psutil.Process(interrupted.pid)  # a person presses ^C while it waits, not in the microsecond before
    wait_for(lambda: process.status() == psutil.STATUS_SLEEPING, "the program waits")
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.communicate(timeout=60) == (b"", b"\nThe runs go on. See them with: spell ps\n")
    assert interrupted.returncode == 130
    gate.touch()
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, err) == (4, b"")
    assert out.decode() == f"Run {number} failed: the command ended with exit code 4\n"


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics(spell: Spell) -> None:
    code = "from orchestrator.runtime import send_metric as s; s('loss', 0.5, step=1); s('loss', 0.25, step=2); s('lr', 1e-3)"
    number = spell.run(f"python -c {shlex.quote(code)}").number
    lines = [line.split()[:3] for line in spell("metrics", str(number), "loss", "lr").out.splitlines()]
    assert lines[0] == ["METRIC", "STEP", "VALUE"]
    assert sorted(lines[1:]) == [["loss", "1", "0.5"], ["loss", "2", "0.25"], ["lr", "0", "0.001"]]
    found = spell("metrics", "latest", "loss", "--json").json()
    assert [(item["name"], item["step"], item["value"]) for item in found] == [("loss", 1, 0.5), ("loss", 2, 0.25)]
    nothing = spell("metrics", str(number), "nothing")
    said = f"ERROR: Run {number} did not send the metric 'nothing'.\n       Sent: loss, lr\n"
    assert (nothing.code, nothing.out, nothing.err) == (1, "", said)
    assert completed(spell, f"spell metrics {number} l") == ["loss", "lr", "latest"]
    assert completed(spell, "spell ps --sort metric:") == ["metric:loss", "metric:lr"]
    assert completed(spell, "spell run --stop-condition lo") == ["loss"]


def test_a_run_without_metrics_says_how_to_send_some(told: Spell) -> None:
    done = told("metrics", "1")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[0] == "Run 1 has sent no metrics."
    how = "from orchestrator.runtime import send_metric\n"
    assert how in done.err
    done = told("metrics", "1", "loss")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("ERROR: Run 1 did not send the metric 'loss'.\n") and how in done.err


# -- a server in trouble ----------------------------------------------------------------------------------------------


def test_a_server_that_dies_while_it_answers(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("dying")
    number = spell.run("head -c 60000000 /dev/zero > big").number
    reader, writer = os.pipe()
    cat = spell.popen("cat", f"runs/{number}/big", stdout=writer)
    os.close(writer)
    assert os.read(reader, 10) == b"\0" * 10
    spell.kill_server()
    while os.read(reader, 1 << 20):
        pass
    os.close(reader)
    _, err = cat.communicate(timeout=60)
    assert cat.returncode == 1
    assert err.decode().startswith("ERROR: The connection to the server was lost: ")
    assert b"Traceback" not in err


def test_a_server_that_hangs(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("hanging")
    spell.run("true")
    with spell.frozen(), pytest.raises(ServerUnavailable, match="The server does not answer"):
        spell.client.transport.call("GET", "/server", read_limit_s=0.2)


# -- completion -------------------------------------------------------------------------------------------------------


def completed(spell: Spell, line: str) -> list[str]:
    """What bash would offer at the end of this line."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    env = {"_SPELL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = spell(env=env)
    assert (done.code, done.err) == (0, ""), done
    return [item.partition(",")[2] for item in done.out.splitlines() if item]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("spell lo", ["logs"]),
        ("spell s", ["search", "stats", "stop", "secret", "skill", "server"]),
        ("spell server st", ["start", "status", "stop"]),
        ("spell logs ", ["4", "3", "a", "2", "b", "1", "latest"]),
        ("spell info lat", ["latest"]),
        ("spell stop ", []),  # nothing runs
        ("spell exec ", []),
        ("spell hyper stop ", []),
        ("spell workflow kill ", []),
        ("spell run --executor pro", ["process"]),
        ("spell rerun 1 --framework ", ["pytorch", "transformers"]),
        ("spell info -", ["--json", "-h", "--help"]),
        ("spell ps --state comp", ["complete"]),
        ("spell ps -s ", None),
        ("spell ps --label ", ["größe 1", "y", "x"]),
        ("spell ps --name ", ["a", "b"]),
        ("spell run -t ", ["cpu", "gpu"]),
        ("spell ls ", ["runs/", "uploads/"]),
        ("spell cat runs/", ["runs/1/", "runs/2/", "runs/3/", "runs/4/"]),
        ("spell run -m runs/4", ["runs/4/"]),
        ("spell ls nowhere/", []),
    ],
)
def test_completion(told: Spell, line: str, offered: list[str] | None) -> None:
    found = completed(told, line)
    assert found == offered if offered is not None else {"active", "queued", "running"} < set(found)


def test_completion_never_starts_a_server(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell("untouched")
    assert completed(spell, "spell logs ") == []
    assert list(spell.home.root.iterdir()) == [spell.home.config]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(told: Spell, shell: str) -> None:
    done = told("completion", shell)
    assert (done.code, "_SPELL_COMPLETE" in done.out, done.err) == (0, True, "")


def test_completion_in_a_real_bash(told: Spell) -> None:
    line = 'eval "$(spell completion bash)"; COMP_WORDS=(spell info lat); COMP_CWORD=2; _spell_completion spell; echo "${COMPREPLY[@]}"'
    done = bash(told, line)
    assert (done.out, done.err) == ("latest\n", "")


def test_completion_where_people_type(told: Spell, tmp_path: Path) -> None:
    """No blank behind folders; verbs and files of the same word; blanks within a word; files of a command."""
    (work := tmp_path / "work").mkdir()
    (work / "in_a.yaml").touch()
    (work / "train.py").touch()
    (tmp_path / "rc").write_text('PS1="> "; eval "$(spell completion bash)"\n')
    (tmp_path / "inputrc").write_text("set enable-bracketed-paste off\nset bell-style none\n")
    env = told.env | {"PATH": f"{BIN}:{os.environ['PATH']}", "INPUTRC": str(tmp_path / "inputrc")}
    with Terminal(["bash", "--rcfile", str(tmp_path / "rc"), "-i"], work, env) as terminal:
        terminal.sees(">")
        for typed, shown in (
            ("spell ls r\t", "> spell ls runs/"),
            ("4\t", "> spell ls runs/4/"),
            ("\x15spell ps -l gr\t", "> spell ps -l größe\\ 1"),
            ("\x15spell workflow in\t\t", "info       in_a.yaml"),
            ("f\t", "> spell workflow info"),
            ("\x15spell run python tr\t", "> spell run python train.py"),
        ):
            terminal.type(typed)
            terminal.sees(shown)


def test_json_of_every_listing_is_json(told: Spell) -> None:
    for words in (
        ["ps"],
        ["info", "1"],
        ["metrics", "1"],
        ["ls"],
        ["ls", "runs/1"],
        ["machine-types"],
        ["server", "status"],
    ):
        done = told(*words, "--json")
        assert done.code == 0, done
        assert isinstance(json.loads(done.out), list | dict)
        assert done.out.isascii()
