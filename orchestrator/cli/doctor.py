"""`spell doctor` checks this machine. Checks that need no server are made on the client's side."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from uv import find_uv_bin

import orchestrator
from orchestrator.cli.output import show
from orchestrator.client.client import connect
from orchestrator.client.launch import NOT_STARTED
from orchestrator.errors import InvalidConfig, SpellError
from orchestrator.home import Home, default_home
from orchestrator.records.machines import CheckRecord

_SIGNS = {"ok": "✓", "warn": "!", "fail": "✗"}
_ASK_LIMIT_S = 5.0
_LITTLE_BYTES = 5 << 30


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, json_: bool) -> None:
    """Check this machine, and say how to correct each problem. The exit code is 1 if something that spell needs does
    not work."""
    found = [*_program(), *_git(), *_uv(), *_home(), *_server()]
    if json_:
        show.as_json(found)
    else:
        _print(found)
    ctx.exit(int(any(item.status == "fail" for item in found)))


def _print(found: Sequence[CheckRecord]) -> None:
    signs = [show.plain(_SIGNS.get(item.status, "!")) for item in found]
    sign_width, name_width = max(map(len, signs)), max(len(item.name) for item in found)
    indent = sign_width + name_width + 3
    for sign, item in zip(signs, found, strict=True):
        show.say(show.wrapped(f"{sign.ljust(sign_width)} {item.name.ljust(name_width)}  {item.text}", indent))
        for line in item.cure.splitlines():
            show.say(show.wrapped(f"{' ' * indent}{line}", indent))


def _program() -> Iterator[CheckRecord]:
    words = f"spell {orchestrator.__version__}, Python {platform.python_version()}"
    yield CheckRecord("program", "ok", f"{words}, {platform.system()} {platform.release()} {platform.machine()}")


def _git() -> Iterator[CheckRecord]:
    version = _first_line("git", "--version")
    if version is None:
        yield CheckRecord("git", "fail", "git does not answer, so spell cannot capture code", "Install git.")
    else:
        yield CheckRecord("git", "ok", version.removeprefix("git version "))


def _uv() -> Iterator[CheckRecord]:
    uv = _uv_executable()
    version = _first_line(uv, "--version") if uv else None
    if version is None:
        cure = "Install it: pip install uv"
        yield CheckRecord("uv", "fail", "uv does not answer, so spell cannot build environments", cure)
    else:
        yield CheckRecord("uv", "ok", version.removeprefix("uv "))


def _home() -> Iterator[CheckRecord]:
    try:
        home = Home(default_home())
        place = _nearest(home.root)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0")
        usage = shutil.disk_usage(place)
    except SpellError as error:
        yield CheckRecord("home", "fail", error.message, error.cure)
        return
    except OSError as error:
        cure = "Choose another one with SPELL_HOME=…, or correct its permissions."
        yield CheckRecord("home", "fail", f"{default_home()} cannot be written to: {error.strerror}", cure)
        return
    yield CheckRecord("home", "ok", f"{home.root}{'' if home.root.exists() else ' (does not exist yet)'}")
    words = f"{show.size(usage.free)} free of {show.size(usage.total)}"
    few = usage.free < _LITTLE_BYTES
    cure = "Free space with spell gc, which removes unused environments and images."
    yield CheckRecord("disk", "warn" if few else "ok", words, cure if few else "")


def _server() -> Iterator[CheckRecord]:
    try:
        with connect() as client:
            yield from client.doctor.examine()
    except InvalidConfig as error:
        cure = "Correct it, then run spell doctor again to check the server, its executors and GPUs."
        yield CheckRecord("config", "fail", error.message.removeprefix(NOT_STARTED), cure)
    except SpellError as error:
        yield CheckRecord("server", "fail", error.message, error.cure)


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _uv_executable() -> str | None:
    try:
        return os.fspath(find_uv_bin())
    except FileNotFoundError:
        return shutil.which("uv")


def _first_line(*command: str) -> str | None:
    """Return the first line that a program prints; None if it fails or takes too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_LIMIT_S, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip().partition("\n")[0] if done.returncode == 0 else None
