"""Writes what it was given to a file, as a training script would write a model."""

import sys
from pathlib import Path

Path("model").mkdir()
Path("model/weights.txt").write_text(" ".join(sys.argv[1:]) + "\n")
print("trained")
