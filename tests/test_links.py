"""Links below a folder: what they say, and what the kernel finds; and what lies there else."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from orchestrator.content.links import found_target, is_below, said_target
from orchestrator.content.manifest import special_kind


@pytest.mark.parametrize(
    ("path", "text", "target"),
    [
        ("a", "b", "b"),
        ("d/a", "b", "d/b"),
        ("d/a", "../b", "b"),
        ("d/a", "./x/../b/", "d/b"),
        ("d/a", "..", "."),
        ("d/e/a", "../../..b", "..b"),
        ("a", "..", None),
        ("a", "../b", None),
        ("d/a", "../../b", None),
        ("d/a", "x/../../../b", None),
        ("a", "/b", None),
        ("a", "", None),
        ("a", "b\0c", None),
    ],
)
def test_where_a_link_says_that_it_leads(path: str, text: str, target: str | None) -> None:
    assert said_target(path, text) == target


@pytest.mark.parametrize(
    ("path", "is_inside"),
    [(".", True), ("a/..", True), ("..a", True), ("a/../..", False), ("..", False), ("/", False), ("a\0", False)],
)
def test_paths_that_stay_below(path: str, is_inside: bool) -> None:
    assert is_below(path) == is_inside


def test_where_the_kernel_gets(tmp_path: Path) -> None:
    """It follows links on the way, and needs nothing to be there; the folder itself may be known by a link, too."""
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    (tmp_path / "root-beside").mkdir()
    links = {
        "good": "d/e",
        "by-way": "good/x",
        "gone": "nothing",
        "itself": ".",
        "beside": "../root-beside",
        "out": "/",
        "deep": "d/e",
    }
    for name, text in links.items():
        os.symlink(text, root / name)
    os.symlink("out/..", root / "said-inside")
    os.symlink("deep/../../..", root / "climbs")
    os.symlink(root, tmp_path / "alias")
    expected = {"good": "d/e", "by-way": "d/e/x", "gone": "nothing", "deep": "d/e", "d/e": "d/e"}
    leads_out = ["itself", "beside", "out", "said-inside", "climbs"]
    for name in (str(root), str(tmp_path / "alias")):
        assert {path: found_target(name, path) for path in [*expected, *leads_out]} == expected | dict.fromkeys(
            leads_out
        )
    assert said_target("said-inside", "out/..") == "."
    assert found_target("/", str(root)) == str(root.resolve()).lstrip("/")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket"))
        kinds = [special_kind(os.lstat(path)) for path in (tmp_path / "pipe", tmp_path / "socket", "/dev/null")]
    assert kinds == ["a named pipe", "a socket", "a device"]
