"""`orchestrator.runtime`, as code inside a run and outside of one uses it; and what becomes of what it sends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, Spell, git, wait_for

import orchestrator
from orchestrator import runtime

CONFIG = "grace_s = 5\nsample_interval_s = 0.1\n[machine_types.cpu]\ncpus = 0.05\n"
PACKAGE = Path(orchestrator.__file__).parent


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that all tests share."""
    return make_shared(config=CONFIG)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No run: none of its variables, in an empty folder."""
    for name in ("SPELL_METRICS", "SPELL_CHECKPOINT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def metrics(outside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metrics file of a run that this test plays."""
    path = outside / "metrics.jsonl"
    monkeypatch.setenv("SPELL_METRICS", str(path))
    return path


def python(code: str) -> str:
    """A command that runs this code."""
    return f"exec python - <<'END'\n{code}\nEND"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- outside of a run ----------------------------------------------------------------------------------------------


def test_outside_of_a_run_nothing_is_sent(
    outside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "_SAID", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runtime.send_metric("loss", 0.5)
        runtime.send_metric("loss", "no number")  # type: ignore[arg-type]
    assert list(outside.iterdir()) == []
    said = capsys.readouterr()
    assert (
        said.err
        == "spell: send_metric does nothing here, as this is no run of spell. To record metrics: spell run COMMAND\n"
    )
    monkeypatch.setattr(runtime, "_SAID", set())
    monkeypatch.setattr(runtime.sys, "stderr", None)
    runtime.send_metric("loss", 0.5)  # where there is nobody to hear it


def test_outside_of_a_run_checkpoints_lie_here(outside: Path) -> None:
    assert runtime.checkpoint_dir() == Path("checkpoints")
    assert (outside / "checkpoints").is_dir()
    assert runtime.checkpoint_dir().is_dir(), "asked again, it is there already"


# -- what is written -----------------------------------------------------------------------------------------------


class Vector:
    """Something with more than one value; PyTorch's tensors say so in this way."""

    def __float__(self) -> float:
        raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")


class Tensor:
    """Something with one value."""

    def __float__(self) -> float:
        return 2.5


def test_lines_are_as_the_format_says(metrics: Path) -> None:
    before = time.time()
    runtime.send_metric("loss", 1)
    runtime.send_metric("loss", 0.25, step=7)
    runtime.send_metric("a name\nwith 'all' \"kinds\" é", Decimal("0.5"), 0)
    runtime.send_metric("tensor", Tensor())
    found = lines(metrics)
    assert [(line["name"], line["value"], line["step"]) for line in found] == [
        ("loss", 1.0, None),
        ("loss", 0.25, 7),
        ("a name\nwith 'all' \"kinds\" é", 0.5, 0),
        ("tensor", 2.5, None),
    ]
    assert all(before <= line["at"] <= time.time() for line in found)
    assert all(set(line) == {"name", "value", "step", "at"} for line in found)


@pytest.mark.parametrize(
    "value",
    ["one", None, [1], object(), Vector(), float("nan"), float("inf"), -float("inf"), 10**400],
    ids=lambda value: str(value)[:8],
)
def test_value_that_cannot_be_recorded_is_a_warning(metrics: Path, value: Any) -> None:
    with pytest.warns(UserWarning, match="The metric 'loss' was not recorded"):
        runtime.send_metric("loss", value)
    if isinstance(value, float):
        with pytest.warns(UserWarning, match=f"recorded: {value} is not finite"):
            runtime.send_metric("loss", value)
    assert not metrics.exists() or not metrics.read_bytes()
    runtime.send_metric("loss", 1)
    assert len(lines(metrics)) == 1


@pytest.mark.parametrize(("name", "step"), [("a", 1 << 63), ("a", -(1 << 63)), ("", 1), ("x" * 251, 1)])
def test_what_no_store_can_hold_is_a_warning(metrics: Path, name: str, step: int) -> None:
    with pytest.warns(UserWarning, match=r"was not recorded: its (step has more than 63 bits|name must have 1 to 250)"):
        runtime.send_metric(name, 1, step)
    assert not metrics.exists()
    runtime.send_metric("x" * 250, 1, (1 << 63) - 1)
    assert len(lines(metrics)) == 1


def test_place_that_cannot_be_written_is_a_warning(metrics: Path) -> None:
    metrics.mkdir()
    with pytest.warns(UserWarning, match="was not recorded"):
        runtime.send_metric("loss", 1)


WRITER = (
    "import sys\nfrom orchestrator.runtime import send_metric\nfor i in range(300): send_metric(sys.argv[1] * 50, i, i)"
)


def test_lines_of_several_processes_never_mix(metrics: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name]) for name in "abcd"]
    assert [writer.wait(DEADLINE_S) for writer in writers] == [0] * 4
    found = lines(metrics)
    for name in "abcd":
        assert [line["value"] for line in found if line["name"] == name * 50] == list(range(300))
    assert len(found) == 1200


