"""A short random-fault run. `make soak` is the long one; docs/reliability.md tells what both do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.server
def test_f01_nothing_is_lost_doubled_stuck_or_left() -> None:
    words = ["--kills", "4", "--runs", "2", "--wave", "5", "--executor", "process"]
    done = subprocess.run(
        [sys.executable, "-m", "soak", *words], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was lost, doubled, stuck or left." in done.stdout
