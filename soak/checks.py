"""What must hold of every run, and of the home, when nothing is broken any more."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import docker

from orchestrator.client.client import Client
from orchestrator.records.runs import RunRecord
from orchestrator.spec.filters import Filter
from orchestrator.states import FINAL, MOVES, State
from soak.people import Story
from soak.place import DATA, Place
from soak.plan import FAILING_CODE

_LOOK_S = 0.1
_LOST = frozenset(
    {"supervisor_lost", "container_lost", "executor_failed", "signalled", "exited_nonzero", "out_of_memory"}
)
_MARK = re.compile(r"^--- attempt \d+ ---$")


def wait_until_over(client: Client, limit_s: float) -> list[str]:
    """Wait until every run has ended. Returns a complaint about each that is stuck."""
    deadline = time.monotonic() + limit_s
    while active := [run for run in client.runs.list(limit=10_000) if run.state not in FINAL]:
        if time.monotonic() > deadline:
            return [f"run {run.number} ({run.name}) is stuck: {run.state}, asked: {run.wish}" for run in active]
        time.sleep(_LOOK_S)
    return []


def complaints_about(place: Place, client: Client, story: Story, hits: Mapping[int, set[str]]) -> Iterator[str]:
    """Check one run that was wanted.

    Args:
        hits: what was killed of runs, by number.
    """
    wanted = story.wanted
    named = client.runs.list(Filter(name=wanted.name), limit=10)
    if len(named) > 1:
        yield f"{wanted.name} was cast {len(named)} times: {[run.number for run in named]}"
    if not named:
        may_be_none = story.hits & {"cli", "git"} or story.full_disk
        if story.number is not None or not may_be_none:
            yield f"{wanted.name} was not cast: {story.said or story.number}"
        return
    run = client.runs.get(named[0].number)
    story.number = run.number  # who was killed while they cast it had not learned it
    story.hits |= hits.get(run.number, set())
    for complaint in (*_of_state(story, run), *_of_log(place, story, run), *_of_outputs(place, client, story, run)):
        yield f"run {run.number} ({wanted.executor}, hit: {sorted(story.hits)}): {complaint}"


def _of_state(story: Story, run: RunRecord) -> Iterator[str]:
    ends = {("failed", "exited_nonzero") if story.wanted.fails else ("complete", "exited_zero")}
    asked = {*story.accepted, *story.unanswered}
    if "kill" in story.accepted:
        ends = {("killed", "kill_requested")}
    elif "stop" in story.accepted:
        ends = {("stopped", "stop_requested"), ("killed", "kill_requested")}
    if "kill" not in story.accepted:
        ends |= {("stopped", "stop_requested")} if "stop" in asked else set()
        ends |= {("killed", "kill_requested")} if "kill" in asked else set()
        if story.hits & {"supervisor", "reaper", "command", "container"}:
            ends |= {("failed", reason) for reason in _LOST}
        if "uv" in story.hits and story.wanted.builds:
            ends.add(("build_failed", "build_failed"))
        if story.full_disk:
            ends |= {("failed", reason) for reason in ("disk_full", "save_failed", *_LOST)} | {
                ("build_failed", "build_failed")
            }
    if (run.state, run.reason) not in ends:
        yield f"ended as {run.state} ({run.reason}: {run.message}); accepted: {story.accepted}, refused: {story.refused}"
    if run.reason == "exited_nonzero" and not story.hits and not story.full_disk and run.exit_code != FAILING_CODE:
        yield f"ended with exit code {run.exit_code}"


def _of_log(place: Place, story: Story, run: RunRecord) -> Iterator[str]:
    """Its lines came in order and once, and all of them if it came to its end."""
    path = place.home.log(run.number)
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    begun: list[str] = []
    attempts: list[list[str]] = [[]]
    for line in lines:
        if _MARK.match(line):
            attempts.append([])
        else:
            attempts[-1].append(line)
    for said in attempts:
        if said and said[0].startswith(f"{story.wanted.name} begin "):
            begun.append(said[0])
            whole = story.wanted.log_of(int(said[0].split()[-1]), DATA)
            if said != whole[: len(said)] and not story.full_disk:
                yield f"its log has {said}, not {whole}"
            if said is attempts[-1] and _came_to_its_end(story, run) and said != whole:
                yield f"it ended by itself, but its log has only {said}"
        elif said and not story.full_disk and not story.hits:
            yield f"its log begins with {said[0]!r}"
    if len(set(begun)) != len(begun):
        yield f"its command was executed twice: {begun}"
    if _came_to_its_end(story, run) and not begun:
        yield "it ended by itself, but its log is empty"


def _came_to_its_end(story: Story, run: RunRecord) -> bool:
    return run.state == State.COMPLETE or (
        run.exit_code == FAILING_CODE and story.wanted.fails and run.state == "failed"
    )


def _of_outputs(place: Place, client: Client, story: Story, run: RunRecord) -> Iterator[str]:
    """They are the files that it made, with the recorded hashes; those of a killed run are gone."""
    folder = place.home.run_dir(run.number)
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    records = {item.path: item for item in client.runs.artifacts(run.number) if not item.note}
    if there.keys() != records.keys():
        yield f"outputs {sorted(there)}, recorded {sorted(records)}"
        return
    if run.state == State.KILLED and there:
        yield f"it was killed, but has outputs: {sorted(there)}"
    for name, path in there.items():
        content = path.read_bytes()
        if (known := records[name].sha256) and known != hashlib.sha256(content).hexdigest():
            yield f"{name} does not have its recorded hash"
        if _came_to_its_end(story, run) and content != story.wanted.outputs.get(name):
            yield f"{name} has other content"
    if _came_to_its_end(story, run) and there.keys() != story.wanted.outputs.keys():
        yield f"outputs are {sorted(there)}"


def complaints_about_events(client: Client) -> Iterator[str]:
    """The states of each run followed each other as the table allows, and it ended once."""
    for run in client.runs.list(limit=10_000):
        states = [State(event.state) for event in client.runs.events(run.number) if event.kind == "state"]
        if any(to not in MOVES[current] for current, to in pairwise(states)) or states[-1] not in FINAL:
            yield f"run {run.number} went through {states}"


def complaints_about_remains(place: Place, engine: docker.APIClient | None, limit_s: float) -> list[str]:
    """Nothing of any run is left but its records and its outputs. What is being removed gets some time."""
    deadline = time.monotonic() + limit_s
    while True:
        found = [*_left_processes(place), *_left_files(place), *_left_containers(place, engine)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(_LOOK_S)


def _left_processes(place: Place) -> Iterator[str]:
    mark = f"SPELL_RUN_MARK={place.home.root}/".encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if mark in Path("/proc", name, "environ").read_bytes():
                yield f"process {name} is left: {Path('/proc', name, 'cmdline').read_bytes()!r}"


def _left_files(place: Place) -> Iterator[str]:
    yield from (f"{path} is left" for path in place.home.work.iterdir())
    requests = place.home.logs.glob("*/attempt-*/request*")  # they hold values of variables until they are emptied
    yield from (f"{path} is left" for path in requests if path.stat().st_size)


def _left_containers(place: Place, engine: docker.APIClient | None) -> Iterator[str]:
    if engine:
        for each in engine.containers(all=True, filters={"label": f"spell.home={place.home.root}"}):
            yield f"container {each['Names'][0]} is left: {each['Status']}"


def complaints_about_store(place: Place) -> Iterator[str]:
    """The store is whole."""
    with contextlib.closing(sqlite3.connect(place.home.database)) as store:
        if (found := store.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            yield f"the store is damaged: {found}"
        if found := store.execute("PRAGMA foreign_key_check").fetchall():
            yield f"the store refers to what it does not have: {found}"
