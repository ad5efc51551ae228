"""Watching runs: metrics as lines, charts and CSV, times of the log's lines, `stats -f`, `top`."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import BIN, Spell
from terminal import Terminal

from orchestrator.cli.output.metric_chart import charts
from orchestrator.cli.output.metric_series import Look, Series

SEND = "from orchestrator.runtime import send_metric as send"


@pytest.fixture(autouse=True)
def _cleared(spell: Spell) -> Iterator[None]:
    yield
    spell.clear()


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests here."""
    return make_shared("telemetry")


def python(*lines: str) -> str:
    """A command that runs these lines."""
    text = "\n".join(lines)
    return f"python - <<'END'\n{text}\nEND"


@pytest.fixture(scope="module")
def sent(spell: Spell) -> str:
    """The number of a run that has sent more than one page of `loss`, with one peak, and one `acc`."""
    lines = (SEND, "[send('loss', 99 if n == 7777 else n / 1e4) for n in range(12_000)]", "send('acc', 0.5, 3)")
    return str(spell.run(python(*lines)).number)


def test_metrics_are_summed_up(spell: Spell, sent: str) -> None:
    lines = [line.split() for line in spell("metrics", sent).out.splitlines()]
    assert lines[0] == "METRIC COUNT STEP LAST MIN MAX MEAN".split()
    assert lines[1] == "acc 1 3 0.5 0.5 0.5 0.5".split()
    assert lines[2][:6] == "loss 12000 11999 1.1999 0 99".split()


def test_all_values_as_csv(spell: Spell, sent: str) -> None:
    rows = list(csv.DictReader(io.StringIO(spell("metrics", sent, "loss", "--csv").out)))
    assert list(rows[0]) == ["run_id", "metric_name", "timestamp", "index", "value"]
    assert [int(row["index"]) for row in rows] == list(range(12_000))
    assert {row["run_id"] for row in rows} == {sent}
    assert float(rows[7777]["value"]) == 99
    assert float(rows[0]["timestamp"]) == pytest.approx(time.time(), abs=300)


def test_a_page_says_where_the_next_begins(spell: Spell, sent: str) -> None:
    after, count = 0, 0
    while not (page := spell.client.metrics.page(sent, after, 5000)).over:
        count, after = count + len(page.values), page.next
        assert len(page.values) <= 5000
    assert count + len(page.values) == 12_001


def test_several_runs_in_one_chart(spell: Spell, sent: str) -> None:
    other = str(spell.run(python(SEND, "[send('loss', n) for n in range(5)]")).number)
    out = spell("metrics", sent, other, "loss", "--chart", env={"LC_ALL": "C.UTF-8", "COLUMNS": "60"}).out
    assert f"{sent} loss" in out and f"{other} loss" in out
    assert max(map(len, out.splitlines())) < 60
    assert "\x1b" not in out
    rows = [line.split() for line in spell("metrics", sent, other, "acc", "--no-chart").out.splitlines()]
    assert rows[0][0] == "RUN" and rows[1][:4] == [sent, "acc", "3", "0.5"]


def test_metrics_of_other_scales_have_charts_of_their_own(spell: Spell) -> None:
    lines = "for n in range(9): send('loss', 1 / (n + 1)); send('val_loss', 1.1 / (n + 1)); send('tokens', 45_000 + n)"
    number = str(spell.run(python(SEND, lines)).number)
    out = spell("metrics", number, "--chart", env={"LC_ALL": "C.UTF-8", "COLUMNS": "60"}).out.splitlines()
    assert [line for line in out if "┤" not in line and "│" not in line and line.strip("─┌┐└┘┬ .0123456789")] == [
        "* loss   + val_loss",
        "tokens",
    ]
    assert [line.split("┤")[0] for line in out if "┤" in line][:1] == ["1.10"]
    assert "45008┤" in [line[:6] for line in out]
    assert out[2].startswith("1.10┤+"), "a curve begins where no legend hides it"


def test_a_chart_in_ascii(spell: Spell, sent: str) -> None:
    out = spell("metrics", sent, "loss", "--chart", env={"LC_ALL": "C", "COLUMNS": "20"}).out
    assert out.isascii() and "99" in out and "*" in out


