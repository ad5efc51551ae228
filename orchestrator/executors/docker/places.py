"""Where a container sees what its run is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.environments import own_pip, own_uv
from orchestrator.executors.base import ENVIRONMENT_IN_CONTAINERS, LAYER_IN_CONTAINERS, UV_IN_CONTAINERS, Launch

OURS = "/opt/spell"
CODE, HOME = "/spell", "/home/spell"
ENVIRONMENT, LAYER, RUNTIME = ENVIRONMENT_IN_CONTAINERS, LAYER_IN_CONTAINERS, f"{OURS}/runtime"
PIP, METRICS = f"{OURS}/pip", f"{OURS}/metrics.jsonl"
CACHES = f"{OURS}/caches"
INSIDE, REAPER, CERTIFICATES = f"{OURS}/inside", f"{OURS}/reaper", f"{OURS}/certificates.pem"
_PACKAGE = Path(orchestrator.__file__).parent


def mounts(launch: Launch, certificates: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the mounts of a container, in the engine's form."""
    yield _bind(launch.code, CODE)
    yield _bind(launch.scratch, HOME)
    yield _bind(launch.metrics, METRICS)
    yield _bind(launch.folder / "inside", INSIDE)
    yield _bind(launch.environment, ENVIRONMENT, read_only=True)
    yield _bind(launch.layer, LAYER)
    yield _bind(launch.runtime, RUNTIME, read_only=True)
    if pip := own_pip():
        yield _bind(pip, f"{PIP}/pip", read_only=True)
    if uv := own_uv():
        yield _bind(uv, UV_IN_CONTAINERS, read_only=True)
    yield _bind(_PACKAGE, f"{REAPER}/orchestrator", read_only=True)
    if certificates:
        yield _bind(certificates, CERTIFICATES, read_only=True)
    for cache in launch.caches:
        yield _bind(cache.source, cache.target, read_only=cache.read_only)
    for bind in launch.binds:
        target = bind.target if bind.target.startswith("/") else f"{CODE}/{bind.target}"
        yield _bind(bind.source.resolve(), target, read_only=True)


def _bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}
