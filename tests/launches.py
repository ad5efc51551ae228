"""What executors are given, for tests that have no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.environments import Base, Host
from orchestrator.executors.base import Launch
from orchestrator.records.machines import MachineType


def make_launch(place: Path, command: str, /, *, number: int = 1, **changed: Any) -> Launch:
    """The launch of a command, whose work dir, log and attempt lie below `place`; what is `changed` is as given."""
    fields: dict[str, Any] = {
        "code": place / f"code-{number}",
        "environment": place / "environment",
        "layer": place / f"layer-{number}",
        "runtime": place / "runtime",
        "metrics": place / f"metrics-{number}.jsonl",
        "scratch": place / f"scratch-{number}",
        "log": place / f"log-{number}",
        "folder": place / f"attempt-{number}",
        **changed,
    }
    for name in ("code", "environment", "layer", "runtime", "scratch", "folder"):
        fields[name].mkdir(exist_ok=True)
    fields["metrics"].touch()
    usual: dict[str, Any] = {
        "attempt": 1,
        "subdir": "",
        "env": {},
        "binds": (),
        "base": Base(Host()),
        "bytecode": None,
        "protected": (),
        "machine": MachineType("cpu", 1.0),
        "gpus": (),
        "network": "",
        "timeout_s": None,
        "grace_s": 1.0,
    }
    return Launch(number=number, command=command, **{**usual, **fields})
