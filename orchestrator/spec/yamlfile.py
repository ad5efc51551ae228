"""YAML files that people write, as nodes with lines: job files, workflow files, and saved commands.

Anchors and merge keys are resolved (`<<: *base`, what stands beside them wins), and fields that begin with `x-` are the person's
own: a place for anchors. https://yaml.org/type/merge.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import yaml

from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec.texts import text_of

TAG = "tag:yaml.org,2002:"
_MERGE = TAG + "merge"
_OWN = "x-"


def compose(path: Path, otherwise: str) -> yaml.MappingNode:
    """The mapping in a YAML file, as nodes with lines.

    Args:
        otherwise: the error's text when the file holds no mapping.

    Raises:
        InvalidConfig: the file cannot be read. The message names file and line.
    """
    try:
        root = yaml.compose(text_of(path), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        cure = "Put text with ':' in it in quotes." if "mapping values" in str(error.problem) else ""
        raise InvalidConfig(f"{path}, line {line}: {error.problem}.", cure) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise InvalidConfig(f"{path}, line 1: {otherwise}.")
    _Merger(path).merge(root)
    return root


class _Merger:
    """Resolves the merge keys of one file. An aliased node is one object, so each is changed once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: set[int] = set()

    def merge(self, node: yaml.Node) -> None:
        """Resolve the merge keys in a node and below it."""
        if id(node) in self._done:
            return
        self._done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.merge(item)
        elif isinstance(node, yaml.MappingNode):
            for _, value in node.value:
                self.merge(value)
            merged = [pair for key, value in node.value if key.tag == _MERGE for pair in self._pairs(value)]
            own = [(key, value) for key, value in node.value if key.tag != _MERGE]
            taken = {key.value for key, _ in own if isinstance(key, yaml.ScalarNode)}
            for key, value in merged:  # the first of several wins
                if isinstance(key, yaml.ScalarNode) and key.value not in taken:
                    taken.add(key.value)
                    own.append((key, value))
            node.value = own

    def _pairs(self, node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(item, yaml.MappingNode):
                reject(self._path, item, "<<", "must be a mapping, or a list of mappings", "Write it as <<: *NAME")
            yield from item.value


def entries(
    path: Path,
    root: yaml.MappingNode,
    known: Collection[str],
    otherwise: str,
    other_names: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, yaml.Node]]:
    """The fields of a mapping and their values, without null ones and those that begin with `x-`.

    Args:
        known: the fields it may have.
        otherwise: the error's text for another field.
        other_names: words that people write instead, and the field that they mean by each.

    Raises:
        UsageError: a field is unknown.
        InvalidConfig: a field is given twice.
    """
    seen: set[str] = set()
    for key, value in root.value:
        name = str(key.value)
        if name.startswith(_OWN):
            continue
        if name in seen:
            reject(path, key, name, "is given twice")
        if name not in known:
            words = f"{path}, line {key.start_mark.line + 1}: {name}: {otherwise}."
            raise UsageError(words, _fields(name, known, other_names or {}))
        seen.add(name)
        if value.tag != TAG + "null":
            yield name, value


def _fields(name: str, known: Collection[str], other_names: Mapping[str, str]) -> str:
    import difflib  # 1 ms, and only a wrong file needs it

    plain = name.lower().replace("-", "_")
    close = difflib.get_close_matches(plain, [*known, *other_names], n=1, cutoff=0.7)
    meant = other_names.get(close[0], close[0]) if close else ""
    return (f"Did you mean {meant!r}? " if meant else "") + f"The fields are: {', '.join(known)}."


def reject(path: Path, node: yaml.Node, name: str, problem: str, cure: str = "") -> NoReturn:
    """Raise InvalidConfig with the file, line and name of a field, and its problem."""
    raise InvalidConfig(f"{path}, line {node.start_mark.line + 1}: {name}: {problem}.", cure)
