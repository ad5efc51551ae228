"""`spell diff`: what differs between two runs is shown, nothing else, and nothing that is secret."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BIN, Spell, git

from orchestrator.spec.run import RequirementFile

TRAIN = """import sys
from orchestrator.runtime import send_metric
send_metric("loss", float(sys.argv[1]))
open("model.txt", "w").write(sys.argv[1])
open("same.txt", "w").write("same")
"""


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that the tests of this module share."""
    return make_shared("compare")


def test_the_example(spell: Spell, repo: Path) -> None:
    (repo / "train.py").write_text(TRAIN)
    git(repo, "add", ".")
    one, two = (
        spell("run", "-f", "--param", f"LR={value}", "python train.py :LR:", cwd=repo).number
        for value in ("0.1", "0.2")
    )
    done = spell("diff", str(one), str(two), "--wait")
    assert (done.code, done.err) == (0, "")
    assert "Spec\n  params.LR: 0.1 → 0.2\n" in done.out
    assert "Outputs\n  ~ model.txt (3B)\n  1 output is the same\n" in done.out
    assert "loss: 0.1 → 0.2" in done.out
    assert "Code" not in done.out and "Environment" not in done.out and "\x1b" not in done.out
    assert spell("diff", str(one), str(two), "--exit-code").code == 1
    assert spell("diff", str(one), str(two), "--exit-code", "--code", "--environment").code == 0
    only = spell("diff", "latest~1", "latest", "--metrics").out
    assert "loss" in only and "params" not in only and "model" not in only


def test_nothing_differs(spell: Spell) -> None:
    one, two = (spell.run("echo x > f").number for _ in range(2))
    done = spell("diff", str(one), str(two), "--wait", "--exit-code")
    assert done.code == 0
    assert done.out.startswith(f"Nothing differs between run {one} and run {two}. They took ")
    assert spell("diff", str(one), "999999").code == 1
    assert spell("diff", str(one)).code == 2


def code_of(spell: Spell, repo: Path) -> int:
    """A run with the code as it lies there."""
    git(repo, "add", "-A")
    return spell("run", "-f", "true", cwd=repo).number


def test_code(spell: Spell, repo: Path) -> None:
    files = {
        "a.py": b"one\ntwo\n",
        "bin": b"\0\1",
        "old name": b"moves\n",
        "gone": b"",
        "mode": b"x\n",
        "latin": b"caf\xe9\n",
    }
    for name, content in files.items():
        (repo / name).write_bytes(content)
    (repo / "link").symlink_to("a.py")
    (repo / "big").write_bytes(b"a\n" * (600 << 10))
    (repo / ".gitattributes").write_text("* diff=evil -text\n")
    before = code_of(spell, repo)
    (repo / "a.py").write_bytes(b"one\n--- three\n\x1b[31mred\n")
    (repo / "bin").write_bytes(b"\0\2")
    (repo / "old name").rename(repo / "new 'ñ' name")
    (repo / "gone").unlink()
    (repo / "mode").chmod(0o755)
    (repo / "latin").write_bytes(b"caf\xe8\n")
    (repo / "link").unlink()
    (repo / "link").symlink_to("bin")
    (repo / "big").write_bytes(b"b\n" * (600 << 10))
    (repo / "empty").touch()
    after = code_of(spell, repo)
    found = spell.client.compare.diff(str(before), str(after), ["code"])
    changes = {item.path: item for item in found.code}
    assert {path: (item.kind, item.note) for path, item in changes.items()} == {
        "a.py": ("changed", ""),
        "big": ("changed", "too big to be shown"),
        "bin": ("changed", "binary"),
        "empty": ("added", ""),
        "gone": ("removed", ""),
        "latin": ("changed", ""),
        "link": ("changed", ""),
        "mode": ("mode", ""),
        "new 'ñ' name": ("renamed", ""),
    }
    assert changes["a.py"].patch == "@@ -1,2 +1,3 @@\n one\n-two\n+--- three\n+\x1b[31mred\n"
    assert changes["new 'ñ' name"].before_path == "old name"
    assert (changes["mode"].before_mode, changes["mode"].after_mode) == ("100644", "100755")
    assert changes["latin"].patch.endswith("-caf\\xe9\n+caf\\xe8\n")
    assert "-a.py" in changes["link"].patch and "+bin" in changes["link"].patch
    done = spell("diff", str(before), str(after), "--code")
    assert done.code == 0 and "\x1b" not in done.out
    assert "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,3 @@\n one\n-two\n+--- three\n+\\x1b[31mred\n" in done.out
    assert "~ mode (mode 100644 → 100755)" in done.out


