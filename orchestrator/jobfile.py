"""Job files: a spec in YAML. The same fields as the options of `spell run`; what is typed beside it is added or wins.

command: python jobs/jokes/finetune.py --model base --data data.txt :ARGS:
description: finetune a small GPT-2 on jokes
name: jokes-finetune
machine_type: gpu
framework: transformers
pip: [sacremoses]
mounts: [runs/jokes-data/data.txt]
params: {ARGS: --smoke}
timeout_min: 60
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from orchestrator.errors import InvalidConfig

_TEXT, _NUMBER, _LIST, _MAP = (str,), (int, float), (list,), (dict,)
FIELDS: dict[str, tuple[type, ...]] = {
    "command": _TEXT,
    "description": _TEXT,
    "name": _TEXT,
    "labels": _LIST,
    "machine_type": _TEXT,
    "executor": _TEXT,
    "framework": _TEXT + _LIST,
    "pip": _LIST,
    "pip_req": _TEXT + _LIST,
    "python": _TEXT + _NUMBER,
    "mounts": _LIST,
    "env": _MAP,
    "params": _MAP,
    "timeout_min": _NUMBER,
    "ignore": _LIST,
    "github_url": _TEXT,
    "github_ref": _TEXT,
}
"""Every field, and the YAML types it may have."""
_WORDS = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}


@dataclass(frozen=True, slots=True)
class JobFile:
    """What a job file says; an empty value where it says nothing. Paths in it are relative to its folder."""

    folder: Path = Path()
    command: str = ""
    description: str = ""
    name: str = ""
    labels: tuple[str, ...] = ()
    machine_type: str = ""
    executor: str = ""
    framework: tuple[str, ...] | None = None
    pip: tuple[str, ...] = ()
    pip_req: tuple[str, ...] = ()
    python: str = ""
    mounts: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, str] = field(default_factory=dict)
    timeout_min: float | None = None
    ignore: tuple[str, ...] = ()
    github_url: str = ""
    github_ref: str = ""


def load(path: Path) -> JobFile:
    """Read a job file.

    Raises:
        InvalidConfig: with file, line, field and what is wrong.
    """
    try:
        node = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} cannot be read: {getattr(error, 'strerror', error)}.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidConfig(f"{path}, line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InvalidConfig(f"{path}: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise InvalidConfig(f"{path}, line 1: a job file is a mapping of fields such as 'command: …'.")
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in found:
            _reject(path, key, name, "stands there twice")
        if name not in FIELDS:
            _reject(path, key, name, f"is not a field; there are: {', '.join(FIELDS)}")
        found[name] = _value(path, name, value)
    return JobFile(folder=path.parent, **found)


def _value(path: Path, name: str, node: yaml.Node) -> Any:
    value = _construct(path, name, node)
    allowed = FIELDS[name]
    if not isinstance(value, allowed) or isinstance(value, bool):
        _reject(path, node, name, f"must be {' or '.join(dict.fromkeys(_WORDS[kind] for kind in allowed))}")
    if isinstance(value, list):
        return tuple(_scalar(path, name, item, node) for item in value)
    if isinstance(value, dict):
        return {str(key): _scalar(path, name, item, node) for key, item in value.items()}
    if list in allowed:
        return (value,)
    if name == "python":
        return node.value  # as it is written: 3.10 is not 3.1
    return value


def _construct(path: Path, name: str, node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError as error:
        _reject(path, node, name, str(getattr(error, "problem", error)))
    finally:
        loader.dispose()


def _scalar(path: Path, name: str, value: object, node: yaml.Node) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        _reject(path, node, name, f"may hold text and numbers, not {value!r}")
    return str(value)


def _reject(path: Path, node: yaml.Node, name: str, problem: str) -> NoReturn:
    raise InvalidConfig(f"{path}, line {node.start_mark.line + 1}: {name}: {problem}")
