"""The texts of an exported run: its job file, Dockerfile and README."""

from __future__ import annotations

import dataclasses
import itertools
import json
import posixpath
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import yaml

from orchestrator.environments import NO_VERSION, VERSION_VARIABLE, extras_of
from orchestrator.lifecycle.checkpoints import folder_of
from orchestrator.records.runs import RunRecord
from orchestrator.service.export_packages import Packages
from orchestrator.spec.fields import BY_KEY, FILES
from orchestrator.spec.mounts import path_in_code
from orchestrator.spec.redaction import masked, redacted
from orchestrator.spec.requirements import find, from_file, redirected, references
from orchestrator.spec.run import RunSpec

_TRUSTING = "if [ -s /opt/run/ca.pem ]; then export PIP_CERT=/opt/run/ca.pem; fi"
_SAFE_NAME = re.compile(r"\w[\w.+-]{0,100}\Z")


def job_file(spec: RunSpec) -> tuple[str, dict[str, str]]:
    """A job file with the same spec, and the requirement files that it names, without values of variables."""
    named, files = _requirements(spec)
    usual = RunSpec("true")
    said: dict[str, Any] = {"command": spec.command}
    subdir = spec.code.subdir if spec.code else ""
    folders = tuple(posixpath.relpath(folder, subdir or ".") for folder in spec.editables)  # as they are typed there
    spec = dataclasses.replace(spec, editables=folders)
    for field in BY_KEY.values():
        value = getattr(spec, field.name)
        if value != getattr(usual, field.name) and field.hides is not masked:
            said[field.key] = named if field.kind is FILES else field.shown(field.kind.write(value))
    if spec.code and spec.code.url:
        said |= {"github_url": spec.code.url, "github_ref": spec.code.commit}
    if spec.source and not spec.requirements:  # nothing is to be found beside what stands here
        said["no_project"] = True
    words = "# Cast it again with: spell run --file spec.yaml (see README.md). Values of variables are not in it.\n"
    return words + yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=1 << 30), files


def _requirements(spec: RunSpec) -> tuple[list[str], dict[str, str]]:
    """The paths of the requirement files that no other refers to, and the texts of all, which refer to each other."""
    names = [item.name for item in spec.requirements]
    safe: list[str] = []
    for index, name in enumerate(names):
        own = [name] if all(_SAFE_NAME.match(part) for part in name.split("/")) else []
        numbered = (f"file-{number}.txt" for number in itertools.count(index))
        safe.append(next(free for free in itertools.chain(own, numbered) if free not in safe))
    texts: dict[str, str] = {}
    inner: list[set[int]] = []
    for name, item in zip(safe, spec.requirements, strict=True):
        said = [(line, value, find(item.name, value, names, spec.env)) for line, value in references(item.text)]
        meant = {line.number: (value, from_file(name, safe[to])) for line, value, to in said if to is not None}
        changed = {line: target for line, (value, target) in meant.items() if posixpath.normpath(value) != target}
        texts[name] = redirected(item.text, changed) if changed else item.text
        inner.append({to for _, _, to in said if to is not None})
    outer = [f"requirements/{safe[index]}" for index in _outer(inner)]
    return outer, {f"requirements/{name}": redacted(text) for name, text in texts.items()}


def _outer(inner: Sequence[set[int]]) -> list[int]:
    """The files from which all others are reached: those that no other refers to, and one of each circle."""
    outer: list[int] = []
    reached: set[int] = set()
    for index in (*(index for index in range(len(inner)) if index not in set().union(*inner)), *range(len(inner))):
        todo = [] if index in reached else [index]
        outer += todo
        while todo:
            reached.add(at := todo.pop())
            todo += inner[at] - reached
    return outer


def inputs_of(spec: RunSpec) -> list[tuple[str, str]]:
    """Resource and path of what a run mounts, and of the checkpoints that it begins with."""
    found = [(mount.resource, mount.path) for mount in spec.mounts]
    return [*found, *([(spec.resume, folder_of(spec))] if spec.resume else [])]


