"""The background loops: what makes them go, what they do with errors, and how they end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from conftest import DEADLINE_S

from orchestrator.loops import Loop

FOREVER_S = 3600.0


class Work:
    """A step that is held at a gate, which is open at first, and raises what it is given."""

    def __init__(self) -> None:
        self.entered, self.gate = threading.Semaphore(0), threading.Event()
        self.gate.set()
        self.calls = 0
        self.errors: list[Exception] = []

    def __call__(self) -> None:
        self.calls += 1
        self.entered.release()
        self.gate.wait(DEADLINE_S)
        if self.errors:
            raise self.errors.pop(0)

    def is_entered(self) -> bool:
        """Whether there is another call within the limit."""
        return self.entered.acquire(timeout=DEADLINE_S)


@pytest.fixture
def work() -> Iterator[Work]:
    """A step that is let go at the end."""
    made = Work()
    yield made
    made.gate.set()


def running(name: str) -> list[threading.Thread]:
    """The threads of this name."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_loop_begins_with_a_pass_and_makes_one_for_each_wake(work: Work) -> None:
    loop = Loop("test", work)
    assert (loop.begun, work.calls) == (0, 0)
    loop.start()
    try:
        for expected in (1, 2, 3):
            loop.wait_for_pass(expected - 1, DEADLINE_S)
            assert (loop.begun, work.calls) == (expected, expected)
            loop.wake()
    finally:
        loop.close()


def test_wakes_before_the_start_are_one_with_it(work: Work) -> None:
    loop = Loop("test", work)
    loop.wake()
    loop.wake()
    loop.start()
    loop.wait_for_pass(0, DEADLINE_S)
    loop.close()
    assert work.calls == 1


def test_a_wake_in_the_middle_of_a_pass_is_not_lost(work: Work) -> None:
    loop = Loop("test", work)
    work.gate.clear()
    loop.start()
    try:
        assert work.is_entered()
        seen = loop.begun
        for _ in range(3):
            loop.wake()
        with pytest.raises(TimeoutError, match="The loop test made no pass within"):
            loop.wait_for_pass(seen, 0.01)  # the pass at work may have looked before
        work.gate.set()
        loop.wait_for_pass(seen, DEADLINE_S)
        assert work.calls == 2
    finally:
        loop.close()


def test_after_an_error_it_goes_on_by_itself(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    """An error is logged once while its words stay the same, and other steps do not suffer for it."""
    other = Work()
    work.errors = [OSError("full"), OSError("full"), OSError("fuller")]
    loop = Loop("test", work, other, error_pause_s=0.01)
    loop.start()
    try:
        loop.wait_for_pass(3, DEADLINE_S)
        assert (work.calls, other.calls) == (4, 4)
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["full", "fuller"]
        assert set(caplog.messages) == {"test: a pass failed; the next one is in 0.01 s"}
        work.errors = [OSError("fuller")]
        loop.wake()
        loop.wait_for_pass(5, DEADLINE_S)
        assert len(caplog.records) == 3  # it had been well in between
    finally:
        loop.close()


def test_the_wait_between_two_passes(work: Work) -> None:
    """It is asked for after each pass; a loop that waits long is woken all the same."""
    waits: list[float | None] = [0.0, 0.01, FOREVER_S]
    loop = Loop("test", work, wait_s=lambda: waits.pop(0) if waits else None)
    loop.start()
    try:
        loop.wait_for_pass(2, DEADLINE_S)
        assert (work.calls, waits) == (3, [])
        loop.wake()
        loop.wait_for_pass(3, DEADLINE_S)
        assert work.calls == 4
    finally:
        loop.close()


def test_a_wait_that_cannot_be_told_is_an_error_like_any_other(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[dict[str, float]] = [{}, {"s": FOREVER_S}]
    loop = Loop("test", work, wait_s=lambda: answers.pop(0)["s"], error_pause_s=0.01)
    loop.start()
    try:
        loop.wait_for_pass(1, DEADLINE_S)
    finally:
        loop.close()
    assert work.calls == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_close_waits_for_the_step_at_work(work: Work) -> None:
    later = Work()
    loop = Loop("closed", work, later)
    work.gate.clear()
    loop.start()
    assert work.is_entered()
    closing = threading.Thread(target=loop.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    work.gate.set()
    closing.join(DEADLINE_S)
    assert not closing.is_alive()
    assert loop.is_closing()
    assert (running("closed"), later.calls) == ([], 0)


def test_close_does_not_wait_for_ever(work: Work) -> None:
    loop = Loop("hangs", work)
    work.gate.clear()
    loop.start()
    assert work.is_entered()
    loop.close(0.01)
    (thread,) = running("hangs")
    work.gate.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert work.calls == 1


def test_close_in_the_pause_after_an_error_does_not_wait_it_out(work: Work) -> None:
    work.errors = [OSError("full")]
    loop = Loop("pauses", work, error_pause_s=FOREVER_S)
    loop.start()
    loop.wait_for_pass(0, DEADLINE_S)
    loop.close()
    assert (running("pauses"), work.calls) == ([], 1)


def test_a_wake_in_the_pause_after_an_error_is_served_at_once(work: Work) -> None:
    """One during the pass that failed is not: a step that wakes its own loop and fails would never pause."""

    def wakes() -> None:
        loop.wake()

    work.errors = [OSError("full"), OSError("full")]
    loop = Loop("pauses", wakes, work, error_pause_s=FOREVER_S)
    loop.start()
    try:
        for expected in (1, 2):
            loop.wait_for_pass(expected - 1, DEADLINE_S)
            with pytest.raises(TimeoutError):
                loop.wait_for_pass(expected, 0.05)
            assert work.calls == expected
            loop.wake()
        loop.wait_for_pass(2, DEADLINE_S)
    finally:
        loop.close()


def test_close_twice_and_close_before_the_start(work: Work) -> None:
    loop = Loop("twice", work)
    loop.start()
    loop.wait_for_pass(0, DEADLINE_S)
    loop.close()
    loop.close()
    assert (running("twice"), work.calls) == ([], 1)
    never = Loop("never", work)
    never.close()
    never.start()
    for thread in running("never"):
        thread.join(DEADLINE_S)
    assert (running("never"), work.calls) == ([], 1)
