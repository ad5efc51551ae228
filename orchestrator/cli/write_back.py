"""Writes the changed notebooks of a run into the folder that its code came from, never over a file that changed meanwhile."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from orchestrator.cli.output import show
from orchestrator.client.client import Client
from orchestrator.errors import UsageError
from orchestrator.records.runs import RunRecord
from orchestrator.spec.mounts import relative_parts

_SUFFIX = ".ipynb"


def write_back(client: Client, run: RunRecord) -> None:
    """Write the notebooks that a run has changed into the work tree around the current folder.

    A file there that is not the one that the run began with stays, and the run's is written beside it.

    Raises:
        UsageError: the run's code is not that of the current folder.
    """
    root, sent = _root(run), _sent(client, run)
    names = [item.path for item in client.runs.artifacts(run.number) if item.path.endswith(_SUFFIX)]
    if not names:
        show.say("No notebook has changed.")
    for name in names:
        relative_parts(name, "The notebook")
        content = client.resources.download(f"runs/{run.number}/{name}").read()
        path = root / name
        there = _digest(path)
        if there == hashlib.sha256(content).hexdigest():
            continue
        if there == sent.get(name, ""):
            _write(path, content)
            show.say(f"✨ Wrote {name}")
            continue
        beside = path.with_name(f"{path.name.removesuffix(_SUFFIX)}.run-{run.number}{_SUFFIX}")
        if not beside.exists():  # it may have been changed, too, since it was written
            _write(beside, content)
        show.warn(f"{name} has changed here since the run began, and stays. The run's is beside it: {beside.name}")


def _root(run: RunRecord) -> Path:
    """The folder that is the root of the run's code."""
    code = run.spec.get("code") or {}
    root, subdir = Path.cwd(), Path(code.get("subdir", ""))
    for _ in subdir.parts:
        root = root.parent
    if code.get("repository") and (root.name != code["repository"] or root / subdir != Path.cwd()):
        where = f"{code['repository']}/{subdir}".rstrip("/.")
        raise UsageError(
            f"The notebooks of run {run.number} belong into {where}, and this is another folder.",
            f"Change into it, and type: spell notebook {run.number} --write-back",
        )
    return root


def _sent(client: Client, run: RunRecord) -> dict[str, str]:
    """The digests of the files that the run began with, by path."""
    code = run.spec.get("code")
    return {entry.path: entry.digest for entry in client.code.tree(code["tree"]).entries} if code else {}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_bytes(content)
    if path.exists():
        half.chmod(path.stat().st_mode)
    half.replace(path)
