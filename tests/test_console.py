"""What a person sees: on a real pseudo-terminal, and where standard output is none."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BIN, Spell, wait_for
from terminal import Terminal

from orchestrator.cli.output import show
from orchestrator.cli.output.console import exit_code
from orchestrator.home import Home
from orchestrator.machine import detect
from orchestrator.records.run_summary import RunSummary

DETACHED = [
    "✨ Your run goes on without this terminal.",
    "✨ Use 'spell stop {n}' to save outputs and stop your run.",
    "✨ Use 'spell kill {n}' to terminate your run. All outputs will be lost.",
    "✨ Use 'spell logs -f {n}' to view logs again",
]
BEFORE = ["✨ Machine_Requested… done", "✨ Building… done", "✨ Run is running"]
AFTER = ["✨ Saving… done", "✨ Pushing… done"]


@pytest.fixture(scope="module")
def home(make_shared: Callable[..., Spell]) -> Spell:
    """One home for all of these; a run of type `whole` takes the whole machine."""
    return make_shared("console", config=f"[machine_types.whole]\ncpus = {detect().cpus:g}\n")


@pytest.fixture
def spell(home: Spell) -> Iterator[Spell]:
    """That home, without active runs."""
    yield home
    home.clear()


def on_terminal(spell: Spell, *words: str, columns: int = 100, cwd: Path | None = None, **env: str) -> Terminal:
    """`spell WORDS…` on a terminal."""
    return Terminal([str(BIN / "spell"), *words], cwd or spell.cwd, spell.env | env, columns)


def waiting_for(gate: Path) -> str:
    """A command that ends when the file is there."""
    return f"until [ -e '{gate}' ]; do sleep 0.02; done"


def number_of(terminal: Terminal) -> int:
    """The number of the run that was cast there."""
    line = next(line for line in terminal.sees("Casting spell #") if "Casting" in line)
    return int(re.sub(r"\D", "", line))


def shown(lines: list[str], number: int) -> list[str]:
    """The lines, with a run's number in place of `{n}`."""
    return [line.format(n=number) for line in lines]


# -- the spinner ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [100, 34])
def test_spinner_moves_fits_and_leaves_no_trace(spell: Spell, repo: Path, tmp_path: Path, columns: int) -> None:
    gate = tmp_path / "gate"
    blocker = spell.cast(waiting_for(gate), machine_type="whole")
    spell.reaches(blocker, "running")
    with on_terminal(spell, "run", "-f", "echo one; echo two", columns=columns, cwd=repo) as terminal:
        number = number_of(terminal)
        for sign in "⭐🌟⭐":
            lines = terminal.sees(lambda lines, sign=sign: lines[-1].startswith(f"{sign} Machine_Requested… "))
            waiting = "Run created -- waiting for a machine."
            assert lines[-1].endswith(waiting if columns == 100 else "…")
            assert show.width(lines[-1]) < columns
        gate.touch()
        assert terminal.ends() == 0
        lines = terminal.screen.lines
    assert lines[:2] == [f"💫 Casting spell #{number}…", "✨ Stop viewing logs with ^C"]
    assert lines[2:-2] == [*BEFORE, "one", "two", *AFTER]
    assert re.fullmatch(r"🎉 Total run time: [\d.]+s", lines[-2])
    assert lines[-1] == f"🎉 Run {number} complete"


