"""`--deps-from-env`: what installers noted in an environment, as exact requirements, and what cannot be had again."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Spell, git
from wheels import make_wheel

from orchestrator.capture import snapshot
from orchestrator.cli.input.virtualenv import with_value, with_virtualenv
from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec.run import RunSpec


class Env:
    """A virtual environment as installers leave it, of which only the notes matter."""

    def __init__(self, root: Path, version: str = "version_info = 3.12.4") -> None:
        self.root = root
        self.site = root / "lib" / "python3.12" / "site-packages"
        self.site.mkdir(parents=True)
        (root / "pyvenv.cfg").write_text(f"home = /usr/bin\n{version}\n")

    def add(self, name: str, version: str = "1.0", origin: Any = None, needs: str = "", installer: str = "uv") -> None:
        info = self.site / f"{name}-{version}.dist-info"
        info.mkdir()
        lines = [
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
            *([f"Requires-Dist: {needs}"] if needs else []),
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "INSTALLER").write_text(f"{installer}\n")
        if origin:
            (info / "direct_url.json").write_text(json.dumps(origin))

    def taken(self, **fields: Any) -> RunSpec:
        return with_virtualenv(RunSpec("true", **fields), str(self.root), None, err=False)


def lines_of(spec: RunSpec) -> list[str]:
    return spec.requirements[-1].text.splitlines()


def test_everything_comes_from_where_it_came(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    env = Env(tmp_path / "env")
    wheel = make_wheel(tmp_path, "fromfile")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    beside = tmp_path / "my lib"
    beside.mkdir()
    (beside / "setup.py").touch()
    commit = "c" * 40
    env.add("pip", "26.3")
    env.add("torch", "2.9.0+cu128")
    env.add("Six", "1.17.0")
    env.add(
        "repo",
        origin={
            "url": "https://example.org/r.git",
            "vcs_info": {"vcs": "git", "commit_id": commit},
            "subdirectory": "a",
        },
    )
    env.add("web", origin={"url": "https://example.org/web-1.0.zip", "archive_info": {"hashes": {"sha256": "ab"}}})
    env.add("fromfile", origin={"url": wheel.as_uri(), "archive_info": {"hashes": {"sha256": digest}}})
    env.add("mylib", origin={"url": beside.as_uri(), "dir_info": {"editable": True}})
    env.add("numpy", "2.3.4", origin={"url": "file:///home/conda/feedstock_root/numpy"}, installer="conda")
    spec = env.taken()
    assert lines_of(spec) == [
        f"fromfile @ {wheel.as_uri()}",
        f"mylib @ {beside.as_uri()}",
        "numpy==2.3.4",
        f"repo @ git+https://example.org/r.git@{commit}#subdirectory=a",
        "Six==1.17.0",
        "torch==2.9.0+cu128",
        "web @ https://example.org/web-1.0.zip#sha256=ab",
    ]
    assert spec.python == "3.12"
    said = capfd.readouterr()
    assert "7 packages, Python 3.12" in said.out
    assert f"mylib is installed as it is now in {beside}" in said.err
    assert "six" not in env.taken(pip=("six==1.16",)).requirements[0].text.lower(), "what is typed wins"
    assert env.taken(python="3.13").python == "3.13"


def test_what_cannot_be_had_again_is_named(tmp_path: Path) -> None:
    env = Env(tmp_path / "env", "version = 3.11.2")
    wheel = make_wheel(tmp_path, "changed")
    env.add("changed", origin={"url": wheel.as_uri(), "archive_info": {"hashes": {"sha256": "00"}}})
    env.add("gone", origin={"url": "file:///nowhere/gone", "dir_info": {}})
    env.add("old", "1.0")
    env.add("asking", needs="old>=2")
    env.add("fine", needs="old>=2; python_version < '3'")
    with pytest.raises(InvalidConfig) as caught:
        env.taken()
    assert re.sub(r"/\S*/", "", caught.value.message).splitlines()[1:] == [
        "  changed: it was installed from changed-1.0-py3-none-any.whl, which has changed since",
        "  gone: it was installed from gone, which does not exist now",
        "  asking 1.0 needs old>=2, and 1.0 is installed",
    ]


def test_a_bare_option_means_the_active_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = Env(tmp_path / "env")
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no environment is active"):
        with_value(["--deps-from-env", "train"])
    assert with_value(["--deps-from-env", str(env.root), "train"]) == [f"--deps-from-env={env.root}", "train"]
    assert with_value(["train", "--", "--deps-from-env"]) == ["train", "--", "--deps-from-env"]
    monkeypatch.setenv("CONDA_PREFIX", "/conda")
    assert with_value(["-b", "--deps-from-env", "train"]) == ["-b", "--deps-from-env=/conda", "train"]
    with pytest.raises(InvalidConfig, match="no virtual or conda environment"):
        with_virtualenv(RunSpec("true"), str(tmp_path), None, err=False)


def test_a_project_of_the_code_is_that_of_the_snapshot(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "libs").mkdir()
    (repo / "libs" / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n')
    git(repo, "add", "-A")
    env = Env(tmp_path / "env")
    env.add("mine", origin={"url": (repo / "libs").as_uri(), "dir_info": {}})
    monkeypatch.chdir(repo)
    spec = with_virtualenv(RunSpec("true"), str(env.root), snapshot.of_working_tree(repo), err=False)
    assert (spec.editables, lines_of(spec)) == (("libs",), [])


def test_nothing_is_cast_of_an_environment_that_cannot_be_had(spell: Spell, repo: Path, tmp_path: Path) -> None:
    env = Env(tmp_path / "env")
    env.add("gone", origin={"url": "file:///nowhere/gone", "dir_info": {}})
    done = spell("run", "--deps-from-env", "true", cwd=repo, env={"VIRTUAL_ENV": str(env.root)})
    assert done.code != 0
    assert "gone: it was installed from /nowhere/gone" in done.err
    assert spell.client.runs.list() == []
