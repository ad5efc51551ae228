"""The user's pip settings, read the way pip reads them.

Places, order and meaning: https://pip.pypa.io/en/stable/topics/configuration/ (and `pip._internal.configuration`):
global files, then the user's (not where `PIP_CONFIG_FILE` names one), then the virtual environment's, then
`PIP_CONFIG_FILE`, then `PIP_…` variables; `[install]` over `[global]`; empty values are ignored.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import InvalidConfig
from orchestrator.spec.texts import decoded

_SECTIONS = ("global", "install")
_ALIASES = {"default-timeout": "timeout", "pypi-url": "index-url"}


def pip_settings(env: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the settings that pip would take from its files and variables.

    Args:
        env: the user's environment variables.
    Returns:
        The settings by the name of their long option (`extra-index-url`), and a sentence for each unreadable file.
    """
    sections: dict[str, dict[str, str]] = {name: {} for name in _SECTIONS}
    problems: list[str] = []
    for path in _files(env):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(_text(path), str(path))
        except OSError:
            continue
        except configparser.Error as error:
            problems.append(f"The pip settings in {path} cannot be read: {str(error).splitlines()[0]}")
            continue
        for name in _SECTIONS:
            if parser.has_section(name):
                sections[name].update(_named(dict(parser.items(name))))
    variables = {
        name[4:]: value for name, value in env.items() if name.startswith("PIP_") and name != "PIP_CONFIG_FILE"
    }
    return {**sections["global"], **sections["install"], **_named(variables)}, problems


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return decoded(data, str(path))
    except InvalidConfig:
        return data.decode(errors="replace")  # most likely in a comment


def _named(settings: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in settings.items():
        option = name.lower().replace("_", "-").removeprefix("--")
        if value and value.strip():
            found[_ALIASES.get(option, option)] = value.strip()
    return found


def _files(env: Mapping[str, str]) -> list[Path]:
    named = env.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(env.get("HOME") or Path.home())
    prefix = env.get("VIRTUAL_ENV") or sys.prefix
    files = [*_global_files(env), Path(prefix, "pip.conf")]
    if not (named and Path(named).exists()):
        files[-1:-1] = [home / ".pip" / "pip.conf", _user_folder(env, home) / "pip" / "pip.conf"]
    return [*files, Path(named).expanduser()] if named else files


def _global_files(env: Mapping[str, str]) -> list[Path]:
    if sys.platform == "darwin":
        return [Path("/Library/Application Support/pip/pip.conf")]
    folders = (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    return [*(Path(folder, "pip", "pip.conf") for folder in folders if folder), Path("/etc/pip.conf")]


def _user_folder(env: Mapping[str, str], home: Path) -> Path:
    support = home / "Library" / "Application Support"
    if sys.platform == "darwin" and (support / "pip").is_dir():
        return support
    return Path(env.get("XDG_CONFIG_HOME") or home / ".config")
