"""Job files: a spec in YAML. Their keys are in the table of `fields`; options typed beside one are joined to it.

command: python jobs/jokes/finetune.py --model base --data data.txt :ARGS:
description: finetune a small GPT-2 on jokes
name: jokes-finetune
machine_type: gpu
framework: transformers
pip: [sacremoses]
mounts: [runs/jokes-data/data.txt]
params: {ARGS: --smoke}
timeout_min: 60

A list may be written as its only item. Text stays as it is written, without YAML's conversions: `python: 3.10` is not
3.1, `env: {DEBUG: no}` is not false. An empty value counts as none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from orchestrator.errors import InvalidConfig, SpellError, UsageError
from orchestrator.spec.fields import BY_KEY, CODE_KEYS, FILES
from orchestrator.spec.run import RunSpec

KEYS = (*BY_KEY, *CODE_KEYS)
_YAML_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class JobFile:
    """The contents of a job file.

    Attributes:
        fields: values of a spec, by the names of its fields; requirements as paths of their files. Hidden in `repr`.
        github_url, github_ref: the source of the code; "" for the folder.
    """

    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    github_url: str = ""
    github_ref: str = ""


def load(path: Path) -> JobFile:
    """Read a job file.

    Raises:
        UsageError: it has an unknown field.
        InvalidConfig, NotFound: anything else is wrong. The message names file, line and field.
    """
    root = compose(path, "a job file is a mapping of fields such as 'command: …'")
    if any(key.value == "steps" for key, _ in root.value):
        raise UsageError(f"{path} is a workflow file, not a job file.", f"Cast it with: spell workflow {path}")
    return read(path, root)


def compose(path: Path, otherwise: str) -> yaml.MappingNode:
    """The mapping in a YAML file, as nodes with lines.

    Args:
        otherwise: the error's text when the file holds no mapping.

    Raises:
        InvalidConfig: the file cannot be read. The message names file and line.
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
    """The fields of a mapping and their values, without null ones.

    Args:
        known: the fields it may have.
        what: the kind of mapping, for messages.

    Raises:
        UsageError: a field is unknown.
        InvalidConfig: a field is given twice.
    """
    seen: set[str] = set()
    for key, value in root.value:
        name = str(key.value)
        if name in seen:
            reject(path, key, name, "is given twice")
        if name not in known:
            words = f"{path}, line {key.start_mark.line + 1}: {name}: is not a field of {what}."
            raise UsageError(words, f"The fields are: {', '.join(known)}.")
        seen.add(name)
        if value.tag != _YAML_TAG + "null":
            yield name, value


def read(path: Path, root: yaml.MappingNode) -> JobFile:
    """A mapping in a file as a job file. Raises as `load`."""
    found = {key: _Entry(path, key).read(node) for key, node in entries(path, root, KEYS, "job files")}
    code = {key: found.pop(key) for key in CODE_KEYS if key in found}
    return JobFile({BY_KEY[key].name: value for key, value in found.items() if value != ""}, **code)


def reject(path: Path, node: yaml.Node, name: str, problem: str, cure: str = "") -> NoReturn:
    """Raise InvalidConfig with the file, line and name of a field, and its problem."""
    raise InvalidConfig(f"{path}, line {node.start_mark.line + 1}: {name}: {problem}.", cure)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Reads the value of one key of one file."""

    path: Path
    key: str

    def read(self, node: yaml.Node) -> Any:
        shape = "text" if self.key in CODE_KEYS else BY_KEY[self.key].kind.shape
        if shape == "mapping":
            return self._mapping(node)
        if shape == "list":
            items = node.value if isinstance(node, yaml.SequenceNode) else [node]
            texts = [self._text(item) for item in items]
            for item, text in zip(items, texts, strict=True):
                self._value(item, [text])
            return self._value(node, texts)
        return self._value(node, self._number(node) if shape == "number" else self._text(node))

    def _mapping(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.MappingNode):
            self.reject(node, "must be a mapping, NAME: VALUE")
        found: dict[str, str] = {}
        for key, value in node.value:
            name = self._text(key)
            if name in found:
                self.reject(key, f"{name} is given twice")
            found[name] = self._text(value)
            self._value(key, {name: found[name]})
        return self._value(node, found)

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

    def _value(self, node: yaml.Node, written: Any) -> Any:
        """The value of the spec's field, checked as `RunSpec` does."""
        if self.key in CODE_KEYS:
            return written
        field = BY_KEY[self.key]
        try:
            value = field.kind.read(written, self.path.parent)
            command = " ".join(["true", *(f":{name}:" for name in value)]) if field.name == "params" else "true"
            if field.kind is not FILES:  # a spec holds what is in these files, which the client has yet to read
                RunSpec(**{"command": command, field.name: value})
        except SpellError as error:
            where = f"{self.path}, line {node.start_mark.line + 1}: {self.key}"
            raise type(error)(f"{where}: {error.message}", error.cure) from error
        return value

    def reject(self, node: yaml.Node, problem: str) -> NoReturn:
        reject(self.path, node, self.key, problem)
