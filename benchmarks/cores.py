"""Small trainings with torch, each on one core, side by side on all cores: by `spell`, and with everything set by hand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.measure import Bench, Row, medians
from orchestrator.spec.run import RunSpec

TYPE = "[machine_types.one]\ncpus = 1\n"
_TRAININGS = 8
_REPEATS = 2
_LIMIT = 1.1
_TRAINING = """\
import torch
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
model = torch.nn.TransformerEncoder(layer, 4)
optimizer = torch.optim.AdamW(model.parameters())
batch = torch.randn(8, 64, 128)
for _ in range(30):
    loss = (model(batch) - batch).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def cores(bench: Bench) -> list[Row]:
    """Measure 8 trainings, in turns: with cores and threads set by hand (`taskset`, OMP_NUM_THREADS), and as runs."""
    script = bench.repo / "tune.py"
    script.write_text(_TRAINING)
    packages = (os.environ.get("TORCH", "torch"), "numpy")
    first = bench.run(RunSpec(command=f"python {script}", pip=packages, machine_type="one"))
    assert first.state == "complete", first.message
    python = bench.home.environment(first.environment or "") / "bin/python"
    usable = sorted(os.sched_getaffinity(0))
    hand_s, run_s = medians(
        _REPEATS, lambda: _by_hand(python, script, usable), lambda: _by_runs(bench, f"python {script}", packages)
    )
    what = f"{_TRAININGS} trainings with {packages[0]}, each on one of {len(usable)} cores"
    return [
        Row(f"H = {what}, cores and threads set by hand", f"{hand_s:.1f} s", "", holds=True),
        Row(
            "… as runs of `spell`",
            f"{run_s / hand_s:.2f} H ({run_s:.1f} s)",
            f"≤ {_LIMIT} H",
            run_s <= _LIMIT * hand_s,
        ),
    ]


def _by_hand(python: Path, script: Path, usable: list[int]) -> None:
    lanes = []
    for lane, core in enumerate(usable[:_TRAININGS]):
        turns = len(range(lane, _TRAININGS, len(usable)))
        words = f"for turn in $(seq {turns}); do taskset -c {core} {python} {script} || exit 1; done"
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        # in a session of its own, as a run is: the kernel shares cores out between sessions (sched(7), autogroup)
        lanes.append(subprocess.Popen(["sh", "-c", words], env=env, start_new_session=True))
    ends = [lane.wait() for lane in lanes]
    if any(ends):
        raise RuntimeError("a training failed")


def _by_runs(bench: Bench, command: str, packages: tuple[str, ...]) -> None:
    spec = RunSpec(command=command, pip=packages, machine_type="one")
    numbers = [bench.client.runs.cast(spec).number for _ in range(_TRAININGS)]
    for number in numbers:
        run = bench.ended(number)
        assert run.state == "complete", run.message
