"""Offers to keep what looks like secrets in a `.env` as secrets of the home, for the verbs that cast runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.input.envfile import read_files, secrets_in
from orchestrator.cli.output import show

if TYPE_CHECKING:
    from orchestrator.client.client import Client


def as_secrets(client: Client, env: Mapping[str, str], files: Sequence[Path], *, force: bool) -> list[str]:
    """The names of variables of files whose place secrets of the home take, as they look like secrets.

    Those that the home does not have are set when the person says yes; without a terminal they stay variables.

    Args:
        env: the variables of the run; those that differ from the files were typed, and stay.
        force: ask nothing.
    """
    looks = secrets_in({name: value for name, value in read_files(files).items() if env.get(name) == value})
    if not looks:
        return []
    known = {item.name for item in client.secrets.list()}
    kept, new = [name for name in looks if name in known], [name for name in looks if name not in known]
    if kept:
        show.say(f"✨ Given by your secrets of these names, not by the file: {', '.join(kept)}", err=True)
    if new and _agreed(new, files, force=force):
        for name in new:
            client.secrets.put(name, looks[name].encode())
        kept += new
    return kept


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
