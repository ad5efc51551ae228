"""What is cast, and what is broken: all of it drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

KILLS = {
    "server": 22,
    "supervisor": 12,
    "reaper": 8,
    "keeper": 8,
    "command": 14,
    "container": 10,
    "uv": 6,
    "cli": 12,
    "git": 8,
}
"""The victims, and how often each is drawn. `keeper` is the forkserver; `cli` and `git` die while a run is cast."""
OTHER = {"clock": 4, "disk": 2}
"""Faults that kill nothing."""
FAILING_CODE = 3
_ENDINGS = ("stop", "kill", "stop kill", "kill stop")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that is to be cast.

    Attributes:
        name: unique; its lines and its outputs bear it.
        executor: `process` or `docker`.
        lines: how many it writes, with a pause of `pause_s` after each.
        fails: whether it ends with `FAILING_CODE`.
        retries: how often it may be tried again.
        builds: whether it needs a package that has to be built for it.
        ending: the requests to end it, after `ending_after_s`; "" for none.
        victim: what is killed while it is cast, after `victim_after_s`: `cli`, `git`, or "".
    """

    name: str
    executor: str
    lines: int
    pause_s: float
    fails: bool
    retries: int
    builds: bool
    ending: str
    ending_after_s: float
    victim: str
    victim_after_s: float

    @property
    def command(self) -> str:
        """Shell words. Their lines and outputs are known in advance."""
        end = f"exit {FAILING_CODE}" if self.fails else "true"
        return (
            f"set -e; echo {self.name} begin $SPELL_ATTEMPT; cat data.txt; "
            f"for i in $(seq {self.lines}); do echo {self.name} $i; sleep {self.pause_s:.3f}; done; "
            f"mkdir out; seq {self.lines * 100} > out/numbers; echo {self.name} > out/name; {end}"
        )

    def log_of(self, attempt: int, data: str) -> list[str]:
        """The lines that a whole attempt writes.

        Args:
            data: what `data.txt` of its code says.
        """
        return [f"{self.name} begin {attempt}", data, *(f"{self.name} {line}" for line in range(1, self.lines + 1))]

    @property
    def outputs(self) -> dict[str, bytes]:
        """The files that it leaves when it comes to its end."""
        numbers = "".join(f"{number}\n" for number in range(1, self.lines * 100 + 1))
        return {"out/name": f"{self.name}\n".encode(), "out/numbers": numbers.encode()}


class Plan:
    """Draws from a seed.

    Args:
        seed: equal seeds draw equal plans.
        executors: which of them runs have.
    """

    def __init__(self, seed: int, executors: list[str]) -> None:
        self.seed, self._executors = seed, executors
        self._runs = random.Random(f"runs {seed}")
        self._faults = random.Random(f"faults {seed}")
        self._count = 0

    def run(self) -> Wanted:
        """Draw the next run."""
        draw, self._count = self._runs, self._count + 1
        executor = draw.choice(self._executors)
        return Wanted(
            name=f"soak{self.seed}x{self._count}",
            executor=executor,
            lines=draw.randrange(2, 30),
            pause_s=draw.uniform(0.01, 0.3),
            fails=draw.random() < 0.15,
            retries=draw.choice([0, 0, 0, 2]),
            builds=executor == "process" and draw.random() < 0.2,
            ending=draw.choice(_ENDINGS) if draw.random() < 0.25 else "",
            ending_after_s=draw.uniform(0, 2),
            victim=draw.choices(["", "cli", "git"], [100 - KILLS["cli"] - KILLS["git"], KILLS["cli"], KILLS["git"]])[0],
            victim_after_s=draw.uniform(0, 0.5),
        )

    def fault(self) -> tuple[str, float, float]:
        """Draw the next fault: its name, the pause before it in seconds, and a number in [0, 1) that chooses the victim."""
        absent = {"cli", "git"} if "docker" in self._executors else {"cli", "git", "container"}
        names = {name: weight for name, weight in {**KILLS, **OTHER}.items() if name not in absent}
        name = self._faults.choices(list(names), list(names.values()))[0]
        return name, self._faults.uniform(0, 0.5), self._faults.random()