# -- inside a run --------------------------------------------------------------------------------------------------


def test_inside_a_run_nothing_else_of_spell_is_importable(spell: Spell) -> None:
    code = """import sys, orchestrator.runtime
print(sorted(name for name in sys.modules if name.startswith("orchestrator")), orchestrator.__file__)
try:
    import orchestrator.store
except ModuleNotFoundError:
    print("no store")"""
    log = spell.log(spell.run(python(code)).number).decode()
    assert (
        log
        == f"['orchestrator', 'orchestrator.runtime'] {spell.home.runtime}/modules/orchestrator/__init__.py\nno store\n"
    )


def test_metrics_of_a_run_are_in_the_store(spell: Spell) -> None:
    code = """from orchestrator.runtime import send_metric
for i in range(3):
    send_metric("loss", 1 / (i + 1)); send_metric("accuracy", i * 0.1)
send_metric("loss", 9, step=10)
send_metric("loss", 8)
send_metric("loss", 7, 4)"""
    run = spell.run(python(code))
    assert run.state == "complete"
    found = [(item.name, item.step, item.value) for item in spell.client.metrics.list(str(run.number))]
    assert [item for item in found if item[0] == "loss"] == [
        ("loss", 0, 1.0),
        ("loss", 1, 0.5),
        ("loss", 2, 1 / 3),
        ("loss", 10, 9.0),
        ("loss", 11, 8.0),
        ("loss", 4, 7.0),
    ]
    assert [(step, round(value, 1)) for name, step, value in found if name == "accuracy"] == [
        (0, 0.0),
        (1, 0.1),
        (2, 0.2),
    ]
    assert [item.value for item in spell.client.metrics.list(str(run.number), "accuracy")] == [0.0, 0.1, 0.2]
    shown = spell("metrics", str(run.number), "loss", "--json").json()
    assert [item["step"] for item in shown] == [0, 1, 2, 10, 11, 4]
    values = spell("metrics", str(run.number), "loss", "--no-chart").out.splitlines()
    assert values[0].split() == ["METRIC", "STEP", "VALUE", "TIME"]
    assert len(values) == 1 + 6
    listed = spell("metrics", str(run.number)).out.splitlines()
    assert listed[0].split()[:2] == ["METRIC", "COUNT"]
    assert [line.split()[:2] for line in listed[1:]] == [["accuracy", "3"], ["loss", "6"]]


def test_metrics_can_be_read_while_the_run_goes_on(spell: Spell) -> None:
    code = """import time
from orchestrator.runtime import send_metric
send_metric("loss", 0.5)
print("sent", flush=True)
time.sleep(1000)"""
    number = spell.cast(python(code))
    spell.says(number, b"sent\n")
    assert [item.value for item in spell.client.metrics.list(str(number))] == [0.5]
    spell.client.runs.kill(str(number))
    spell.ended(number)
    assert [item.value for item in spell.client.metrics.list(str(number))] == [0.5], "a killed run keeps them too"


def test_metrics_of_several_processes_and_readers(spell: Spell) -> None:
    """Whoever asks takes new lines in; each is taken in once."""
    code = "for n in a b c; do python w.py $n & done; wait; echo written; read line < $GO"
    go = spell.home.root / "go"
    os.mkfifo(go)
    number = spell.cast(f"cat > w.py <<'END'\n{WRITER}\nEND\n{code}", env={"GO": str(go)})
    wait_for(lambda: len(spell.client.metrics.list(str(number))) >= 900, "all metrics")
    spell.says(number, b"written")
    go.write_text("\n")
    spell.ended(number)
    found = spell.client.metrics.list(str(number))
    for name in "abc":
        assert [item.step for item in found if item.name == name * 50] == list(range(300))
    assert len(found) == 900


