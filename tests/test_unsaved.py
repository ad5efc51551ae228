"""Looking into a run that has not ended: what `ls`, `cat` and `cp` show of it."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, git

from orchestrator.content.manifest import Entry, Manifest
from orchestrator.data.outputs import Workspace, save
from orchestrator.data.tarred import tarred_now
from orchestrator.data.unsaved import Unsaved
from orchestrator.machine import detect

SCRIPT = """
mkdir -p out/deep .venv; echo > .venv/pyvenv.cfg; echo 1 > out/a; chmod +x out/a; ln -s out/a link; ln -s /etc/passwd away; mkfifo pipe
echo changed >> hello.py; printf half > out/log; chmod 0700 out; echo up; while [ ! -e go ]; do sleep 0.05; done; printf ' whole' >> out/log
"""


@pytest.mark.parametrize("docker", [False, pytest.param(True, marks=pytest.mark.engine)], ids=["process", "docker"])
def test_a_running_run_shows_what_it_has_left(
    make_spell: Callable[..., Spell], repo: Path, tmp_path: Path, docker: bool
) -> None:
    """New and changed files, as they are now and marked so; not mounts, caches, or what links lead to outside."""
    (repo / "more.py").write_text("unchanged")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "More")
    spell = make_spell(cwd=repo, docker=docker)
    spell.run("echo data > data", name="source")
    words = ("-b", "-m", "runs/source/data:in", "--ignore", "go", "--name", "busy")
    assert spell("run", *words, SCRIPT).number == 2
    spell.says(2, b"up")
    listed = spell("ls", "runs/busy")
    assert [line.split("   ")[-1] for line in listed.out.splitlines()] == ["hello.py", "link → out/a", "out/"]
    assert listed.err == "Run 2 is still running: these files are not final.\n"
    found = spell("ls", "runs/latest/out", "--json").json()
    assert [(item["path"], item["size"], item["is_dir"], item["final"]) for item in found] == [
        ("a", 2, False, False), ("log", 4, False, False)
    ]  # fmt: skip
    assert {item.path: item.final for item in spell.client.resources.list("runs")} == {"1": True, "2": False}
    log = spell("cat", "runs/2/out/log")
    assert (log.out, log.err) == ("half", "runs/2/out/log is not final: its run has not ended.\n")
    assert spell("cat", "runs/2/link").out == "1\n"
    for path in ("away", "pipe", "in", "more.py", ".venv/pyvenv.cfg", "nothing", "out/deep/x"):
        refused = spell("cat", f"runs/2/{path}")
        assert refused.err.startswith(f"ERROR: Run 2, which has not ended, has no '{path}' yet.\n"), refused
    copied = spell("cp", "runs/2", "copy", cwd=tmp_path)
    assert copied.out == "✔ Copied 4 files. They are not final: the run has not ended.\n", copied
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == ["a", "hello.py", "link", "log", "out"]
    assert os.access(tmp_path / "copy/out/a", os.X_OK)
    assert spell("exec", "2", "readlink link; stat -c %a out; touch go").out == "out/a\n700\n"
    assert spell.ended(2).state == "complete"
    log = spell("cat", "runs/2/out/log")
    assert (log.out, log.err) == ("half whole", "")
    assert {item.path: item.final for item in spell.client.resources.list("runs/2")} == dict.fromkeys(
        ("hello.py", "link", "out"), True
    )


def test_a_run_that_has_not_begun_or_left_nothing_says_so(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config=f"[machine_types.whole]\ncpus = {detect().cpus:g}\n")
    number = spell.cast("echo up; sleep 1000", machine_type="whole")
    spell.says(number, b"up")
    empty = spell("ls", "runs/latest")
    assert (empty.code, empty.out, empty.err) == (
        0,
        "",
        f"Run {number} is still running: it has written no file yet.\n",
    )
    waiting = spell.cast("true", machine_type="whole")
    for verb in ("ls", "cat", "cp"):
        done = spell(verb, f"runs/{waiting}/x")
        assert done.err.startswith(f"ERROR: Run {waiting} has not begun: it is queued."), done
    mounting = spell("run", "-m", f"runs/{number}/x", "true")
    assert f"run {number} is still running" in mounting.err, "what is not final is mounted by no run"


def test_a_run_that_ends_meanwhile_hands_over_its_outputs(tmp_path: Path) -> None:
    """What was listed in its work dir is read while it is gathered, and when it lies in `runs/N`; what is gone is left out."""
    code, staging, target = tmp_path / "code", tmp_path / "outputs", tmp_path / "7"
    (code / "deep").mkdir(parents=True)
    for name in ("one", "deep/two", "gone", "short"):
        (code / name).write_text(name)
    manifest = Manifest((Entry("code.py", "100644", "0" * 64, 3),))
    (code / "code.py").write_text("abc")
    os.utime(code / "code.py", ns=(5, 5))
    workspace = Workspace(code, manifest, frozenset(), ("*.tmp",), time_ns=5, unpacked_ns=time.time_ns() + 10**9)
    unsaved = Unsaved(workspace, staging, target)
    listed = unsaved.members("")
    assert [item.path for item in listed] == ["deep", "deep/two", "gone", "one", "short"]
    staging.mkdir()
    (code / "one").rename(staging / "one")
    assert [entry.path for entry in unsaved.children("")] == ["deep", "gone", "one", "short"]
    assert b"".join(unsaved.open("one") or io.BytesIO()) == b"one"
    (code / "gone").unlink()
    chunks = tarred_now(listed, unsaved.open)
    first = next(chunks) + next(chunks)  # the folder, and the header of the first file
    save(7, workspace, staging, target)
    with tarfile.open(fileobj=io.BytesIO(first + b"".join(chunks))) as tar:
        found = {item.name: tar.extractfile(item) for item in tar}
        assert {name: file and file.read() for name, file in found.items()} == {
            "deep": None, "deep/two": b"deep/two", "one": b"one", "short": b"short"
        }  # fmt: skip
    (target / "short").chmod(0o644)
    (target / "short").write_text("x" * 100)
    with unsaved.open("short") as file:  # type: ignore[union-attr]
        (target / "short").write_text("y")
        from_then = b"".join(tarred_now([item for item in listed if item.path == "short"], lambda _: file))
    assert len(from_then) % 512 == 0
