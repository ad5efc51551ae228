"""Finds a victim of each kind, and kills it: SIGKILL, at a moment that nobody has prepared for."""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import psutil

from orchestrator.home import answers
from orchestrator.supervisor import identity
from soak.people import Story
from soak.place import Place
from soak.plan import Plan

_FULL_S, _LOOK_S = 0.6, 0.1
_SERVES_S = 1.0
_PATIENCE_S = 2.0
_ANY = 0
_DAYS_S = 2 * 86_400.0


class Faults:
    """Breaks things until it is told to stop.

    Args:
        place: where.
        plan: draws them.
        engine: the Docker engine, if there is one.
        stories: of the runs that are cast now; they note what cannot be known of one of them.

    Attributes:
        counts: how often each fault happened.
        hits: what was killed of a run, by its number.
    """

    def __init__(self, place: Place, plan: Plan, engine: docker.APIClient | None, stories: Sequence[Story]) -> None:
        self._place, self._plan, self._engine, self._stories = place, plan, engine, stories
        self.counts: Counter[str] = Counter()
        self.hits: defaultdict[int, set[str]] = defaultdict(set)
        self._may_be_starting, self._up_since = True, math.inf
        self._victims: dict[str, Callable[[], list[tuple[psutil.Process, int | None]]]] = {
            "server": self._server,
            "keeper": self._keepers,
            "supervisor": lambda: list(self._supervisors()),
            "reaper": lambda: list(self._children(self._supervisors())),
            "command": lambda: list(self._children(self._children(self._supervisors()))) + list(self._in_containers()),
            "uv": self._builders,
        }

    def break_things(self, is_over: threading.Event) -> None:
        """Break one thing after the other."""
        while not is_over.is_set():
            name, pause_s, chance = self._plan.fault()
            self._tell(f"to break: {name}")
            if name == "clock":
                self._place.set_clock((chance - 0.5) * 2 * _DAYS_S)
                self.counts[name] += 1
            elif name == "disk":
                self._fill_disk(is_over)
            else:
                self._kill_next(name, chance, is_over)
            is_over.wait(pause_s)

    def _tell(self, words: str) -> None:
        with (self._place.folder / "faults.log").open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {words}\n")

    def _fill_disk(self, is_over: threading.Event) -> None:
        if not self._place.has_disk:
            return
        with self._place.full_disk():
            is_over.wait(_FULL_S)
            for story in self._stories:
                story.full_disk |= story.is_begun
        self.counts["disk"] += 1

    def _kill_next(self, name: str, chance: float, is_over: threading.Event) -> None:
        """Kill one of this kind, as soon as there is one; give up after a while."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self._kill(name, chance):
            if is_over.wait(_LOOK_S) or time.monotonic() > deadline:
                return
        self.counts[name] += 1

    def _kill(self, name: str, chance: float) -> bool:
        """Kill one of this kind. Returns False when there is none now."""
        if name == "container":
            return self._kill_container(chance)
        with contextlib.suppress(psutil.Error, OSError):
            found = self._victims[name]()
            if found:
                victim, number = found[int(chance * len(found))]
                victim.kill()
                self._tell(f"killed {name} {victim.pid} of run {number}")
                self._note(number, name)
                return True
        return False

    def _note(self, number: int | None, name: str) -> None:
        if number == _ANY:
            for story in self._stories:
                story.hits |= {name} if story.is_begun else set()
        elif number:
            self.hits[number].add(name)

    # -- victims ------------------------------------------------------------------------------------------------

    def _server(self) -> list[tuple[psutil.Process, int | None]]:
        """One that has served for a while, or one that is starting; but not several of these in a row. Else a busy machine
        would never have a server, and each client would give up in the end."""
        is_up, now = answers(self._place.home.socket), time.monotonic()
        self._up_since = min(self._up_since, now) if is_up else math.inf
        if now < self._up_since + _SERVES_S if is_up else not self._may_be_starting:
            return []
        self._may_be_starting, self._up_since = is_up, math.inf
        return self._servers()

    def _servers(self) -> list[tuple[psutil.Process, int | None]]:
        """Those that serve, and those that are starting."""
        root = str(self._place.home.root)
        return [(process, None) for process in _processes("--home", root)]

    def _keepers(self) -> list[tuple[psutil.Process, int | None]]:
        servers = {process.pid for process, _ in self._servers()}
        return [(process, None) for process in _processes("forkserver") if process.ppid() in servers]

    def _supervisors(self) -> Iterator[tuple[psutil.Process, int | None]]:
        for claim in self._place.home.logs.glob("*/attempt-*/claim.json"):
            with contextlib.suppress(psutil.Error, OSError, ValueError, KeyError):
                owner = json.loads(claim.read_bytes())
                if "pid" in owner and not owner.get("abandoned") and not (claim.parent / "verdict.json").exists():
                    process = _noted(owner)
                    if process and "forkserver" in process.cmdline():
                        yield process, int(claim.parent.parent.name)

    @staticmethod
    def _children(
        parents: Iterator[tuple[psutil.Process, int | None]],
    ) -> Iterator[tuple[psutil.Process, int | None]]:
        for parent, number in parents:
            with contextlib.suppress(psutil.Error):
                yield from ((child, number) for child in parent.children())

    def _in_containers(self) -> Iterator[tuple[psutil.Process, int | None]]:
        for note in self._place.home.logs.glob("*/attempt-*/process.json"):
            with contextlib.suppress(psutil.Error, OSError, ValueError):
                if first := _noted(json.loads(note.read_bytes())):
                    yield from ((child, int(note.parent.parent.name)) for child in first.children())

    def _builders(self) -> list[tuple[psutil.Process, int | None]]:
        """Each uv of a build. Which runs wait for it is not known, so all count as hit."""
        servers = [process for process, _ in self._servers()]
        return [
            (child, _ANY)
            for server in servers
            for child in server.children(recursive=True)
            if Path(child.name()).name == "uv"
        ]

    def _kill_container(self, chance: float) -> bool:
        if self._engine is None:
            return False
        found = self._engine.containers(filters={"label": f"spell.home={self._place.home.root}"})
        runs = [(each["Id"], name) for each in found if (name := re.match(r"/spell-\w+-(\d+)-a\d+-", each["Names"][0]))]
        if not runs:
            return False
        victim, name = runs[int(chance * len(runs))]
        with contextlib.suppress(docker.errors.APIError):
            self._engine.kill(victim)
            self._note(int(name[1]), "container")
            return True
        return False


def _noted(note: Mapping[str, Any]) -> psutil.Process | None:
    """The process that a note of spell names; None when another one has its number by now."""
    return psutil.Process(note["pid"]) if identity.start_time(note["pid"]) == note["start_time"] else None


def _processes(*words: str) -> list[psutil.Process]:
    """The processes whose command line ends with these words."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-len(words) :] == list(words):
                found.append(process)
    return found
