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

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from orchestrator.errors import InvalidConfig, SpellError, UsageError
from orchestrator.spec.mounts import parse_mount
from orchestrator.spec.names import check_run_name
from orchestrator.spec.run import RunSpec

FIELDS = {
    "command": "text",
    "description": "text",
    "name": "text",
    "labels": "list",
    "machine_type": "text",
    "executor": "text",
    "framework": "list",
    "pip": "list",
    "pip_req": "list",
    "python": "text",
    "image": "text",
    "apt": "list",
    "network": "text",
    "mounts": "list",
    "env": "mapping",
    "params": "mapping",
    "timeout_min": "number",
    "no_output_timeout_min": "number",
    "retries": "number",
    "stop_conditions": "list",
    "project": "text",
    "notify": "list",
    "secrets": "list",
    "ignore": "list",
    "github_url": "text",
    "github_ref": "text",
}
"""Every field, and what it holds. A list may be written as its only item. Text is taken as it is written, whatever YAML
would make of it: `python: 3.10` is not 3.1, `env: {DEBUG: no}` is not false."""

_CHECKS: dict[str, Callable[[Any], object]] = {
    "command": RunSpec,
    "name": check_run_name,
    "labels": lambda label: RunSpec("true", labels=(label,)),
    "pip": lambda line: RunSpec("true", pip=(line,)),
    "python": lambda version: RunSpec("true", python=version),
    "image": lambda image: RunSpec("true", image=image),
    "apt": lambda package: RunSpec("true", apt=(package,)),
    "network": lambda network: RunSpec("true", network=network),
    "mounts": parse_mount,
    "env": lambda pair: RunSpec("true", env=dict([pair])),
    "params": lambda pair: RunSpec(f"true :{pair[0]}:", params=dict([pair])),
    "timeout_min": lambda minutes: RunSpec("true", timeout_s=minutes * 60),
    "no_output_timeout_min": lambda minutes: RunSpec("true", no_output_timeout_s=minutes * 60),
    "retries": lambda count: RunSpec("true", retries=_whole(count)),
    "stop_conditions": lambda text: RunSpec("true", stop_conditions=(text,)),
    "notify": lambda url: RunSpec("true", notify=(url,)),
}
"""What raises when a field says something impossible; of lists and mappings, one item of them."""


def _whole(count: float) -> int:
    if count != int(count):
        raise InvalidConfig(f"A run can be tried again a whole number of times, and not {count:g} times.")
    return int(count)


_YAML_TAG = "tag:yaml.org,2002:"


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
    image: str = ""
    apt: tuple[str, ...] = ()
    network: str = ""
    mounts: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, str] = field(default_factory=dict)
    timeout_min: float | None = None
    no_output_timeout_min: float | None = None
    retries: float | None = None
    stop_conditions: tuple[str, ...] = ()
    project: str = ""
    notify: tuple[str, ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    github_url: str = ""
    github_ref: str = ""


def load(path: Path) -> JobFile:
    """Read a job file.

    Raises:
        UsageError: for a field that there is not.
        InvalidConfig, NotFound: for anything else; with file, line, field and what is wrong.
    """
    root = compose(path, "a job file is a mapping of fields such as 'command: …'")
    if any(key.value == "steps" for key, _ in root.value):
        raise UsageError(f"{path} is a workflow file, not a job file.", f"Cast it with: spell workflow {path}")
    return read(path, root)


def compose(path: Path, otherwise: str) -> yaml.MappingNode:
    """The mapping that a YAML file holds, as nodes with lines; `otherwise` says what the file should have been.

    Raises:
        InvalidConfig: with file, line and what is wrong.
    """
    try:
        root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        cure = "Put text with ':' in it in quotes." if "mapping values" in str(error.problem) else ""
        raise InvalidConfig(f"{path}, line {line}: {error.problem}.", cure) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise InvalidConfig(f"{path}, line 1: {otherwise}.")
    return root


def entries(path: Path, root: yaml.MappingNode, known: Collection[str], what: str) -> Iterator[tuple[str, yaml.Node]]:
    """The fields of a mapping and their values, without those that say nothing.

    Args:
        known: the fields that there are.
        what: what these are fields of, for messages.

    Raises:
        UsageError: for another field.
        InvalidConfig: for one that stands there twice.
    """
    seen: set[str] = set()
    for key, value in root.value:
        name = str(key.value)
        if name in seen:
            reject(path, key, name, "stands there twice")
        if name not in known:
            words = f"{path}, line {key.start_mark.line + 1}: {name}: is not a field of {what}."
            raise UsageError(words, f"There are: {', '.join(known)}.")
        seen.add(name)
        if value.tag != _YAML_TAG + "null":
            yield name, value


def read(path: Path, root: yaml.MappingNode) -> JobFile:
    """What a mapping of a file says as a job file. Raises as `load`."""
    found = {name: _Field(path, name).read(value) for name, value in entries(path, root, FIELDS, "job files")}
    return JobFile(folder=path.parent, **found)


def reject(path: Path, node: yaml.Node, name: str, problem: str, cure: str = "") -> NoReturn:
    """Raise InvalidConfig: what is wrong with a field, and where it stands."""
    raise InvalidConfig(f"{path}, line {node.start_mark.line + 1}: {name}: {problem}.", cure)


@dataclass(frozen=True, slots=True)
class _Field:
    """Reads one field of one file."""

    path: Path
    name: str

    def read(self, node: yaml.Node) -> Any:
        kind = FIELDS[self.name]
        if kind == "mapping":
            return self._mapping(node)
        if kind == "list":
            items = node.value if isinstance(node, yaml.SequenceNode) else [node]
            return tuple(self._checked(item, self._text(item)) for item in items)
        if kind == "number":
            return self._checked(node, self._number(node))
        return self._checked(node, self._text(node))

    def _mapping(self, node: yaml.Node) -> dict[str, str]:
        if not isinstance(node, yaml.MappingNode):
            self.reject(node, "must be a mapping, NAME: VALUE")
        found: dict[str, str] = {}
        for key, value in node.value:
            name = self._text(key)
            if name in found:
                self.reject(key, f"{name} stands there twice")
            found[name] = self._checked(key, (name, self._text(value)))[1]
        return found

    def _number(self, node: yaml.Node) -> float:
        try:
            return float(self._text(node))
        except ValueError:
            self.reject(node, f"must be a number, not {node.value!r}")

    def _text(self, node: yaml.Node) -> str:
        tag = node.tag.removeprefix(_YAML_TAG)
        if not isinstance(node, yaml.ScalarNode):
            self.reject(node, f"must be text, or a number, not a {'list' if tag == 'seq' else 'mapping'}")
        if tag in ("null", "binary") or tag.startswith("!"):
            self.reject(node, "must be text, or a number" + (", not nothing" if tag == "null" else f", not {tag}"))
        return str(node.value)

    def _checked(self, node: yaml.Node, value: Any) -> Any:
        try:
            _CHECKS.get(self.name, str)(value)
        except SpellError as error:
            where = f"{self.path}, line {node.start_mark.line + 1}: {self.name}"
            raise type(error)(f"{where}: {error.message}", error.cure) from error
        return value

    def reject(self, node: yaml.Node, problem: str) -> NoReturn:
        reject(self.path, node, self.name, problem)
