"""The form of the findings; what they find is not tested here, as it is about other people's releases."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

FINDINGS = Path(__file__).parents[1] / "findings"
SCRIPTS = sorted(FINDINGS.glob("*.sh"))


def test_each_is_listed_once() -> None:
    listed = re.findall(r"^\| \[([^\]]+)\]\(\1\) \|", (FINDINGS / "README.md").read_text(), re.MULTILINE)
    assert listed == [path.name for path in SCRIPTS]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_each_has_the_form_that_the_readme_asks_for(path: Path) -> None:
    text = path.read_text()
    head, _, body = text.partition("set -euo pipefail\n")
    assert os.access(path, os.X_OK)
    assert len(text.splitlines()) <= 90
    assert re.findall(r"^# (\w[\w ]*): ", head, re.MULTILINE) == [
        "Version",
        "Behaviour",
        "Expectation",
        "Whom it hurts",
    ]
    assert all(word in body for word in ("mktemp -d", "trap ", "VERDICT: still so", "VERDICT: changed"))
    assert "orchestrator" not in text
    assert all(
        "==" in word for line in re.findall(r"pip install (.*)", body) for word in line.split() if word[0] != "-"
    )
    subprocess.run(["bash", "-n", path], check=True)
