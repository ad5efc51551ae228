"""Workflow files: job files joined to a workflow, in YAML.

name: jokes
steps:
  download: {file: download.yaml}
  finetune:
    file: finetune.yaml
    mounts: ["${runs.download}/data.txt"]
  look:
    command: wc -l data.txt
    mounts: ["${runs.download}/data.txt"]
    needs: finetune

A step is a job file, or fields of one, or both: its fields are then joined to the file's, as options beside `--file` are.
`${runs.STEP}` stands for the run of another step, in mounts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from orchestrator.errors import InvalidConfig, SpellError, UsageError
from orchestrator.spec import fields
from orchestrator.spec.jobfile import KEYS, OTHER_NAMES, JobFile, read
from orchestrator.spec.workflow import check_step_name, check_workflow_name, reference
from orchestrator.spec.yamlfile import compose, entries, reject

_STEP_KEYS = ("file", "needs", *KEYS)
_REFERENCE = re.compile(r"\$\{runs\.([^}]*)\}")


@dataclass(frozen=True, slots=True)
class FileStep:
    """One step of a workflow file.

    Attributes:
        job: its own fields and those of its job file, joined.
        needs: the steps that it names under `needs`.
    """

    name: str
    job: JobFile
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkflowFile:
    """The contents of a workflow file. Without a `name` the workflow is called like its file."""

    path: Path
    name: str
    steps: tuple[FileStep, ...]


def load(path: Path) -> WorkflowFile:
    """Read a workflow file, and the job files that it names.

    Raises:
        UsageError: it has an unknown field.
        InvalidConfig, NotFound: anything else is wrong. The message names file, line and field.
    """
    root = compose(path, "a workflow file is a mapping with 'steps: …'")
    if any(key.value == "command" for key, _ in root.value):
        raise UsageError(f"{path} is a job file, not a workflow file.", f"Cast it with: spell run --file {path}")
    found = dict(entries(path, root, ("name", "steps"), "is not a field of workflow files"))
    steps = found.get("steps")
    if not isinstance(steps, yaml.MappingNode) or not steps.value:
        reject(path, steps or root, "steps", "must be a mapping of steps, NAME: {file: JOB.yaml}")
    reader = _Steps(path, [str(key.value) for key, _ in steps.value])
    named = found.get("name")
    name = str(named.value) if named else path.name.removesuffix(path.suffix)
    with _at(path, named or root, "name"):
        check_workflow_name(name)
    return WorkflowFile(path, name, tuple(reader.read(key, node) for key, node in steps.value))


class _Steps:
    """Reads the steps of one file.

    Args:
        names: of all of them.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names

    def read(self, key: yaml.Node, node: yaml.Node) -> FileStep:
        name = str(key.value)
        with _at(self._path, key, "steps"):
            check_step_name(name)
        if self._names.count(name) > 1:
            reject(self._path, key, name, "is given twice")
        if not isinstance(node, yaml.MappingNode):
            reject(self._path, node, name, "must be a mapping of fields such as 'file: …' or 'command: …'")
        found = dict(entries(self._path, node, _STEP_KEYS, "is not a field of steps", OTHER_NAMES))
        own = [(field, value) for field, value in node.value if field.value in KEYS]
        job = self._job(self._path, yaml.MappingNode(node.tag, own, node.start_mark, node.end_mark))
        if "file" in found:
            job = joined(self._file(found["file"]), job)
        if not job.fields.get("command"):
            reject(self._path, key, name, "needs a command, or a file with one")
        return FileStep(name, job, tuple(self._needs(found.get("needs"))))

    def _file(self, node: yaml.Node) -> JobFile:
        path = self._path.parent / str(node.value)
        if not isinstance(node, yaml.ScalarNode) or not path.is_file():
            reject(self._path, node, "file", f"no such file: {str(path)!r}")
        return self._job(path, compose(path, "a job file is a mapping of fields such as 'command: …'"))

    def _needs(self, node: yaml.Node | None) -> Iterator[str]:
        items = node.value if isinstance(node, yaml.SequenceNode) else [node] if node else []
        for item in items:
            if not isinstance(item, yaml.ScalarNode) or item.value not in self._names:
                self._reject_unknown(self._path, item, "needs", str(item.value))
            yield item.value

    def _job(self, path: Path, root: yaml.MappingNode) -> JobFile:
        """A mapping as a job file. Its mounts may refer to other steps."""
        for key, value in root.value:
            for item in _items(value):
                if key.value == "mounts":
                    item.value = self._resolved(path, item)  # an aliased one is resolved before: that changes nothing
                elif found := _REFERENCE.search(item.value):
                    words = f"{found[0]!r} is allowed in mounts only"
                    reject(path, item, str(key.value), words, "Mount it, and read it at its path.")
        return read(path, root)

    def _resolved(self, path: Path, node: yaml.ScalarNode) -> str:
        """A mount, with `${runs.STEP}` in the form that specs have."""
        text = str(node.value)
        found = _REFERENCE.match(text)
        rest = text[found.end() :] if found else ""
        if found is None or (rest and rest[0] not in "/:"):
            if "${runs" in text:
                reject(path, node, "mounts", f"{text!r} is not like '${{runs.STEP}}/PATH'")
            return text
        if found[1] not in self._names:
            self._reject_unknown(path, node, "mounts", found[1])
        return reference(found[1]) + (rest if rest.strip("/") else f":{found[1]}")

    def _reject_unknown(self, path: Path, node: yaml.Node, field: str, name: str) -> NoReturn:
        reject(path, node, field, f"no such step: {name!r}", f"The steps are: {', '.join(self._names)}.")


def joined(file: JobFile, own: JobFile) -> JobFile:
    """A job file and the fields that stand beside it."""
    return JobFile(
        fields.joined(file.fields, own.fields),
        own.github_url or file.github_url,
        own.github_ref or file.github_ref,
        file.no_project if own.no_project is None else own.no_project,
        (*file.group, *own.group),
        (*file.extra, *own.extra),
    )


def _items(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """The texts of a field: itself, or the items of a list or a mapping."""
    inner = [node]
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [value for _, value in node.value]
    return (item for item in inner if isinstance(item, yaml.ScalarNode))


@contextlib.contextmanager
def _at(path: Path, node: yaml.Node, field: str) -> Iterator[None]:
    try:
        yield
    except SpellError as error:
        raise InvalidConfig(f"{path}, line {node.start_mark.line + 1}: {field}: {error.message}", error.cure) from error