def test_no_peak_is_lost() -> None:
    series = Series()
    for step in range(100_000):
        series.add(step, {54_321: 7.0, 99_999: -7.0}.get(step, 0.0))
    assert len(series.points) <= 4100
    assert {(54_321, 7.0), (99_999, -7.0)} <= set(series.points)
    assert [step for step, _ in series.points] == sorted(step for step, _ in series.points)


def test_a_chart_on_a_logarithmic_scale() -> None:
    look = Look(log=True)
    falling, other = Series(look), Series(look)
    for step in range(7):
        falling.add(step, 10.0**-step)
        other.add(step, 5.0 - step)
    lines = charts({"falling": {"falling": falling}, "other": {"other": other}}, 60, 40, look)
    assert lines[0] == "Not shown, as a logarithmic scale has no place for them: 2 values"
    places = [line.split("┤")[0].strip() for line in lines if "┤" in line]
    assert {"1", "0.01", "0.0001", "1e-06"} <= set(places)
    nothing = Series(look)
    nothing.add(0, -1.0)
    assert len(charts({"nothing": {"nothing": nothing}}, 60, 40, look)) == 1


def test_smoothing_is_that_of_tensorboard() -> None:
    series = Series(Look(smooth=0.5))
    for step, value in enumerate((1.0, 0.0, 2.0)):
        series.add(step, value)
    assert series.points == [(0, 1.0), (1, pytest.approx(1 / 3)), (2, pytest.approx(9 / 7))]


def test_separate_charts_and_values_that_plotext_cannot_draw() -> None:
    both = {name: {name: Series()} for name in ("a", "b")}
    for step in range(4):
        both["a"]["a"].add(step, step)
        both["b"]["b"].add(step, 1.7e308 * (-1) ** step)
    assert len([line for line in charts(both, 60, 40, Look(separate=True)) if line in ("a", "b")]) == 2


def test_metrics_are_followed_until_the_run_ends(spell: Spell) -> None:
    go = spell.home.root / "go-metrics"
    lines = (SEND, "import pathlib, time", "send('loss', 1)", f"go = pathlib.Path('{go}')", "while not go.exists(): time.sleep(0.01)", "send('loss', 2)")  # fmt: skip
    number = spell.cast(python(*lines))
    follower = spell.popen("metrics", str(number), "-f", "--json", bufsize=0)
    assert follower.stdout
    assert json.loads(follower.stdout.readline())["value"] == 1
    go.touch()
    rest = follower.communicate(timeout=30)[0].splitlines()
    assert ([json.loads(line)["value"] for line in rest], follower.returncode) == ([2], 0)


def test_what_cannot_be_had_together(spell: Spell, sent: str) -> None:
    assert "no chart was asked for" in spell("metrics", sent, "--csv", "--log").err
    done = spell("metrics", sent, "--csv", "--json")
    assert (done.code, "Choose one of" in done.err) == (2, True)


# -- times of lines ---------------------------------------------------------------------------------------------------


def stamped(text: str) -> list[tuple[float, str]]:
    """Time and rest of each line."""
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return [(dt.datetime.fromisoformat(at).timestamp(), rest) for at, rest in pairs]


def check_times(spell: Spell) -> None:
    began = time.time()
    run = spell.run("echo a; sleep 1.5; printf 'b\\r%%'; sleep 1.5; echo b; printf c")
    number = str(run.number)
    out = spell("logs", "--timestamps", number).out
    times = [dt.datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() for line in out.split("\n") if line]
    assert [line.split(" ", 1)[1] for line in out.split("\n")] == ["a", "b\r%b", "c"]
    assert began - 0.2 < times[0] < times[1] - 0.5 < times[2] - 1
    assert times[2] < time.time()
    assert spell("logs", "-t", "-n", "2", number).out == "\n".join(out.split("\n")[1:])
    assert spell("logs", "-t", "-f", number).out == out
    assert spell("logs", number).out == "a\nb\r%b\nc"


def test_lines_have_times(spell: Spell) -> None:
    check_times(spell)


def test_lines_of_containers_have_times(docker_spell: Spell) -> None:
    check_times(docker_spell)


