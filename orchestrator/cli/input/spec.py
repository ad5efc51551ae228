"""From what is typed, and a job file, to a spec and the code that goes with it."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.input.capture import capture
from orchestrator.cli.input.ignored import ignored_words
from orchestrator.cli.input.requirements import located, requirement_files
from orchestrator.cli.output import show
from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec.mounts import normal_path, parse_mount
from orchestrator.spec.run import PLACEHOLDER, RunSpec, to_wire


class Asked(NamedTuple):
    """What was typed; the fields are the options of `options.spec_options`."""

    command: tuple[str, ...] = ()
    machine_type: str | None = None
    mount: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    pip_req: tuple[str, ...] = ()
    python: str | None = None
    framework: tuple[str, ...] = ()
    image: str | None = None
    apt: tuple[str, ...] = ()
    network: str | None = None
    env: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    github_url: str | None = None
    github_ref: str | None = None
    commit_ref: str | None = None
    description: str | None = None
    name: str | None = None
    label: tuple[str, ...] = ()
    project: str | None = None
    param: tuple[str, ...] = ()
    timeout: float | None = None
    no_output_timeout: float | None = None
    stop_condition: tuple[str, ...] = ()
    retries: int | None = None
    notify: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    include_untracked: bool = False
    executor: str | None = None
    force: bool = False
    json_: bool = False
    file: Path | None = None


_NEVER_EMPTY = (
    *("machine_type", "python", "image", "github_url", "github_ref", "commit_ref"),
    *("name", "project", "executor"),
)


class _NoJob:
    """The job file that is not there: it says nothing."""

    command = machine_type = executor = python = description = name = github_url = github_ref = image = network = ""
    project = ""
    mounts = pip = pip_req = apt = labels = ignore = stop_conditions = notify = secrets = ()
    framework = timeout_min = no_output_timeout_min = retries = None
    env: Mapping[str, str] = {}
    params: Mapping[str, str] = {}
    folder = Path()


def build_spec(asked: Asked) -> tuple[RunSpec, Snapshot | None]:
    """The spec of what was typed, with the job file's share, and the code that goes with it.

    Raises:
        SpellError: for whatever is wrong with it.
    """
    job = importlib.import_module("orchestrator.spec.jobfile").load(asked.file) if asked.file else _NoJob
    spec = spec_of(asked, job)
    code, ignored = capture(asked, asked.github_url or job.github_url, asked.github_ref or job.github_ref)
    if code is not None and not code.code.url and not asked.commit_ref:
        _warn_ignored(spec, code)
    return with_code(spec, code, ignored), code


def _warn_ignored(spec: RunSpec, code: Snapshot) -> None:
    """Say which files of the command lie here, but will not be where it runs."""
    subdir = code.code.subdir
    below = len(subdir) + 1 if subdir else 0
    untracked = [name[below:] for name in code.untracked if not subdir or name.startswith(f"{subdir}/")]
    known = {normal_path(mount.path) for mount in spec.mounts} | set(untracked)
    captured = [entry.path for entry in code.manifest.entries]
    for name in ignored_words(spec.filled_command, Path.cwd(), subdir, captured, known):
        show.warn(
            f"{name!r} is in the command, but git ignores it: the run will not have it, unless it makes it itself.\n"
            f"  Send it with `git add -f`, or upload it once and mount it: spell upload {shlex.quote(name)}"
        )


def _lost_quotes(words: Sequence[str]) -> bool:
    """Whether words that a shell has read would be others when it reads them again; `&&` and the like may be meant."""
    if len(words) < 2:
        return False
    return any(
        re.search(r"[\s'\"\\]", word) or (re.search(r"[();&|<>`]", word) and not re.match(r"\d*[;&|<>]", word))
        for word in words
    )


def spec_of(asked: Asked, job: Any = _NoJob) -> RunSpec:
    """The spec of what was typed and of what the job file (a `jobfile.JobFile`) says, without code.

    Raises:
        SpellError: for whatever is wrong with it.
    """
    for name in _NEVER_EMPTY:
        if getattr(asked, name) == "":  # most likely a variable of a shell that is not set
            option = "from" if name == "image" else name.replace("_", "-")
            raise UsageError(f"--{option} says nothing.", "Leave it out for what is usual.")
    command = " ".join(asked.command) or job.command
    if not command.strip():
        raise UsageError("There is no command to run.", f"Try: {click.get_current_context().command_path} -h")
    if _lost_quotes(asked.command):
        show.warn(
            f"The words are joined by blanks, and a shell reads them anew: {command}\n"
            "  To keep the quotes that your own shell took away, put the whole command into quotes."
        )
    paths = [*(Path(name) for name in asked.pip_req), *(job.folder / name for name in job.pip_req)]
    return RunSpec(
        command=command,
        machine_type=asked.machine_type or job.machine_type or "cpu",
        executor=asked.executor or job.executor,
        mounts=tuple(parse_mount(text) for text in (*job.mounts, *asked.mount)),
        pip=(*(located(line, job.folder) for line in job.pip), *(located(line, Path()) for line in asked.pip)),
        requirements=requirement_files(paths),
        python=asked.python or job.python,
        frameworks=asked.framework or job.framework,
        image=asked.image or job.image,
        apt=(*job.apt, *asked.apt),
        network=asked.network or job.network,
        env={**job.env, **_pairs(asked.env, "--env")},
        description=asked.description or job.description,
        name=asked.name or job.name,
        labels=(*job.labels, *asked.label),
        params={**job.params, **_pairs(asked.param, "--param")},
        timeout_s=_seconds(asked.timeout, job.timeout_min),
        ignore=(*job.ignore, *asked.ignore),
        retries=int(_first(asked.retries, job.retries) or 0),
        project=asked.project or job.project,
        stop_conditions=(*job.stop_conditions, *asked.stop_condition),
        no_output_timeout_s=_seconds(asked.no_output_timeout, job.no_output_timeout_min),
        notify=(*job.notify, *asked.notify),
        secrets=_secrets(job.secrets) | _secrets(asked.secret),
    )


def changes(asked: Asked) -> dict[str, Any]:
    """What was typed, and nothing else, as fields of a spec in JSON values.

    Raises:
        SpellError: for whatever is wrong with it.
    """
    fields: dict[str, Any] = {
        "machine_type": asked.machine_type,
        "executor": asked.executor,
        "mounts": [parse_mount(text) for text in asked.mount],
        "pip": [located(line, Path()) for line in asked.pip],
        "requirements": requirement_files([Path(name) for name in asked.pip_req]),
        "python": asked.python,
        "frameworks": asked.framework,
        "image": asked.image,
        "apt": asked.apt,
        "network": asked.network,
        "env": _pairs(asked.env, "--env"),
        "description": asked.description,
        "name": asked.name,
        "labels": asked.label,
        "params": _pairs(asked.param, "--param"),
        "timeout_s": _seconds(asked.timeout, None),
        "ignore": asked.ignore,
        "retries": asked.retries,
        "project": asked.project,
        "stop_conditions": asked.stop_condition,
        "no_output_timeout_s": _seconds(asked.no_output_timeout, None),
        "notify": asked.notify,
        "secrets": _secrets(asked.secret),
    }
    return {name: to_wire(value) for name, value in fields.items() if value not in (None, (), [], {})}


def with_code(spec: RunSpec, code: Snapshot | None, ignored: str = "") -> RunSpec:
    """The spec with its code, and with the patterns of the code's `.spellignore` (its text)."""
    spec = replace(spec, ignore=(*ignored.splitlines(), *spec.ignore))
    if code is None:
        return spec
    return replace(spec, code=code.code, description=spec.description or code.subject)


def warn_unfilled(spec: RunSpec) -> None:
    """Say which `:NAME:` of a command without parameters look as if they were meant to be filled."""
    names = () if spec.params else dict.fromkeys(PLACEHOLDER.findall(spec.command))
    for name in names:
        show.warn(f"The command's ':{name}:' stays as it is; --param {name}=VALUE would fill it.")


def _first(typed: float | None, otherwise: float | None) -> float | None:
    return otherwise if typed is None else typed


def _seconds(typed_min: float | None, otherwise_min: float | None) -> float | None:
    minutes = _first(typed_min, otherwise_min)
    return None if minutes is None else minutes * 60


def _secrets(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        variable, name = _secret(text)
        if found.get(variable, name) != name:
            raise InvalidConfig(f"--secret: the variable {variable} would be both {found[variable]} and {name}.")
        found[variable] = name
    return found


def _secret(text: str) -> tuple[str, str]:
    name, equals, variable = text.partition("=")
    if not name or (equals and not variable):
        raise InvalidConfig(f"--secret {text!r} is not of the form NAME or NAME=VARIABLE.")
    return variable or name, name


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidConfig(f"{option} {text!r} is not of the form NAME=VALUE.")
        found[name] = value
    return found
