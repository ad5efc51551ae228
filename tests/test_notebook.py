"""`spell notebook`, with a real JupyterLab: reached, left, found again, and its notebooks brought home."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
from conftest import DEADLINE_S, Spell, git

EMPTY = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
FULL = {**EMPTY, "cells": [{"cell_type": "markdown", "id": "one", "metadata": {}, "source": "changed in the run"}]}


def asked(url: str, token: str = "", content: object = None) -> int:
    """The status of an answer of Jupyter."""
    body = None if content is None else json.dumps({"type": "notebook", "format": "json", "content": content}).encode()
    request = urllib.request.Request(url, body, method="GET" if body is None else "PUT")
    if token:
        request.add_header("Authorization", f"token {token}")
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def url_of(notebook: subprocess.Popen[str]) -> tuple[str, str]:
    """The address of the Jupyter that a command tells of, and the token."""
    assert notebook.stdout
    for line in notebook.stdout:
        if found := re.search(r"JupyterLab: (http://127\.0\.0\.1:\d+/notebook/\d+/)lab\?token=(\w+)", line):
            return found[1], found[2]
    raise AssertionError(notebook.stderr and notebook.stderr.read())


def test_a_port_that_is_taken_costs_no_run(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell()
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = spell("notebook", "--no-code", "--port", str(other.getsockname()[1]))
    assert done.code != 0 and "Take another one: --port NUMBER" in done.err
    assert spell("ps", "--json").json() == []


def test_a_notebook_is_a_run_whose_notebooks_come_home(make_spell: Callable[..., Spell], repo: Path) -> None:
    for name in ("analysis", "both"):
        (repo / f"{name}.ipynb").write_text(json.dumps(EMPTY))
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "Notebooks")
    spell = make_spell(cwd=repo)
    with spell.popen("notebook", "--port", "0", text=True, bufsize=1) as notebook, contextlib.ExitStack() as ends:
        ends.callback(notebook.kill)
        url, token = url_of(notebook)
        assert [asked(f"{url}api/status"), asked(f"{url}api/status", "wrong"), asked(f"{url}lab", token)] == [
            403,
            403,
            200,
        ]
        for name in ("analysis", "both", "new"):
            assert asked(f"{url}api/contents/{name}.ipynb", token, FULL) in (200, 201)
        (repo / "both.ipynb").write_text("mine")
        notebook.send_signal(signal.SIGINT)
        assert notebook.wait(DEADLINE_S) == 130
        assert notebook.stderr and "Come back with 'spell notebook 1'" in notebook.stderr.read()
    assert token.encode() not in spell.log(1) and token not in spell("info", "1", "--json").out
    shown = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert [words for words in shown if token in " ".join(words)] == []

    words = ("notebook", "1", "--port", "0", "--write-back")
    with spell.popen(*words, text=True, bufsize=1) as notebook, contextlib.ExitStack() as ends:
        ends.callback(notebook.kill)
        assert url_of(notebook)[1] == token
        assert spell("stop", "1").code == 0
        out, err = notebook.communicate(timeout=DEADLINE_S)
    assert (notebook.returncode, spell.ended(1).state) == (0, "stopped")
    assert re.findall(r"Wrote (\S+)", out) == ["analysis.ipynb", "new.ipynb"]
    assert "both.ipynb has changed here since the run began, and stays" in err
    assert (repo / "both.ipynb").read_text() == "mine"
    for name in ("analysis", "both.run-1", "new"):
        assert "changed in the run" in (repo / f"{name}.ipynb").read_text()
    assert sorted(item.path for item in spell.client.runs.artifacts(1)) == ["analysis.ipynb", "both.ipynb", "new.ipynb"]

    assert "belong to a new one" in spell("notebook", "1", "-t", "gpu").err
    assert "belong into project" in spell("notebook", "1", "--write-back", cwd=Path(os.sep)).err
    other = spell.run("true").number
    assert f"Run {other} is no notebook." in spell("notebook", str(other)).err