MALFORMED = [
    b"",
    b"not json",
    b"{}",
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b'{"name": "x", "value": "much", "step": null, "at": 1}',
    b'{"name": "x", "value": 1, "step": "two", "at": 1}',
    b'{"name": "x", "value": 1, "at": 1}',
    b'{"name": "x", "value": 1, "step": {}, "at": 1}',
    b'{"name": "x", "value": NaN, "step": null, "at": 1}',
    b'{"name": "x", "value": Infinity, "step": null, "at": 1}',
    b'{"name": "x", "value": 1, "step": Infinity, "at": 1}',
    b'{"name": "x", "value": 1, "step": NaN, "at": 1}',
    b'{"name": "x", "value": 1, "step": null, "at": NaN}',
    b'{"name": "x", "value": 1' + b"0" * 400 + b', "step": null, "at": 1}',
    b'{"name": "x", "value": 1, "step": 99999999999999999999999, "at": 1}',
    b'{"name": "x", "value": 1, "step": -9223372036854775809, "at": 1}',
    b'{"name": "\\ud800", "value": 1, "step": null, "at": 1}',
    b'{"name": "\xff", "value": 1, "step": null, "at": 1}',
    b"\x00\x01\x02",
    b"[" * 100_000,
    b"x" * (9 << 20),
]


def test_malformed_lines_are_passed_over(spell: Spell, tmp_path: Path) -> None:
    """A run may write anything there; it does not harm the run, nor what was well written."""
    number_of_good = len(MALFORMED)
    with (tmp_path / "lines").open("wb") as file:
        for step, line in enumerate(MALFORMED):
            file.write(line + b'\n{"name": "good", "value": %d, "step": null, "at": 5}\n' % step)
        file.write(b'{"name": "good", "value": 1, "ste')  # cut off
    run = spell.run(f"cat {tmp_path}/lines >> $SPELL_METRICS; echo said")
    assert (run.state, run.exit_code) == ("complete", 0), run
    found = spell.client.metrics.list(str(run.number))
    assert [(item.name, item.step, item.value) for item in found] == [
        ("good", step, float(step)) for step in range(number_of_good)
    ]
    assert spell("metrics", str(run.number)).code == 0
    told = f"that are no metrics and were not recorded: {number_of_good + 1}. `send_metric` writes such lines"
    assert [event.text for event in spell.client.runs.events(str(run.number)) if told in event.text]


@pytest.mark.parametrize(
    "act",
    [
        "rm $SPELL_METRICS",
        ": > $SPELL_METRICS",
        "rm $SPELL_METRICS; mkdir $SPELL_METRICS",
        "rm $SPELL_METRICS; mkfifo $SPELL_METRICS",
    ],
)
def test_metrics_file_that_the_run_took_away(spell: Spell, act: str) -> None:
    run = spell.run(
        f"python -c 'from orchestrator.runtime import send_metric; send_metric(\"a\", 1)'; {act}; echo x > kept"
    )
    assert (run.state, run.outputs_count) == ("complete", 1), run


def test_checkpoints_are_outputs(spell: Spell, repo: Path) -> None:
    """They lie in the root of the code, from wherever in it the run was cast, and a later run can mount them."""
    (repo / "sub").mkdir()
    (repo / "sub" / "train.py").write_text(
        "from orchestrator.runtime import checkpoint_dir\n(checkpoint_dir() / 'last.pt').write_text('weights')\n"
    )
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "Train")
    first = spell("run", "-f", "python train.py", cwd=repo / "sub")
    assert spell("cat", f"runs/{first.number}/checkpoints/last.pt").out == "weights"
    second = spell("run", "-f", "-m", f"runs/{first.number}/checkpoints:from", "cat from/last.pt", cwd=repo)
    assert spell.log(second.number) == b"weights"


# -- on_stop -------------------------------------------------------------------------------------------------------

