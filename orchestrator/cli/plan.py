"""What `spell run --dry-run` shows: what would be sent, built and mounted, and where the run would go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.output import show
from orchestrator.records.plans import PlanRecord
from orchestrator.spec.run import to_wire
from orchestrator.spec.sizes import size_text

_STATES = {
    "ready": "is there",
    "pull": "would be pulled",
    "build": "would be built",
    "unknown": "would be built, or found: that is known when its image and its project files are there",
}
_GIB = 1 << 30
_ELSEWHERE = frozenset(
    "source command machine_type cpus memory_bytes gpus gpu_type gpu_memory_bytes executor mounts code "
    "requirements image".split()
)
"""Fields that have a part in the line of something else."""


def show_plan(plan: PlanRecord, code: Snapshot | None, *, json_: bool) -> None:
    """Print a plan, and what of the code the server lacks."""
    for warning in plan.warnings:
        show.warn(warning)
    if json_:
        show.as_json(_as_json(plan, code))
        return
    facts = [(name, value) for name, value in _facts(plan, code) if value]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        show.say(f"{name.ljust(width)}  {show.line(value)}")
    show.say("💫 Nothing was cast")


def _as_json(plan: PlanRecord, code: Snapshot | None) -> dict[str, Any]:
    found = {name: value for name, value in to_wire(plan).items() if name != "missing"}
    return {**found, "code": None if code is None else dict(zip(_SIZES, _sizes(plan, code), strict=True))}


_SIZES = ("files", "bytes", "new_files", "new_bytes")


def _sizes(plan: PlanRecord, code: Snapshot) -> tuple[int, int, int, int]:
    entries, missing = code.manifest.entries, set(plan.missing)
    new = [entry for entry in entries if entry.digest in missing]
    new_bytes = sum(code.sizes[digest] for digest in missing)  # with the difference to the commit
    return len(entries), sum(entry.size for entry in entries), len(new), new_bytes


def _facts(plan: PlanRecord, code: Snapshot | None) -> Iterator[tuple[str, str]]:
    yield "Command", str(plan.spec["command"])
    yield "Executor", plan.executor
    yield "Machine Type", _machine(plan)
    if plan.reused is not None:
        yield "Reused", f"run {plan.reused} is identical and complete, so no run would be cast"
    else:
        yield "Starts", f"when it gets {plan.waits_for}" if plan.waits_for else "at once"
    yield "Code", _code(plan, code)
    yield "Image", plan.image and f"{plan.image}, which {_STATES[plan.image_state]}"
    key = plan.environment[:12]
    source = plan.spec.get("source")
    origin = f", from {source['file']}" if source else ""
    yield "Environment", f"{key}{key and ', which '}{_STATES[plan.environment_state]}{origin}"
    yield "Requirements File", ", ".join(item["name"] for item in plan.spec["requirements"])
    for mount in plan.mounts:
        yield "Mount", f"{mount.resource}, a {'folder' if mount.is_folder else 'file'}, at {mount.path}"
    for name, value in plan.spec.items():
        if name not in _ELSEWHERE and value not in ("", [], {}, None, 0):
            text = show.duration(value) if name.endswith("_s") else _text(value)
            yield name.removesuffix("_s").replace("_", " ").title(), text


def _machine(plan: PlanRecord) -> str:
    parts = [show.count(1, "core") if plan.cpus == 1 else f"{plan.cpus:g} cores"]
    parts += [f"{plan.memory_bytes / _GIB:.1f} GiB of memory"] if plan.memory_bytes else []
    kind = f" of type {names}" if (names := plan.spec["gpu_type"]) else ""
    kind += f" with {size_text(size, 1000)}" if (size := plan.spec["gpu_memory_bytes"]) else ""
    parts += [show.count(plan.gpus, "GPU") + kind] if plan.gpus else []
    return f"{plan.machine_type}: {', '.join(parts)}"


def _code(plan: PlanRecord, code: Snapshot | None) -> str:
    if code is None:
        return "none"
    files, size, new_files, new_size = _sizes(plan, code)
    what = f"{show.count(files, 'file')} of {code.code.repository}, {show.size(size)}"
    if code.code.commit:
        what += f", at {code.code.commit[:8]}{' with uncommitted changes' if code.code.dirty else ''}"
    new = f"{show.count(new_files, 'file')}, {show.size(new_size)}, would be sent"
    return f"{what}; {new if new_size or new_files else 'the server has all of it'}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
