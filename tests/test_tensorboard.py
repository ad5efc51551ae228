"""`spell tensorboard`, with a real TensorBoard: the event files of a running run as they grow, and those of an ended one."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
from conftest import DEADLINE_S, Spell, git, wait_for

EVENTS = Path(__file__).parent / "data" / "trackers" / "tensorboard" / "events.out.tfevents.1796076847.vm.21739.0"


def read(url: str) -> object:
    """What TensorBoard answers; the status where it refuses."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code


def steps(url: str) -> list[int]:
    """The steps of the values of a scalar, in the order in which they were written."""
    found = read(url)
    return [int(step) for _, step, _ in found] if isinstance(found, list) else []


def test_event_files_are_shown_while_they_grow_and_afterwards(make_spell: Callable[..., Spell], repo: Path) -> None:
    shutil.copy(EVENTS, repo / "whole")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "Events")
    spell = make_spell(cwd=repo)
    half = 200  # bytes: in the middle of the values of `loss`
    name = "logs/train/events.out.tfevents.1"
    command = f"mkdir -p logs/train; head -c {half} whole > {name}; echo half; read -r _ < <(tail -f --pid=$$ go); tail -c +{half + 1} whole >> {name}; echo whole; sleep 600"
    assert spell("run", "-b", "-f", "--name", "growing", f"touch go; {command}").code == 0
    spell.says(1, b"half")
    ended = spell.run("true").number
    assert "has kept no event files" in spell("tensorboard", str(ended)).err
    with socket.create_server(("127.0.0.1", 0)) as others:
        taken = spell("tensorboard", "growing", "--port", str(others.getsockname()[1]))
        assert taken.code == 1 and "cannot be taken" in taken.err

    words = ("tensorboard", "growing", str(ended), "--port", "0")
    with spell.popen(*words, text=True, bufsize=1) as board, contextlib.ExitStack() as ends:
        ends.callback(board.kill)
        assert board.stdout and board.stderr
        found = re.search(r"(http://127\.0\.0\.1:\d+/)(tensorboard/(\w+)/)", board.stdout.readline())
        assert found, board.stderr.read()
        url, secret = found[1] + found[2], found[3]
        assert read(found[1]) == 404
        wait_for(lambda: read(f"{url}data/runs") == ["1-growing/logs/train"], "the run is shown")
        values = f"{url}data/plugin/scalars/scalars?run=1-growing/logs/train&tag=loss"
        wait_for(lambda: 0 < len(steps(values)) < 5, "the first half is shown")
        with spell.client.exec.start(1, ["echo now >> go"]) as told:
            assert list(told.read()) == []
        spell.says(1, b"whole")
        wait_for(lambda: steps(values) == [1, 2, 5, 3, 4], "what was appended is shown")
        children = psutil.Process(board.pid).children(recursive=True)
        shown = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        assert [words for words in shown if secret in " ".join(words)] == []
        board.send_signal(signal.SIGINT)
        assert board.wait(DEADLINE_S) == 130
        assert f"Run {ended} has kept no event files." in board.stderr.read()
    assert children and psutil.wait_procs(children, DEADLINE_S)[1] == []