def dockerfile(run: RunRecord, spec: RunSpec, base: str, packages: Packages) -> str:
    """The Dockerfile of an image that runs the command without spell."""
    return "\n".join(_dockerfile(run, spec, base, packages)) + "\n"


def _dockerfile(run: RunRecord, spec: RunSpec, base: str, packages: Packages) -> Iterator[str]:
    yield f"# Run {run.number}, without spell: see README.md"
    yield f"ARG BASE={base}"
    yield "FROM ${BASE}"
    yield "USER 0:0"
    if spec.apt:
        yield f"RUN {_apt(sorted(set(spec.apt)))}"
    venv = "python3 -m venv /opt/run/venv"
    make = f"command -v python3 >/dev/null && {venv} || {{ {_apt(['python3', 'python3-venv'])} && {venv}; }}"
    # the command may use pip; where it cannot be had, a command without it still runs
    yield f"RUN {make}" + ("" if packages.lines or spec.editables else f" || {venv} --without-pip")
    yield f"RUN {_STAND_ON_BASE}"
    yield "ENV PATH=/opt/run/venv/bin:$PATH VIRTUAL_ENV=/opt/run/venv"
    if packages.lines:
        yield "COPY requirements.txt /opt/run/"
        if packages.wheels:
            yield "COPY wheels/ /opt/run/wheels/"
        yield "COPY ca.pem /opt/run/"
        yield f"RUN cd /opt/run && {_TRUSTING} && python -m pip install --no-cache-dir --no-deps -r requirements.txt"
    yield "COPY runtime/ /opt/run/runtime/"
    yield "COPY command.sh /opt/run/"
    yield "COPY code/ /spell/"
    if spec.editables:
        yield "COPY ca.pem /opt/run/"
        yield f"RUN {_editable(spec)}"
    yield "ENV PYTHONPATH=/spell:${PYTHONPATH:+$PYTHONPATH:}/opt/run/runtime"
    yield f"ENV PYTHONUNBUFFERED=1 SPELL_CHECKPOINT_DIR={_in_env(f'/spell/{folder_of(spec)}')}"
    yield f"ENV SPELL_RUN={run.number} SPELL_ATTEMPT=1 SPELL_METRICS=/opt/run/metrics.jsonl"
    subdir = spec.code.subdir if spec.code else ""
    yield f"WORKDIR {_in_env(f'/spell/{subdir}'.rstrip('/'))}"
    yield "ENTRYPOINT []"
    yield 'CMD ["/bin/sh", "/opt/run/command.sh"]'


def _editable(spec: RunSpec) -> str:
    folders = (f"--editable {shlex.quote(f'/spell/{folder}')}" for folder in extras_of(spec.editables))
    version = f"export {VERSION_VARIABLE}={NO_VERSION}"  # the exported code has no history
    return f"{_TRUSTING}; {version}; python -m pip install --no-cache-dir --no-deps {' '.join(folders)}"


def _in_env(path: str) -> str:
    """A path as a Dockerfile has it in quotes."""
    return json.dumps(path.replace("$", "\\$"), ensure_ascii=False) if re.search(r"[^\w/.-]", path) else path


# As `environments.image_packages` does for a run.
_STAND_ON_BASE = (
    """python3 -c 'import glob, site; print(*map("import site; site.addsitedir({!r})".format, site.getsitepackages()), """
    """sep="\\n", file=open(glob.glob("/opt/run/venv/lib/*/site-packages")[0] + "/zz_image.pth", "w"))'"""
)


def _apt(names: Sequence[str]) -> str:
    return (
        "{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -- "
        f"{' '.join(map(shlex.quote, names))} && rm -rf /var/lib/apt/lists/*; }}"
    )


def variables(spec: RunSpec) -> str:
    """The names of its variables, for `docker run --env-file`. The person fills in their values."""
    lines = [f"{name}=" for name in spec.env]
    lines += [f"# the secret {secret}\n{variable}=" for variable, secret in spec.secrets.items()]
    return "".join(f"{line}\n" for line in lines)


def readme(run: RunRecord, spec: RunSpec, *, warnings: Sequence[str], there: Collection[str]) -> str:
    """The README: how to run it.

    Args:
        warnings: the differences from the run.
        there: the names of the files and folders of the archive.
    """
    return "\n".join(_readme(run, spec, warnings, there)) + "\n"