ON_STOP = """
import sys, time
from orchestrator.runtime import on_stop
def save():
    print("saving", flush=True)
    sys.stdin.read()  # takes as long as the test wants; a run has nothing there
    print("saved", flush=True)
    sys.exit(4)
on_stop(save)
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


def test_on_stop_outside_of_a_run() -> None:
    """It hears TERM, once: a second one does not cut the saving short."""
    command = [sys.executable, "-c", ON_STOP]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=DEADLINE_S)[0] == "saved\n"
    assert process.returncode == 4


def test_on_stop_inside_a_run(spell: Spell) -> None:
    number = spell.cast(python(ON_STOP))
    spell.says(number, b"ready\n")
    spell.client.runs.stop(str(number))
    run = spell.ended(number)
    assert (run.state, run.exit_code) == ("stopped", 4)
    assert spell.log(number) == b"ready\nsaving\nsaved\n"


def test_on_stop_at_the_time_limit(spell: Spell) -> None:
    run = spell.run(python(ON_STOP), timeout_s=3)
    assert (run.state, run.reason, run.exit_code) == ("stopped", "timed_out", 4)
    assert spell.log(run.number) == b"ready\nsaving\nsaved\n"


# -- samples -------------------------------------------------------------------------------------------------------


def test_samples_tell_what_a_run_uses(spell: Spell) -> None:
    code = """import time
held = bytearray(60 << 20)
print("ready", flush=True)
while True:
    pass"""
    number = spell.cast(python(code))
    spell.says(number, b"ready\n")

    def busy() -> bool:
        return any(
            item.memory_bytes > 60 << 20 and item.cpu_time_s > 0.2 for item in spell.client.stats.samples(str(number))
        )

    wait_for(busy, "a sample of what it holds")
    spell.client.runs.stop(str(number))
    run = spell.ended(number)
    samples = spell.client.stats.samples(str(number))
    running = [item for item in samples if item.processes]
    assert all(earlier.at <= later.at for earlier, later in pairwise(running))
    assert all(item.gpus == [] for item in samples)
    assert [item.cpu_time_s for item in running] == sorted(item.cpu_time_s for item in running)
    assert run.cpu_time_s is not None and run.cpu_time_s > 0.2
    assert run.max_rss_bytes is not None and run.max_rss_bytes > 60 << 20
    assert [item.cpu_time_s for item in samples if not item.processes] == [run.cpu_time_s], "what it used in all"


def test_shortest_run_has_a_sample(spell: Spell) -> None:
    run = spell.run("exit 0")
    samples = spell.client.stats.samples(str(run.number))
    assert [item.cpu_time_s for item in samples if not item.processes] == [run.cpu_time_s]


def test_metrics_that_cannot_be_read_cost_a_run_nothing(spell: Spell) -> None:
    run = spell.run("echo result > out.txt; rm $SPELL_METRICS; mkdir $SPELL_METRICS; chmod 000 $SPELL_METRICS; exit 3")
    assert (run.state, run.exit_code, run.outputs_count) == ("failed", 3, 1)
    assert spell("metrics", str(run.number)).code == 0


def test_metrics_as_large_as_numbers_can_be(spell: Spell) -> None:
    code = """import time
from orchestrator.runtime import send_metric
for value in (1.7e308, 1.7e308, -1.7e308, -1.7e308):
    send_metric("loss", value)
    time.sleep(0.2)"""
    run = spell.run(python(code))
    assert run.state == "complete", run.message
    assert [item["value"] for item in spell("metrics", str(run.number), "--json").json()] == [1.7e308] * 2 + [
        -1.7e308
    ] * 2
    run = spell.run(python("from orchestrator.runtime import send_metric as s; s('x', 1.7e308); s('x', 1.7e308)"))
    assert spell("metrics", str(run.number)).out.split()[7:9] == ["x", "2"]


def test_a_metric_that_was_never_sent_is_named(spell: Spell) -> None:
    run = spell.run(python("from orchestrator.runtime import send_metric as s; s('loss', 1); s('acc', 2)"))
    done = spell("metrics", str(run.number), "los")
    assert done.code != 0 and "did not send the metric 'los'" in done.err and "acc, loss" in done.err
    done = spell("metrics", str(run.number), "loss", "los")
    assert done.code == 0 and "'los'" in done.err and "loss" in done.out
    assert "┤" in spell("metrics", str(run.number), "--chart").out
