"""Offers to keep what looks like secrets in a `.env` as secrets of the home, for the verbs that cast runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.input.envfile import read_files, secrets_in
from orchestrator.cli.output import show

if TYPE_CHECKING:
    from orchestrator.client.client import Client
    from orchestrator.spec.run import RunSpec


def with_secrets(client: Client, spec: RunSpec, files: Sequence[Path], *, force: bool) -> RunSpec:
    """The spec, in which secrets of the home take the place of what looks like secrets in files of variables.

    Those that the home does not have are set when the person says yes; without a terminal they stay variables.

    Args:
        force: ask nothing.
    """
    looks = secrets_in({name: value for name, value in read_files(files).items() if spec.env.get(name) == value})
    if not looks:
        return spec
    known = {item.name for item in client.secrets.list()}
    kept, new = [name for name in looks if name in known], [name for name in looks if name not in known]
    if kept:
        show.say(f"✨ Given by your secrets of these names, not by the file: {', '.join(kept)}", err=True)
    if new and _agreed(new, files, force=force):
        for name in new:
            client.secrets.put(name, looks[name].encode())
        kept += new
    env = {name: value for name, value in spec.env.items() if name not in kept}
    return replace(spec, env=env, secrets={**spec.secrets, **{name: name for name in kept}})


def _agreed(names: Sequence[str], files: Sequence[Path], *, force: bool) -> bool:
    said, where = ", ".join(names), ", ".join(map(str, files))
    if sys.stdin.isatty() and sys.stdout.isatty() and not force:
        show.say(f"By their names these are secrets: {said} ({where}).")
        return click.confirm("Keep them as secrets of spell, encrypted and hidden in logs?", default=True)
    show.warn(
        f"By their names these are secrets, and the run keeps them as plain variables: {said}\n"
        f"  To keep them encrypted, and hidden in logs: spell secret import {where}"
    )
    return False
