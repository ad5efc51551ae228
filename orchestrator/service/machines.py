"""Machine types, and the number of runs of each that could start now."""

from __future__ import annotations

from orchestrator import machine
from orchestrator.config import Config
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.records.machines import MachineRecord
from orchestrator.service.access import Who


class Machines:
    """The machine types of one home."""

    def __init__(self, config: Config, scheduler: Scheduler) -> None:
        self._config, self._scheduler = config, scheduler

    def list(self, who: Who) -> list[MachineRecord]:
        """All machine types."""
        free, found = self._scheduler.free(), []
        for wanted in self._config.types().values():
            possible = not machine.lacks(self._scheduler.capacity, wanted)
            fits = [(free.cpus + 1e-9) // wanted.cpus]
            fits += [free.memory_bytes // wanted.memory_bytes] if wanted.memory_bytes else []
            fits += [len(free.gpus) // wanted.gpus] if wanted.gpus else []
            found.append(
                MachineRecord(
                    wanted.name, wanted.cpus, wanted.memory_bytes, wanted.gpus, possible, max(0, int(min(fits)))
                )
            )
        return found
