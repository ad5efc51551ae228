"""The main job, in small: cast, chain, browse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell


@pytest.mark.parametrize("docker", [False, pytest.param(True, marks=pytest.mark.engine)], ids=["process", "docker"])
def test_chain_of_runs(make_spell: Callable[..., Spell], repo: Path, docker: bool) -> None:
    spell = make_spell(docker=docker)
    first = spell("run", "python hello.py > data.txt; echo said", cwd=repo)
    assert first.code == 0, first
    assert first.out.splitlines()[:8] == [
        "💫 Casting spell #1…",
        "✨ Stop viewing logs with ^C",
        "✨ Machine_Requested… done",
        "✨ Building… done",
        "✨ Run is running",
        "said",
        "✨ Saving… done",
        "✨ Pushing… done",
    ]
    assert first.out.splitlines()[-1] == "🎉 Run 1 complete"
    second = spell("run", "-m", "runs/1/data.txt", "cat data.txt; exit 3", cwd=repo)
    assert second.code == 3
    assert "✨ Mounting… done\n✨ Run is running\nhello\n" in second.out
    assert spell("ls", "runs/1").out.split()[-1] == "data.txt"
    assert spell("cat", "runs/1/data.txt").out == "hello\n"
    listed = spell("ps", "--json").json()
    assert [(run["number"], run["state"], run["exit_code"]) for run in listed] == [(1, "complete", 0), (2, "failed", 3)]