def test_spinner_follows_a_window_that_gets_narrow(spell: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    spell.cast(waiting_for(gate), machine_type="whole")
    with on_terminal(spell, "run", "-f", "true", columns=120) as terminal:
        terminal.sees("waiting for a machine.")
        terminal.resize(30)
        terminal.sees(lambda lines: "Machine_Requested" in lines[-1] and show.width(lines[-1]) < 30)
        gate.touch()
        assert terminal.ends() == 0


def test_build_log_moves_in_the_spinner_without_its_colours() -> None:
    assert (
        show.cut(show.without_ansi("\x1b[32mResolved\x1b[0m 3 packages\x1b]0;title\x07"), 80) == "Resolved 3 packages"
    )


def test_spinner_in_ascii(spell: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    spell.cast(waiting_for(gate), machine_type="whole")
    with on_terminal(spell, "run", "-f", "true", LC_ALL="C") as terminal:
        for sign in "/-":
            terminal.sees(lambda lines, sign=sign: lines[-1].startswith(f"{sign} Machine_Requested... Run created"))
        gate.touch()
        assert terminal.ends() == 0
        assert terminal.raw.isascii()
        assert terminal.screen.lines[-1].endswith(" complete")


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_gets_plain_lines(spell: Spell, term: str) -> None:
    with on_terminal(spell, "run", "-f", "echo hi", TERM=term) as terminal:
        number = number_of(terminal)
        assert terminal.ends() == 0
        assert b"\x1b" not in terminal.raw
        assert terminal.screen.lines[-6:-2] == ["✨ Run is running", "hi", *AFTER]
        assert terminal.screen.lines[-1] == f"🎉 Run {number} complete"


def test_verbose_says_every_state_and_no_spinner(spell: Spell) -> None:
    with on_terminal(spell, "run", "-f", "-v", "echo hi") as terminal:
        number = number_of(terminal)
        assert terminal.ends() == 0
        states = [line for line in terminal.screen.lines if line.startswith("✨ Run is ")]
        assert states == [f"✨ Run is {name}" for name in "machine_requested building running saving pushing".split()]
        assert "\rhi" not in terminal.raw.decode() and "⭐" not in terminal.raw.decode()
        assert terminal.screen.lines[-1] == f"🎉 Run {number} complete"


# -- questions --------------------------------------------------------------------------------------------------------

NO_REPOSITORY = "Could not find a git repository, so no user files will be available. Continue anyway? [Y/n]:"


def test_asked_where_there_is_no_repository(spell: Spell, tmp_path: Path) -> None:
    before = len(spell.client.runs.list())
    home = {"HOME": str(tmp_path)}  # nobody's project
    with on_terminal(spell, "run", "ls", cwd=tmp_path, **home) as terminal:
        assert terminal.sees("Continue anyway")[-1] == NO_REPOSITORY
        terminal.type("n\n")
        assert terminal.ends() == 1
        assert terminal.screen.lines[-1] == "Nothing was cast."
    assert len(spell.client.runs.list()) == before
    with on_terminal(spell, "run", "ls; echo end", cwd=tmp_path, **home) as terminal:
        terminal.sees("Continue anyway")
        terminal.type("\n")
        assert terminal.ends() == 0
        assert "✨ Run is running end" in " ".join(terminal.screen.lines)
    assert spell.client.runs.get("latest").spec["code"] is None


def test_who_interrupts_a_question_is_done(spell: Spell, tmp_path: Path) -> None:
    with on_terminal(spell, "run", "true", cwd=tmp_path, HOME=str(tmp_path)) as terminal:
        terminal.sees(NO_REPOSITORY)
        terminal.interrupt()
        terminal.sees(lambda lines: "Nothing was cast." in lines)
        assert terminal.ends() == 130


def test_asked_whether_to_keep_the_secrets_of_a_file(spell: Spell, repo: Path) -> None:
    (repo / ".git" / "vars").write_text("MY_TOKEN=abcdefghijkl\n")
    words = ["run", "--env-file", ".git/vars", "echo $MY_TOKEN"]
    with on_terminal(spell, *words, cwd=repo) as terminal:
        terminal.sees("Keep them as secrets of spell")
        terminal.type("\n")
        assert terminal.ends() == 0
        assert "✨ Run is running ***" in " ".join(terminal.screen.lines)
    assert [item.name for item in spell.client.secrets.list()] == ["MY_TOKEN"]
    spell.client.secrets.remove("MY_TOKEN")


def test_asked_before_a_big_folder_is_sent(spell: Spell, tmp_path: Path) -> None:
    folder = tmp_path / "big"
    folder.mkdir()
    with (folder / "data").open("wb") as file:
        file.truncate(300 << 20)
    before = len(spell.client.runs.list())
    with on_terminal(spell, "run", "ls", cwd=folder) as terminal:
        assert terminal.sees("Send all of it?")[0].startswith("Folder big is big (1 file, 300M). The biggest in it")
        terminal.type("\n")
        assert terminal.ends() == 1
    assert len(spell.client.runs.list()) == before


def test_asked_about_untracked_files(spell: Spell, repo: Path) -> None:
    for number in range(12):
        (repo / f"new-{number:02}.txt").write_text("x")
    with on_terminal(spell, "run", "ls", cwd=repo) as terminal:
        lines = terminal.sees("Continue the run anyway?")
        assert lines[0] == "There are some untracked files in repo project. They won't be available on this run."
        assert lines[1:12] == [*(f"  new-{number:02}.txt" for number in range(10)), "  … and 2 more"]
        terminal.type("n\n")
        assert terminal.ends() == 1
    with on_terminal(spell, "run", "ls", cwd=repo) as terminal:
        terminal.sees("Continue the run anyway?")
        terminal.type("y\n")
        assert terminal.ends() == 0
        assert "hello.py" in terminal.screen.lines


def test_force_asks_nothing(spell: Spell, repo: Path) -> None:
    (repo / "new.txt").write_text("x")
    with on_terminal(spell, "run", "--force", "ls", cwd=repo) as terminal:
        assert terminal.ends() == 0
        assert terminal.screen.lines[0].startswith("WARNING: There are some untracked files in repo project.")
        assert "Continue" not in "".join(terminal.screen.lines)


def test_copying_asks_before_it_overwrites(spell: Spell, tmp_path: Path) -> None:
    number = spell.run("echo new > a; echo new > b").number
    (tmp_path / "a").write_text("old")
    with on_terminal(spell, "cp", f"runs/{number}", cwd=tmp_path) as terminal:
        terminal.sees("File 'a' already exists. Are you sure you want to overwrite? [y/N]:")
        terminal.type("n\n")
        assert terminal.ends() == 0
        assert terminal.screen.lines[-1] == "✔ Copied 1 file. Skipped 1 file."
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("old", "new\n")


# -- ^C ---------------------------------------------------------------------------------------------------------------


def test_interrupt_detaches_and_the_run_goes_on(spell: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with on_terminal(spell, "run", "-f", f"echo begun; {waiting_for(gate)}; echo over") as terminal:
        number = number_of(terminal)
        terminal.sees("begun")
        terminal.interrupt()
        assert terminal.ends() == 130
        assert terminal.screen.lines[-4:] == shown(DETACHED, number)
    assert spell.client.runs.get(str(number)).state == "running"
    with on_terminal(spell, "logs", "-f", str(number)) as terminal:
        terminal.sees("begun")
        terminal.interrupt()
        assert terminal.ends() == 130
        assert terminal.screen.lines[-4:] == shown(DETACHED, number)
    gate.touch()
    run = spell.ended(number)
    assert (run.state, spell.log(number)) == ("complete", b"begun\nover\n")


def test_interrupt_while_the_run_waits_for_a_machine(spell: Spell, tmp_path: Path) -> None:
    spell.cast(waiting_for(tmp_path / "gate"), machine_type="whole")
    with on_terminal(spell, "run", "-f", "true") as terminal:
        number = number_of(terminal)
        terminal.sees("waiting for a machine.")
        terminal.interrupt()
        assert terminal.ends() == 130, terminal.screen.lines
        assert not any("Machine_Requested" in line for line in terminal.screen.lines)
        assert terminal.screen.lines[-4:] == shown(DETACHED, number)
    assert spell.client.runs.get(str(number)).state == "machine_requested"


def test_interrupt_of_json_keeps_standard_output_clean(spell: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = [str(BIN / "spell"), "run", "-f", "--json", waiting_for(gate)]
    kept = tmp_path / "out"
    with Terminal(["sh", "-c", f'exec "$@" > {kept}', "sh", *command], spell.cwd, spell.env) as terminal:
        wait_for(lambda: any(run.state == "running" for run in spell.client.runs.list()), "the run")
        terminal.interrupt()
        assert terminal.ends() == 130
        number = spell.client.runs.get("latest").number
        assert terminal.screen.lines[-4:] == shown(DETACHED, number)
    assert kept.read_bytes() == b""


# -- colours, signs, characters ---------------------------------------------------------------------------------------


def test_colours_only_where_they_are_wanted(spell: Spell) -> None:
    with on_terminal(spell, "info", "no-such-run") as terminal:
        assert terminal.ends() == 1
        assert b"\x1b[31mERROR:\x1b[0m There is no run" in terminal.raw
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with on_terminal(spell, "info", "no-such-run", **env) as terminal:
            assert terminal.ends() == 1
            assert b"\x1b" not in terminal.raw
            assert terminal.screen.lines[0] == "ERROR: There is no run 'no-such-run'."
    assert "\x1b" not in spell("info", "no-such-run").err


@pytest.mark.parametrize("env", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}])
def test_ascii_where_output_is_not_utf8(spell: Spell, env: dict[str, str]) -> None:
    done = spell("run", "echo hello; exit 3", env={"PYTHONIOENCODING": "", **env})
    number = int(done.out.splitlines()[0].removeprefix("Casting spell #").removesuffix("..."))
    assert (done.code, done.out.isascii(), done.err.isascii()) == (3, True, True)
    lines = done.out.splitlines()
    assert lines[1:-1] == [
        "Stop viewing logs with ^C",
        "Machine_Requested... done",
        "Building... done",
        "Run is running",
        "hello",
        "Saving... done",
        "Pushing... done",
    ]
    assert lines[-1].startswith(f"Run {number} failed: the command ended with exit code 3 (")


def test_the_runs_own_bytes_are_untouched_in_ascii(spell: Spell) -> None:
    done = spell.popen("logs", str(spell.run(r"printf '\303\251\377\r|'").number))
    out, _ = done.communicate(timeout=60)
    assert out == b"\xc3\xa9\xff\r|"


def test_a_last_line_without_its_end_keeps_the_states_apart(spell: Spell) -> None:
    done = spell("run", "printf half")
    assert "\nhalf\n✨ Saving… done\n" in done.out


def test_failure_of_a_build_says_where_to_look(spell: Spell) -> None:
    done = spell("run", "-f", "--pip", "no-such-package==0.0.1", "true", env={"UV_OFFLINE": "1"})
    number = done.number
    assert done.code == 1
    last = done.out.splitlines()[-2:]
    assert last[0].startswith(f"💥 Run {number} build failed: the environment could not be built: ")
    assert last[1] == f"ℹ️  Use 'spell logs {number} --verbose' to examine cause of error."
    assert "no-such-package" in spell("logs", "--verbose", str(number)).err


# -- how things look --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (13.07418, "13.07418s"),
        (6.870837, "6.870837s"),
        (67.057677, "1m7.057677s"),
        (160594.553059, "44h36m34.553059s"),
        (3600, "1h0m0s"),
        (59.9999999, "1m0s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (512, "512B"),
        (1229, "1.2K"),
        (15 << 20, "15M"),
        (1023, "1023B"),
        (1 << 50, "1024T"),
        (9 << 30, "9.0G"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert show.size(count) == text


@pytest.mark.parametrize(
    ("text", "cells"),
    [("abc", 3), ("日本語", 6), ("e\u0301", 1), ("🎉", 2), ("ℹ️", 2), ("a\u200bb", 2), ("", 0), ("한글 é", 6)],
)
def test_width_in_cells(text: str, cells: int) -> None:
    assert show.width(text) == cells


@pytest.mark.parametrize("text", ["x" * 100, "日本語" * 40, "🎉é\u0301 \n" * 30, "a\x1b[2Jb" * 30])
@pytest.mark.parametrize("room", [0, 1, 2, 7, 40])
def test_cut_never_exceeds_its_room(text: str, room: int) -> None:
    line = show.cut(text, room)
    assert show.width(line) <= room
    assert "\n" not in line and "\x1b" not in line
    if room:
        assert line.endswith("…")


def test_control_characters_are_spelled_out() -> None:
    assert show.safe("a\x1b]0;x\x07b\u202ec\nd\te") == "a\\x1b]0;x\\x07b\\u202ec\nd\te"


def test_table_aligns_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(["A", "B"], [["日本", "x"], ["abcde", "y"], ["🎉\n", "z"]])
    lines = capsys.readouterr().out.splitlines()
    assert [show.width(line[: line.index(end)]) for line, end in zip(lines, "Bxyz", strict=True)] == [7] * 4


def test_a_narrow_terminal_gets_whole_lines_of_tables_and_texts(spell: Spell) -> None:
    run = spell.run("echo a command that is longer than its column may be", name="a-name-that-is-long-too")
    with on_terminal(spell, "ps", "-v", "-n", "1", columns=60) as terminal:
        assert terminal.ends() == 0
    headers, row = terminal.screen.lines[:-2]
    assert headers.split() == "ID NAME COMMAND STATUS CREATED".split()
    assert row.startswith(f"{run.number} ") and row.endswith("Complete (0)  just now")
    assert terminal.screen.lines[-2:] == [
        "Not shown, as the terminal is too narrow: REPOSITORY,",
        "COMMIT, MACHINE, DURATION, DESCRIPTION, PROJECT, LABELS",
    ]
    with on_terminal(spell, "info", "latest", columns=40) as terminal:
        assert terminal.ends() == 0
    at = next(place for place, line in enumerate(terminal.screen.lines) if line.startswith("Reason "))
    assert [line.rstrip() for line in terminal.screen.lines[at : at + 2]] == [
        "Reason        the command ended with",
        "              exit code 0",
    ]
    assert spell("ps", "-v").out.splitlines()[-1].split()[2:6] == ["-", "echo", "a", "command"], (
        "elsewhere all is shown"
    )


def ended(state: str, code: int | None = None, signal: int | None = None) -> RunSummary:
    """A run that ended so."""
    nothing = dict(name="", wish=None, command="", description="", labels=[], machine_type="", executor="")
    nothing |= dict(repository="", commit="", dirty=False, created_at=0.0, started_at=None, ended_at=None)
    nothing |= dict(duration_s=None, reason=None, message="", project="", archived=False)
    return RunSummary(number=1, state=state, exit_code=code, signal=signal, **nothing)


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (ended("complete", 0), 0),
        (ended("failed", 7), 7),
        (ended("failed", 0), 1),  # its outputs could not be saved
        (ended("failed", signal=11), 139),
        (ended("stopped", 0), 1),  # not complete is never 0
        (ended("stopped", signal=15), 143),
        (ended("stopped"), 1),  # before its command was started
        (ended("killed", signal=9), 137),
        (ended("killed"), 1),
        (ended("build_failed"), 1),
        (ended("interrupted"), 1),
    ],
)
def test_exit_codes_of_ends(run: RunSummary, code: int) -> None:
    assert exit_code(run) == code


def test_socket_of_home_does_not_depend_on_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / ("long" * 40))
    before = home.socket
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert home.socket == before


def test_interrupt_at_any_moment_of_the_start_shows_no_traceback(spell: Spell) -> None:
    spell("ps")
    for wait_s in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
        process = spell.popen("ps")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert b"click" not in said, (wait_s, said)  # before that, it is the interpreter itself that starts
