"""What the batch scripts run."""

import argparse
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--threads", type=int, default=1)
given = parser.parse_args()
print("seed", given.seed, "threads", given.threads)
pathlib.Path("model.txt").write_text(f"{given.seed}\n")
