"""The tables of states, moves and ends agree with each other."""

from __future__ import annotations

import string
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.executors.base import Verdict
from orchestrator.executors.verdict import as_words, read_verdict
from orchestrator.lifecycle.outcome import decide
from orchestrator.states import ACTIVE, ENDS, FINAL, KEEPS_OUTPUTS, MOVES, State, StopRequest, may_move

DOCS = Path(__file__).parents[1] / "docs"
PLACEHOLDERS = {"code", "signal", "detail"}
NORMAL_LIFE = ["machine_requested", "building", "mounting", "running", "saving", "pushing", "complete"]


def reachable(start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        new = MOVES[todo.pop()] - found
        found |= new
        todo += new
    return found


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(State)
    assert set(State) == ACTIVE | FINAL
    assert not ACTIVE & FINAL
    for state in State:
        assert {to for to in State if may_move(state, to)} == MOVES[state]
        assert state not in MOVES[state]


def test_every_state_can_be_reached_and_left() -> None:
    assert reachable(State.MACHINE_REQUESTED) == set(State)
    for state in ACTIVE:
        assert reachable(state) & FINAL, state
    for state in FINAL:
        assert MOVES[state] == frozenset(), state


def test_a_run_can_fail_be_killed_stopped_and_interrupted_at_any_time() -> None:
    for state in ACTIVE:
        assert {State.FAILED, State.KILLED, State.STOPPED, State.INTERRUPTED} <= MOVES[state], state


def test_only_what_was_saved_is_complete() -> None:
    assert [state for state in ACTIVE if State.COMPLETE in MOVES[state]] == [State.PUSHING]


def test_a_normal_life_is_legal() -> None:
    steps = [State(name) for name in NORMAL_LIFE]
    for current, to in pairwise(steps):
        assert may_move(current, to)
    assert may_move(State.BUILDING, State.RUNNING), "a run without mounts"


def test_ends_and_final_states_belong_together() -> None:
    assert {end.state for end in ENDS.values()} == FINAL
    for reason, end in ENDS.items():
        assert not (end.retryable and end.state == State.COMPLETE), reason


@pytest.mark.parametrize("reason", ENDS)
def test_the_words_of_an_end(reason: str) -> None:
    fields = {name for _, name, _, _ in string.Formatter().parse(ENDS[reason].text) if name}
    assert fields <= PLACEHOLDERS
    words = ENDS[reason].text.format(code=3, signal=9, detail="why")
    assert words[0].islower()
    assert not words.endswith(".")
    for name, value in (("code", "3"), ("signal", "9"), ("detail", "why")):
        assert (value in words) == (name in fields)


def test_the_page_shows_these_tables() -> None:
    drawn = subprocess.run([sys.executable, DOCS / "states.py"], capture_output=True, text=True, check=True).stdout
    assert (DOCS / "states.md").read_text() == drawn, "draw it again: python docs/states.py > docs/states.md"


def test_sets_of_states() -> None:
    assert KEEPS_OUTPUTS < FINAL
    assert State.KILLED not in KEEPS_OUTPUTS


def test_every_failure_of_a_phase_has_an_end() -> None:
    kinds = [kind for kind in errors.BY_CODE.values() if issubclass(kind, errors.PhaseFailed)]
    assert len(kinds) > 5
    for kind in kinds:
        assert ENDS[kind.reason].state in FINAL
        assert ENDS[kind.reason].state != State.COMPLETE


@pytest.mark.parametrize(
    ("flags", "exit_code", "asked", "said"),
    [
        ({}, 143, StopRequest.STOP, "stopped on request; its outputs are kept"),
        ({"out_of_memory": True}, 143, StopRequest.STOP, "stopped on request; its outputs are kept"),
        ({"disk_full": True}, 1, StopRequest.STOP, "stopped on request; its outputs are kept"),
        ({"out_of_memory": True}, 137, None, "the command ran out of memory"),
        ({"disk_full": True, "out_of_memory": True}, 137, None, "the command ran out of memory"),
        (
            {"out_of_memory": True},
            3,
            None,
            "the command ran out of memory: some of its processes were killed, and it ended with exit code 3",
        ),
    ],
)
def test_words_of_an_end_are_of_that_end(
    flags: dict[str, bool], exit_code: int, asked: StopRequest | None, said: str
) -> None:
    words = as_words(Verdict(exit_code=exit_code), 1) | flags
    verdict = read_verdict(words)
    reason = decide(verdict, asked)
    detail = verdict.detail if reason == verdict.reason else ""
    assert ENDS[reason].words(exit_code, None, detail) == said
