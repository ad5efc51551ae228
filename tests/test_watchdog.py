"""Runs that are stopped when their metrics, or their silence, say so."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

import pytest
from conftest import Spell, wait_for

SEND = "from orchestrator.runtime import send_metric as send"
_STOPPED_S = 20.0


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests here."""
    return make_shared("watchdog")


def python(*lines: str) -> str:
    """A command that runs these lines."""
    text = "\n".join(lines)
    return f"python - <<'END'\n{text}\nEND"


def test_a_run_is_stopped_when_its_metric_says_so(spell: Spell) -> None:
    command = python(SEND, "import pathlib, time", "pathlib.Path('kept').touch()", "send('loss', 50)", "[send('loss', 0.5 + n, n) for n in range(100)]", "time.sleep(600)")  # fmt: skip
    run = spell.ended(spell.cast(command, stop_conditions=("loss > 90:95", "loss < 0.1")), _STOPPED_S)
    assert (run.state, run.reason, run.outputs_count) == ("stopped", "condition_met", 1)
    assert run.message == "a stop condition was met: loss > 90:95 (loss is 95.5)"


def test_the_console_says_why(spell: Spell) -> None:
    command = python(SEND, "import time", "send('loss', 0)", "time.sleep(600)")
    done = spell("run", "--stop-condition", "loss < 1", command)
    assert done.code == 143
    assert "💫 Run is stopping: loss < 1 (loss is 0)\n" in done.out
    assert "stopped: a stop condition was met: loss < 1 (loss is 0)" in done.out


def test_a_condition_that_is_not_met_changes_nothing(spell: Spell) -> None:
    command = python(
        SEND, "import time", "[send('loss', 1) for _ in range(20_001)]", "time.sleep(2)"
    )  # until it was looked at
    run = spell.ended(spell.cast(command, stop_conditions=("loss < 1", "other > 0")), _STOPPED_S)
    assert (run.state, run.reason) == ("complete", "exited_zero")


def test_what_a_failed_attempt_has_sent_does_not_count(spell: Spell) -> None:
    command = python(SEND, "import os, sys, time", "first = os.environ['SPELL_ATTEMPT'] == '1'",
        "send('loss', 99 if first else 1)", "sys.exit(1) if first else time.sleep(3)")  # fmt: skip
    run = spell.ended(spell.cast(command, stop_conditions=("loss > 100", "loss >= 99"), retries=1), _STOPPED_S)
    assert (run.state, run.attempt) in (("complete", 2), ("stopped", 1)), "the first attempt may be stopped itself"
    command = python(SEND, "import os, sys, time", "first = os.environ['SPELL_ATTEMPT'] == '1'",
        "first or send('loss', 99)", "sys.exit(1) if first else time.sleep(600)")  # fmt: skip
    run = spell.ended(spell.cast(command, stop_conditions=("loss >= 99",), retries=1), _STOPPED_S)
    assert (run.reason, run.attempt) == ("condition_met", 2)


def test_a_new_server_goes_on_watching(spell: Spell) -> None:
    command = python(SEND, "import pathlib, time", "send('loss', 5)", f"go = pathlib.Path('{spell.home.root}/go')", "while not go.exists(): time.sleep(0.01)", "send('loss', 0.5)", "time.sleep(600)")  # fmt: skip
    number = spell.cast(command, stop_conditions=("loss < 1",))
    wait_for(lambda: spell.client.metrics.list(str(number)), "the first value")
    os.kill(spell.client.server.get().pid, signal.SIGKILL)
    wait_for(lambda: spell("ps").code == 0, "a new server")
    (spell.home.root / "go").touch()
    assert spell.ended(number, _STOPPED_S).reason == "condition_met"


def test_f47_a_run_that_does_nothing_is_stopped(spell: Spell) -> None:
    run = spell.ended(spell.cast("echo begins; sleep 600", no_output_timeout_s=1.5), _STOPPED_S)
    assert (run.state, run.reason) == ("stopped", "idle")
    found = re.fullmatch(r"stopped, as it printed nothing and was idle for ([0-9.]+) s", run.message)
    assert found and 1.5 <= float(found[1]) < 30


BUSY = {
    "in silence": "import time; end = time.time() + 4\nwhile time.time() < end: pass",
    "writing": "import time\nfor _ in range(20): print('.', flush=True); time.sleep(0.2)",
    "measuring": f"{SEND}\nimport time\nfor n in range(20): send('n', n); time.sleep(0.2)",
}


@pytest.mark.parametrize("how", BUSY)
def test_f47_a_run_that_does_something_goes_on(spell: Spell, how: str) -> None:
    run = spell.ended(spell.cast(python(BUSY[how]), no_output_timeout_s=1.5), _STOPPED_S)
    assert (run.state, run.reason) == ("complete", "exited_zero")


def test_f47_a_run_that_was_not_asked_to_goes_on(spell: Spell) -> None:
    assert spell.ended(spell.cast("sleep 3"), _STOPPED_S).state == "complete"


WRONG = [
    (["--stop-condition", "loss"], "'loss' is not a condition on a metric."),
    ([word for n in range(6) for word in ("--stop-condition", f"a<{n}")], "A run can have at most 5 stop conditions."),
    (["--no-output-timeout", "0"], "The time without output must be more than 0, and less than 16 million minutes."),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_wrong_words(spell: Spell, words: list[str], said: str) -> None:
    done = spell("run", *words, "true")
    assert (done.code, said in done.err) == (3, True), done
