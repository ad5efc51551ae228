"""Tables on narrow terminals: words are cut, columns go, and the run number stays."""

from __future__ import annotations

import re
import time

import pytest

from orchestrator.cli.output import show
from orchestrator.cli.top import HEADERS, TopRow, cells
from orchestrator.records.run_summary import RunSummary

LINE = "epoch 6 with a rather long line that says what is going on, loss 0.1429"


def row(number: int, name: str, metric: str = "") -> list[str]:
    """A row of `spell top`."""
    nothing = dict(description="", labels=[], executor="process", repository="", commit="", dirty=False, wish=None)
    nothing |= dict(
        started_at=0.0, ended_at=None, exit_code=None, signal=None, duration_s=None, reason=None, message=""
    )
    run = RunSummary(
        number=number, name=name, state="running", command="python train.py", machine_type="cpu",
        created_at=time.time(), project="", archived=False, **nothing,
    )  # fmt: skip
    return cells(TopRow(run, None, metric, 46_900.0 if metric else None, LINE))


ROWS = [row(7, "a-name-of-twenty-six-signs", "tokens_per_second"), row(1234, ""), row(1235, "日本語" * 9)]


@pytest.mark.parametrize("room", [300, 120, 80, 60, 40, 25, 17, 9])
def test_lines_fit_and_begin_with_the_number(room: int) -> None:
    lines = show.table_lines(HEADERS, ROWS, room)
    assert max(map(show.width, lines)) <= room
    assert [line.split()[0] for line in lines] == ["ID", "7", "1234", "1235"]
    assert len({len(re.split(r" {2,}", line)) for line in lines}) == 1, "no column is cut to nothing"


def test_words_are_cut_and_values_are_not() -> None:
    assert show.table_lines(HEADERS, ROWS[:1], None)[1].endswith(show.cut(LINE, 60))
    at_80 = show.table_lines(HEADERS, ROWS, 80)
    assert at_80[0].split() == "ID NAME STATUS MACHINE TIME METRIC LAST LINE".split()
    assert re.split(r" {2,}", at_80[1])[1:6] == ["a-name-of-tw…", "*Running", "cpu", "-", "tokens_per_… 46900"]
    at_60 = show.table_lines(HEADERS, ROWS, 60)
    assert at_60[0].split() == "ID NAME STATUS LAST LINE".split()
    assert re.split(r" {2,}", at_60[1])[2] == "*Running"


def test_columns_that_say_nothing_go_first() -> None:
    headers, rows = ["ID", "COUNT", "SIZE", "REST"], [["1", "12345", "-", "123456789"]]
    assert show.table_lines(headers, rows, 21)[0].split() == ["ID", "COUNT", "REST"]
    assert show.table_lines(headers, rows, 15)[0].split() == ["ID", "REST"]


@pytest.mark.parametrize("room", [60, 80])
def test_a_live_table_names_what_it_leaves_out(room: int) -> None:
    lines, not_shown = show.live_table(HEADERS, ROWS, room)
    words, _, left_out = not_shown.partition(": ")
    assert words == "Not shown" and show.width(not_shown) <= room
    shown = [header for header in HEADERS if header in lines[0]]
    assert sorted([*shown, *left_out.split(", ")]) == sorted(HEADERS)
    assert show.live_table(HEADERS, ROWS, None)[1] == ""
