"""What the runs in the queue wait for, in words: what they lack, who holds it, and their place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from orchestrator.machine import Capacity, gpu_words
from orchestrator.store import MachineRequest

_NAMED = 5
_GIB = 1 << 30
PAUSE = "the end of the pause after its failed attempt"


def waiting(
    total: Capacity,
    holding: Sequence[MachineRequest],
    queue: Iterable[MachineRequest],
    paused: Collection[int],
    wanted: Collection[int],
) -> dict[int, str]:
    """Return what runs wait for, by their number: "2 cores, which run 3 holds; 1st in the queue".

    Args:
        total: what the machine has.
        holding: the runs that hold a part of it.
        queue: the runs that wait for a part, in their order.
        paused: the runs that will be in the queue when their pause ends.
        wanted: the runs to tell of. Those that have left the queue wait for nothing, and are not in the answer.
    """
    free = total
    for run in holding:
        free = free.without(run.cpus, run.memory_bytes, run.gpus)
    found: dict[int, str] = {}
    first: MachineRequest | None = None
    left = set(wanted)
    for place, run in enumerate(queue, 1):
        if not left:
            break
        if run.number in left:
            left.remove(run.number)
            lacks = list(_lacks(total, free, holding, run))
            behind = [f"run {first.number}, which is before it"] if first else ["the scheduler"]
            found[run.number] = f"{' and '.join(lacks or behind)}; {_ordinal(place)} in the queue"
        first = first or run
    return found | dict.fromkeys(left.intersection(paused), PAUSE)


def _lacks(total: Capacity, free: Capacity, holding: Sequence[MachineRequest], run: MachineRequest) -> Iterator[str]:
    if not free.fits(run.cpus, 0, 0):
        yield f"{_count(run.cpus, 'core')}{_held_by(holding)}"
    if run.memory_bytes > free.memory_bytes:
        yield f"{run.memory_bytes / _GIB:.1f} GiB of memory{_held_by([each for each in holding if each.memory_bytes])}"
    if run.gpus_wanted > len(free.suitable(run.gpu_type, run.gpu_memory_bytes)):
        wanted = set(total.suitable(run.gpu_type, run.gpu_memory_bytes))
        holders = [each for each in holding if wanted.intersection(each.gpus)]
        yield f"{gpu_words(run.gpus_wanted, run.gpu_type, run.gpu_memory_bytes)}{_held_by(holders)}"


def _held_by(holders: Sequence[MachineRequest]) -> str:
    numbers = [str(run.number) for run in holders]
    if not numbers:
        return ""
    if len(numbers) == 1:
        return f", which run {numbers[0]} holds"
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f", which runs {', '.join(numbers[:_NAMED])}{more} hold"


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
