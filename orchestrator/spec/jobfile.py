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
3.1, `env: {DEBUG: no}` is not false. An empty value counts as none. `yamlfile` says what anchors do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from orchestrator.errors import InvalidConfig, SpellError, UsageError
from orchestrator.spec.durations import UNITS_S, seconds
from orchestrator.spec.fields import BY_KEY, CODE_KEYS, FILES
from orchestrator.spec.run import RunSpec
from orchestrator.spec.yamlfile import TAG, compose, entries, reject

KEYS = (*BY_KEY, *CODE_KEYS)
OTHER_NAMES = {
    option.lstrip("-").replace("-", "_"): field.key
    for field in BY_KEY.values()
    for option in field.options
    if option.startswith("--")
} | {
    "cmd": "command",
    "script": "command",
    "environment": "env",
    "extras": "extra",
    "groups": "group",
    "packages": "pip",
    "requirements": "pip_req",
    "tags": "labels",
    "volumes": "mounts",
}
"""The names of options, and words of other tools, and the key of job files for each."""
_CODE_SHAPES = {"github_url": "text", "github_ref": "text", "no_project": "switch", "group": "list", "extra": "list"}
_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class JobFile:
    """The contents of a job file.

    Attributes:
        fields: values of a spec, by the names of its fields; requirements as paths of their files. Hidden in `repr`.
        github_url, github_ref: the source of the code; "" for the folder.
        no_project, group, extra: what of the project of the code to install; None for the usual.
    """

    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    github_url: str = ""
    github_ref: str = ""
    no_project: bool | None = None
    group: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


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


def read(path: Path, root: yaml.MappingNode) -> JobFile:
    """A mapping in a file as a job file. Raises as `load`."""
    found = {
        key: _Entry(path, key).read(node)
        for key, node in entries(path, root, KEYS, "is not a field of job files", OTHER_NAMES)
    }
    code = {key: found.pop(key) for key in CODE_KEYS if key in found}
    return JobFile({BY_KEY[key].name: value for key, value in found.items() if value != ""}, **code)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Reads the value of one key of one file."""

    path: Path
    key: str

    def read(self, node: yaml.Node) -> Any:
        shape = _CODE_SHAPES[self.key] if self.key in CODE_KEYS else BY_KEY[self.key].kind.shape
        if shape == "switch":
            return self._switch(node)
        if shape == "mapping":
            return self._mapping(node)
        if shape == "list":
            items = node.value if isinstance(node, yaml.SequenceNode) else [node]
            texts = [self._text(item) for item in items]
            for item, text in zip(items, texts, strict=True):
                self._value(item, [text])
            return self._value(node, tuple(texts) if self.key in CODE_KEYS else texts)
        if shape == "minutes":
            return self._value(node, self._minutes(node))
        return self._value(node, self._number(node) if shape == "number" else self._text(node))

    def _switch(self, node: yaml.Node) -> bool | None:
        text = self._text(node).lower()
        if text and text not in _SWITCHES:
            self.reject(node, f"must be true or false, not {node.value!r}")
        return _SWITCHES.get(text)

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

    def _minutes(self, node: yaml.Node) -> float:
        try:
            return seconds(self._text(node), "minutes") / UNITS_S["minutes"]
        except InvalidConfig as error:
            self.reject(node, error.message.rstrip("."), error.cure)

    def _number(self, node: yaml.Node) -> float:
        try:
            return float(self._text(node))
        except ValueError:
            self.reject(node, f"must be a number, not {node.value!r}")

    def _text(self, node: yaml.Node) -> str:
        tag = node.tag.removeprefix(TAG)
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
        if field.kind is FILES and "" in written:
            self.reject(node, "must name a file, not ''")
        try:
            value = field.kind.read(written, self.path.parent)
            command = " ".join(["true", *(f":{name}:" for name in value)]) if field.name == "params" else "true"
            if field.kind is not FILES:  # a spec holds what is in these files, which the client has yet to read
                RunSpec(**{"command": command, field.name: value})
        except SpellError as error:
            where = f"{self.path}, line {node.start_mark.line + 1}: {self.key}"
            raise type(error)(f"{where}: {error.message}", error.cure) from error
        return value

    def reject(self, node: yaml.Node, problem: str, cure: str = "") -> NoReturn:
        reject(self.path, node, self.key, problem, cure)
