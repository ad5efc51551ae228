"""Writes checkpoints as a Trainer does: output/checkpoint-N, the newest two of them."""

import argparse
import json
import shutil
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--output", type=Path, default=Path("output"))
call = parser.parse_args()

found = sorted(call.output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
step = json.loads((found[-1] / "trainer_state.json").read_text())["global_step"] if found else 0
print(f"from step {step}")
while step < call.steps:
    step += 2
    checkpoint = call.output / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    found.append(checkpoint)
    while len(found) > 2:
        shutil.rmtree(found.pop(0))
print(f"at step {step}")
