"""A cache as huggingface_hub makes it, whose snapshots are links to blobs, for runs of every executor."""

from __future__ import annotations

import os
from pathlib import Path

from conftest import Spell

from orchestrator.spec.mounts import parse_mount

_MAKE = """
mkdir -p hub/models--a--b/blobs hub/models--a--b/snapshots/rev/sub hub/models--a--b/refs ckpt other
echo weights > hub/models--a--b/blobs/1; echo config > hub/models--a--b/blobs/2; echo o > other/o
cd hub/models--a--b/snapshots/rev; ln -s ../../blobs/1 model; ln -s ../../../blobs/2 sub/config; ln -s model same
ln -s ../../../../other folder; ln -s ../../../../other again; ln -s ../.. up; cd ../../../..
echo 1 > ckpt/a; ln -s $PWD/ckpt/a best; ln -s $PWD/ckpt ckpt/here
"""
_SNAPSHOT = "hub/models--a--b/snapshots/rev"


def check_links_are_followed(spell: Spell, tmp_path: Path, *, guarded: bool = True) -> None:
    """What is copied, listed, mounted and exported of a part of a run has the content that its links lead to.

    Args:
        guarded: whether the executor can keep root from writing to a mount.
    """
    one = spell.run(_MAKE)
    root = spell.home.run_dir(one.number)
    assert (os.readlink(root / "best"), os.readlink(root / "ckpt" / "here")) == ("ckpt/a", "../ckpt")
    assert not [item for item in spell.client.runs.artifacts(str(one.number)) if item.note]
    resource = f"runs/{one.number}/{_SNAPSHOT}"
    copy = tmp_path / "copy"
    done = spell("cp", resource, str(copy))
    assert (done.code, done.err) == (0, "")
    _check(copy)
    assert {item.path: item.size for item in spell.client.resources.list(resource)}["model"] == len("weights\n")

    look = "cat in/model in/same in/sub/config in/folder/o in/again/o in/up/blobs/1"
    look += "; ! echo x > in/model" if guarded else ""
    two = spell.run(look, mounts=(parse_mount(f"{resource}:in"),))
    assert two.state == "complete", spell.log(two.number)
    assert spell.log(two.number).startswith(b"weights\nweights\nconfig\no\no\nweights\n")
    assert (root / "hub/models--a--b/blobs/1").read_text() == "weights\n"
    done = spell("export", str(two.number), "--with-inputs", "-o", str(tmp_path / "export"))
    assert done.code == 0, done
    _check(tmp_path / "export" / "inputs" / resource)


def _check(copy: Path) -> None:
    model, config = copy / "model", copy / "sub" / "config"
    assert (model.read_text(), config.read_text()) == ("weights\n", "config\n")
    assert not model.is_symlink() and not config.is_symlink() and (copy / "same").read_text() == "weights\n"
    assert (copy / "folder" / "o").read_text() == (copy / "again" / "o").read_text() == "o\n"
    assert (copy / "folder").is_symlink() != (copy / "again").is_symlink()  # each folder is there once
    for folder in ("up/snapshots/rev", "up/blobs"):  # a way back up is no loop without end
        assert (copy / folder).resolve().is_relative_to(copy.resolve())
    assert not [path for path in copy.rglob("*") if not path.exists()]
