"""`spell verify`: what is not as it was recorded is found, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that the tests of this module share."""
    return make_shared("verify")


def opened(spell: Spell, number: int) -> Path:
    """The outputs of a run, that may be written to."""
    root = spell.home.run_dir(number)
    for folder, _, files in os.walk(root):
        os.chmod(folder, 0o755)
        for name in files:
            if not Path(folder, name).is_symlink():
                os.chmod(Path(folder, name), 0o644)
    return root


NAMES = "mkdir -p d/e; echo 1 > d/e/f; ln -s d/e/f link; printf 'x' > 'a b'; touch empty \"$(printf 'n\\351w\\nline')\""


def test_outputs_as_they_were(spell: Spell) -> None:
    one, two = spell.run(NAMES).number, spell.run("true").number
    done = spell("verify", str(one), str(two))
    assert (done.code, done.err) == (0, "")
    assert done.out == f"✔ Run {one}: 5 files, 8B, as recorded\n✔ Run {two}: it has no outputs\n"
    assert spell("verify", "-q", str(one)).out == ""


def test_outputs_that_were_tampered_with(spell: Spell, tmp_path: Path) -> None:
    number = spell.run(f"{NAMES}; echo 1 > mode; mkdir moved; echo 1 > moved/x").number
    assert spell("verify", str(number)).code == 0
    root = opened(spell, number)
    (root / "d/e/f").write_text("2\n")
    (root / "a b").unlink()
    (root / "extra").touch()
    (root / "link").unlink()
    (root / "link").symlink_to("empty")
    (root / "mode").chmod(0o755)
    (root / "moved").rename(tmp_path / "moved")  # the same content, by way of a link
    (root / "moved").symlink_to(tmp_path / "moved")
    done = spell("verify", str(number), "--json")
    assert done.code == 1
    (found,) = done.json()
    assert [(item["path"], item["problem"]) for item in found["problems"]] == [
        ("a b", "missing"),
        ("d/e/f", "changed"),
        ("extra", "extra"),
        ("link", "changed"),
        ("mode", "changed"),
        ("moved", "extra"),
        ("moved/x", "missing"),
    ]
    assert "changed    d/e/f" in spell("verify", str(number)).out


def test_what_was_never_hashed(spell: Spell) -> None:
    number = spell.run("echo x > f").number
    assert spell("verify", str(number)).code == 0
    with spell.changed_store() as store:
        store.execute("UPDATE artifacts SET sha256 = '' WHERE run = ?", (number,))
    done = spell("verify", str(number))
    assert done.code == 1 and "unhashed   f" in done.out


def test_a_file_that_lost_bytes_before_it_was_hashed(spell: Spell) -> None:
    """As after a power cut: what it holds then is not taken for what was saved."""
    number = spell.run("echo x > f; echo 1 > g").number
    assert spell("verify", str(number)).code == 0  # all is hashed: a server frozen meanwhile holds the store
    with spell.changed_store() as store:
        store.execute("UPDATE artifacts SET sha256 = NULL WHERE run = ?", (number,))
        (opened(spell, number) / "f").write_text("")
    spell.kill_server()
    done = spell("verify", str(number))
    assert done.code == 1 and "changed    f" in done.out and "  g" not in done.out


def test_a_run_that_is_still_active(spell: Spell, token: str) -> None:
    number = spell.cast(f"sleep {token}")
    spell.reaches(number, "running")
    done = spell("verify", str(number))
    assert (done.code, done.out) == (1, "") and f"Run {number} is still running." in done.err
    spell.client.runs.kill(str(number))