def test_a_run_without_code_and_code_that_is_gone(spell: Spell, repo: Path) -> None:
    bare, coded = spell.run("true").number, spell("run", "-f", "true", cwd=repo).number
    done = spell("diff", str(bare), str(coded), "--code")
    assert "  + hello.py" in done.out and "+print('hello')" in done.out
    tree = spell.client.runs.get(str(coded)).spec["code"]["tree"]
    spell.home.tree(tree).unlink()
    done = spell("diff", str(bare), str(coded), "--code", "--exit-code")
    assert (done.code, done.out) == (1, f"Nothing else differs between run {bare} and run {coded}.\n")
    assert f"The code of run {coded} is not kept any more" in done.err


def test_nothing_secret_is_shown(spell: Spell) -> None:
    ask = {"env": {"TOKEN": "tell-nobody-1", "SAME": "tell-nobody-3"}, "notify": ("http://127.0.0.1:9/tell-nobody-4",)}
    index = "--index-url https://me:tell-nobody-5@example.org/simple\n"
    one = spell.run("true", **ask, requirements=(RequirementFile("r.txt", "#\n" + index),), frameworks=())
    two = spell.run("true", env={"TOKEN": "tell-nobody-2", "SAME": "tell-nobody-3"})
    for words in ([], ["--json"]):
        done = spell("diff", str(one.number), str(two.number), "--all", *words)
        assert "tell-nobody" not in done.out + done.err
        assert "env.TOKEN" in done.out and "notify" in done.out and "env.SAME" not in done.out
    assert "env.TOKEN: changed (hidden)" in spell("diff", str(one.number), str(two.number)).out


def test_hashes_that_are_still_missing(spell: Spell) -> None:
    one, two = (spell.run("echo x > f").number for _ in range(2))
    assert spell("diff", str(one), str(two), "--wait").code == 0
    with spell.changed_store() as store:
        store.execute("UPDATE artifacts SET sha256 = NULL WHERE run = ?", (one,))  # nobody wakes the hasher
    done = spell("diff", str(one), str(two), "--exit-code")
    assert done.code == 1 and "Nothing else differs" in done.out
    assert "1 output was not compared: its hash is not computed yet." in done.err
    spell.run("true && echo y > g")  # does
    assert spell("diff", str(one), str(two), "--exit-code", "--wait").code == 0


def test_a_run_that_is_still_active(spell: Spell, token: str) -> None:
    one, two = spell.run("echo x > f").number, spell.cast(f"sleep {token}")
    spell.reaches(two, "running")
    done = spell("diff", str(one), str(two))
    assert f"Run {two} is still running." in done.err and "- f (2B)" in done.out
    spell.client.runs.kill(str(two))


def test_colours_only_on_a_terminal(spell: Spell) -> None:
    one, two = spell.run("echo 1").number, spell.run("echo 2").number
    leader, follower = os.openpty()
    env = {**spell.env, "TERM": "xterm"}
    env.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [str(BIN / "spell"), "diff", str(one), str(two)], env=env, stdout=follower, stderr=follower
    )
    os.close(follower)
    assert process.wait(30) == 0
    assert b"command: \x1b[31mecho 1\x1b[0m" in os.read(leader, 1 << 16)
    os.close(leader)


def test_a_rerun_is_the_same(spell: Spell) -> None:
    """What it was pinned to is what the first one had."""
    first = spell.run("echo out > out.txt").number
    again = spell("rerun", str(first)).number
    done = spell("diff", str(first), str(again), "--exit-code")
    assert (done.code, "executor" in done.out) == (0, False), done.out
