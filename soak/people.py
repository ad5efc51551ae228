"""Who casts the runs: a person at the command line, who may be killed, and who may change their mind."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from orchestrator.client.client import Client
from orchestrator.errors import Conflict, SpellError
from soak.place import Place
from soak.plan import Wanted

_CAST = re.compile(r"Casting spell #(\d+)")
_LIMIT_S = 120.0
_LOOK_S = 0.0005


@dataclass(slots=True)
class Story:
    """What has happened to one run that was wanted.

    Attributes:
        number: of the run; None if none is known to exist.
        said: what the command line said, if it did not end well.
        accepted, refused: the requests to end it, by how the server answered.
        unanswered: those without an answer.
        hits: what was killed of this run.
        is_begun: whether it was cast, or is being cast.
        full_disk: whether the disk was full since then.
    """

    wanted: Wanted
    number: int | None = None
    said: str = ""
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    hits: set[str] = field(default_factory=set)
    is_begun: bool = False
    full_disk: bool = False


def cast(place: Place, story: Story) -> None:
    """Cast a run by `spell run`. If it is planned so, the command, or its git, is killed meanwhile."""
    wanted, story.is_begun = story.wanted, True
    words = ["--background", "--force", "--name", wanted.name, "--executor", wanted.executor]
    words += ["--retries", str(wanted.retries)]
    words += ["--pip", str(place.project(wanted.name))] if wanted.builds else []
    command = [place.spell, "run", *words, wanted.command]
    with subprocess.Popen(
        command, cwd=place.repo, env=place.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        if wanted.victim == "cli":
            time.sleep(wanted.victim_after_s)
            if process.poll() is None:
                process.kill()
                story.hits.add("cli")
        elif wanted.victim == "git" and _kill_git(process):
            story.hits.add("git")
        out, _ = process.communicate(timeout=_LIMIT_S)
    found = _CAST.search(out)
    story.number = int(found[1]) if found else None
    if process.returncode:
        story.said = out.strip() or f"exit code {process.returncode}"


def _kill_git(process: subprocess.Popen[str]) -> bool:
    """Kill the first git that a command starts. Returns whether it started one that could be caught."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        for pid in children.read_text().split():
            try:
                child = psutil.Process(int(pid))
                if child.name() == "git":
                    child.kill()
                    return True
            except (psutil.Error, OSError):
                continue
        time.sleep(_LOOK_S)
    return False


def ask_for_end(client: Client, story: Story) -> None:
    """Make the planned requests to stop or kill a run, and note how they are answered."""
    if not story.number or not story.wanted.ending:
        return
    time.sleep(story.wanted.ending_after_s)
    for word in story.wanted.ending.split():
        try:
            {"stop": client.runs.stop, "kill": client.runs.kill}[word](story.number)
        except Conflict:
            story.refused.append(word)
        except SpellError:
            story.unanswered.append(word)
        else:
            story.accepted.append(word)