def _readme(run: RunRecord, spec: RunSpec, warnings: Sequence[str], there: Collection[str]) -> Iterator[str]:
    tag = f"spell-run-{run.number}"
    yield f"# Run {run.number}\n\nState: {run.state}. spell exported everything here. To run it you need Docker only:\n"
    yield f"    docker build -t {tag} ."
    options = [f"--name {tag}", *_flags(run, spec)]
    yield f"    docker run {' '.join(options)} {tag}"
    yield f"    docker cp {tag}:/spell result      # the code, and the files that the command wrote"
    if run.packages:
        yield "\nBehind a proxy, add `--build-arg https_proxy=…`. If the proxy has its own certificate, put it into `ca.pem`."
    if spec.env or spec.secrets:
        yield "\nThe command needs variables: fill in their values in `variables.env` first. They were not exported."
    if inputs := inputs_of(spec):
        where = "are in `inputs/`" if "inputs" in there else "are not here: put them where the command above names them"
        yield f"\nThe command reads these files and folders, which {where} (`inputs.json` has their hashes):\n"
        yield from (f"- `{resource}` at `{path}`" for resource, path in inputs)
    for warning in warnings:
        yield f"\n**Differs from the run**: {warning}"
    yield from _table(there)
    subdir = spec.code.subdir if spec.code else ""
    there, back = (f"cd {shlex.quote(subdir)} && ", "../" * (subdir.count("/") + 1)) if subdir else ("", "")
    make = "cd code && git init -q && git add -A && git commit -qm run"
    yield f"With spell: `{make} && {there}spell run --file {back}../spec.yaml`."


_FILES = {
    "spec.yaml": "the spec: a job file for spell",
    "requirements": "the requirement files that it names",
    "run.json": "the record of the run",
    "code": "the code, with uncommitted changes",
    "command.sh": "the command with its parameters",
    "variables.env": "the variables that the command needs, without their values",
    "Dockerfile": "the image that runs the command",
    "requirements.txt": "the packages that the run had, with their versions",
    "wheels": "packages that no index has",
    "ca.pem": "the certificate of a proxy, if you need one",
    "runtime": "what the command can import of spell",
    "inputs.json": "the hashes of what it mounted",
    "inputs": "what it mounted",
    "log": "the output of the command, byte for byte",
    "build.log": "the output of the build of its environment",
    "metrics.csv": "the metrics that the command sent",
    "outputs.json": "the list of its outputs",
    "outputs.sha256": "hashes of the files in `outputs/`: `sha256sum -c outputs.sha256`",
    "outputs": "its outputs",
    "SHA256SUMS": "hashes of all other files here: `sha256sum -c SHA256SUMS`",
}
_FOLDERS = ("requirements", "code", "wheels", "runtime", "inputs", "outputs")


def _table(there: Collection[str]) -> Iterator[str]:
    yield "\n| file | content |\n| --- | --- |"
    for name, words in _FILES.items():
        if name in there:
            note = " (not exported)" if name == "outputs.sha256" and "outputs" not in there else ""
            yield f"| `{name}{'/' if name in _FOLDERS else ''}` | {words.replace('`outputs/`', f'`outputs/`{note}')} |"
    yield ""


def _flags(run: RunRecord, spec: RunSpec) -> Iterator[str]:
    if spec.env or spec.secrets:
        yield "--env-file variables.env"
    if spec.network:
        yield f"--network {spec.network}"
    if run.gpus or "gpu" in run.machine_type:
        yield "--gpus all"
    subdir = spec.code.subdir if spec.code else ""
    places = [(mount.resource, path_in_code(subdir, mount.path), ":ro") for mount in spec.mounts]
    places += [(spec.resume, folder_of(spec), "")] if spec.resume else []  # which it may write to
    for resource, place, mode in places:
        target = place if place.startswith("/") else f"/spell/{place}"
        yield f'-v "$PWD"/{shlex.quote(f"inputs/{resource}")}:{shlex.quote(target)}{mode}'