def test_times_are_kept_while_the_server_is_dead(spell: Spell) -> None:
    number = spell.cast("echo a; sleep 1.5; echo b")
    spell.says(number, b"a")
    spell.kill_server()
    spell.says(number, b"b")
    spell.ended(number)
    first, second = stamped(spell("logs", "-t", str(number)).out)
    assert second[0] - first[0] == pytest.approx(1.5, abs=0.5)


def test_a_flood_has_few_times(spell: Spell) -> None:
    number = spell.run("seq 1 300000").number
    assert spell.home.log_times(number).stat().st_size < 16 * 100
    assert len(stamped(spell("logs", "-t", str(number)).out)) == 300_000


def test_a_log_without_times_is_shown_as_it_is(spell: Spell) -> None:
    number = spell.run("echo a; echo b").number
    spell.home.log_times(number).unlink()
    done = spell("logs", "-t", str(number))
    assert (done.out, f"Run {number} has no recorded times" in done.err) == ("a\nb\n", True)


# -- stats -f, top ----------------------------------------------------------------------------------------------------


def test_stats_go_on_until_the_run_ends(spell: Spell) -> None:
    number = spell.cast("sleep 1000")
    spell.reaches(number, "running")
    follower = spell.popen("stats", "-f", "--interval", "0.1", str(number), bufsize=0)
    assert follower.stdout
    head = [follower.stdout.readline() for _ in range(5)]
    assert head[0].startswith(b"ID  NAME") and head[3] == head[0]
    spell.client.runs.kill(str(number))
    out = follower.communicate(timeout=30)[0].decode()
    assert (out.splitlines()[-1], follower.returncode) == (f"Run {number} is no longer running", 0)


def test_stats_are_drawn_in_place(spell: Spell) -> None:
    number = spell.cast("sleep 1000")
    spell.reaches(number, "running")
    with Terminal([str(BIN / "spell"), "stats", "-f", "--interval", "0.1"], spell.cwd, spell.env) as terminal:
        terminal.sees("sleep 1000")
        terminal.sees(lambda _lines: terminal.raw.count(b"sleep 1000") > 2)
        assert sum("sleep 1000" in line for line in terminal.screen.lines) == 1
        spell.client.runs.kill(str(number))
        assert terminal.ends() == 0
        assert f"Run {number} is no longer running" in "\n".join(terminal.screen.lines)


def test_top_lists_once_where_there_is_no_terminal(spell: Spell) -> None:
    assert spell("top").out == "No run is active.\n"
    number = spell.cast(python(SEND, "import time", "send('loss', 0.25)", "print('epoch 1', flush=True)", "time.sleep(1000)"), name="topped")  # fmt: skip
    spell.says(number, b"epoch 1")
    out = spell("top").out.splitlines()
    assert out[0].split()[:3] == ["ID", "NAME", "STATUS"]
    assert all(word in out[1] for word in ("topped", "*Running", "loss 0.25", "epoch 1"))
    (row,) = spell("top", "--json").json()
    assert (row["run"]["number"], row["stats"]["run"], row["metric"], row["line"]) == (
        number,
        number,
        "loss",
        "epoch 1",
    )
    spell.client.runs.kill(str(number))
    spell.ended(number)


@pytest.mark.parametrize(("key", "columns"), [("q", 80), ("\x03", 60)])
def test_top_leaves_the_terminal_as_it_was(spell: Spell, key: str, columns: int) -> None:
    number = spell.cast("echo shown; sleep 1000", name="a-name-that-is-longer-than-its-column")
    spell.says(number, b"shown")
    with Terminal([str(BIN / "spell"), "top", "--interval", "0.2"], spell.cwd, spell.env, columns) as terminal:
        terminal.sees("1 active, 1 running")
        if columns == 60:
            terminal.sees(lambda lines: any(line.startswith("Not shown: ") and "GPU" in line for line in lines))
        terminal.sees(lambda lines: any(line.startswith(str(number)) and "shown" in line for line in lines))
        terminal.type(key)
        assert terminal.ends() == 0
        assert terminal.raw.count(b"\x1b[?1049h") == terminal.raw.count(b"\x1b[?1049l") == 1
        assert terminal.raw.count(b"\x1b[?25h") >= 1
    spell.client.runs.kill(str(number))
    spell.ended(number)
