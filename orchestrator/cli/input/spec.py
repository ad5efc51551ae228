"""Turns what was typed, and a job file, into a spec and the code that goes with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.input.capture import CodeOptions, capture
from orchestrator.cli.input.command_files import files_of, refuse_saved
from orchestrator.cli.input.commanding import line_of, lost_quotes
from orchestrator.cli.input.ignored import missing_words, why_missing
from orchestrator.cli.output import show
from orchestrator.errors import InvalidConfig, InvalidRepository, UsageError
from orchestrator.pyproject.asked import KINDS, Asked, says_something
from orchestrator.spec.fields import BY_NAME, FILES, MAPPING, FileName, joined
from orchestrator.spec.mounts import normal_path
from orchestrator.spec.run import PLACEHOLDER, RunSpec, to_wire

if TYPE_CHECKING:
    from orchestrator.spec.jobfile import JobFile

_SHOWN_TASKS = 100


@dataclass(frozen=True, slots=True)
class SpecOptions:
    """The options of `options.spec_options`, as they were typed.

    Attributes:
        fields: by the names of a spec's fields; None and () where nothing was typed. Hidden in `repr`.
        code: those that say its code.
        file: a job file.
        env_files: files of variables.
    """

    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    code: CodeOptions = field(default_factory=CodeOptions)
    file: Path | None = None
    env_files: Sequence[Path] = ()

    @classmethod
    def of(cls, *, file: Path | None = None, env_file: Sequence[Path] = (), **typed: Any) -> SpecOptions:
        """The options that click gives a verb."""
        fields = {name: typed.pop(name) for name in BY_NAME if name in typed}
        return cls(fields, CodeOptions(**typed), file, env_file)


def build_spec(options: SpecOptions) -> tuple[RunSpec, Snapshot | None]:
    """The spec of what was typed and of its job file, and the code that goes with it.

    Raises:
        SpellError: something is wrong with it.
    """
    job = _load(options.file, options.fields.get("params") or ()) if options.file else None
    values = _joined(options, job.fields if job else {})
    named = values.pop("requirements", ()) if _is_elsewhere(options, job) else ()
    spec = _spec(options, values)
    named_files = [*([options.file] if options.file else []), *options.env_files]
    asides = (*named_files, *files_of(click.get_current_context()))
    code, ignored = capture(options.code._replace(asides=asides), *((job.github_url, job.github_ref) if job else ()))
    if named:
        spec = replace(spec, **with_files({"requirements": named}, code))
    spec = with_folders(spec, code)
    if options.code.deps_from_env:
        from orchestrator.cli.input.virtualenv import with_virtualenv  # 20 ms: packaging; few runs are cast so

        spec = with_virtualenv(spec, options.code.deps_from_env, code, err=options.code.json_)
    if code is not None and not code.code.url and not options.code.commit_ref:
        _warn_ignored(spec, code)
    if code is None and not options.code.no_code:
        _refuse_missing(spec)
    spec = with_project(spec, code, options.code, job)
    return with_code(spec, code, ignored), code


def _load(path: Path, params: Sequence[str]) -> JobFile:
    refuse_saved(path, "a job file")
    from orchestrator.spec import jobfile, sbatch  # 16 ms: yaml; few runs have a job file

    script = sbatch.load(path)
    if script is None:
        return jobfile.load(path)
    if script.tasks and not any(text.startswith(f"{sbatch.ARRAY}=") for text in params):
        numbers = ",".join(map(str, script.tasks[:_SHOWN_TASKS])) + ",…" * (len(script.tasks) > _SHOWN_TASKS)
        one = f"spell run --file {path} --param {sbatch.ARRAY}={script.tasks[0]}"
        raise UsageError(
            f"{path} is an array of {show.count(len(script.tasks), 'task')}, which is a search here.",
            f"Cast all: spell hyper grid --file {path} --param {sbatch.ARRAY}={numbers}\nCast one: {one}",
        )
    if script.notes:
        show.say(f"✨ {path.name}: {'; '.join(script.notes)}", err=True)
    return script


def _refuse_missing(spec: RunSpec) -> None:
    """Refuse a command that names a file of a folder of which nothing is sent.

    Raises:
        InvalidRepository: it does.
    """
    mounted = {normal_path(mount.path) for mount in spec.mounts}
    for name in missing_words(spec.filled_command, Path.cwd(), "", (), mounted):
        if Path(name).is_file():
            raise InvalidRepository(
                f"{name!r} is in the command, but no files of {Path.cwd()} are sent.",
                "Change into the folder of the project, or send all of this one: --whole-folder",
            )


def _warn_ignored(spec: RunSpec, code: Snapshot) -> None:
    """Warn about files in the command that are here, but that the run will not have."""
    subdir = code.code.subdir
    below = len(subdir) + 1 if subdir else 0
    untracked = [name[below:] for name in code.untracked if not subdir or name.startswith(f"{subdir}/")]
    told = {os.path.relpath(path, subdir or ".") for path in code.left_out}
    known = {normal_path(mount.path) for mount in spec.mounts} | set(untracked) | told
    captured = [entry.path for entry in code.manifest.entries]
    missing = missing_words(spec.filled_command, Path.cwd(), subdir, captured, known)
    reasons = why_missing(Path.cwd(), missing, is_repository=bool(code.code.commit))
    for name, (why, cure) in zip(missing, reasons, strict=True):
        show.warn(f"{name!r} is in the command, but {why}\n  {cure}")


def spec_of(options: SpecOptions, job: Mapping[str, Any]) -> RunSpec:
    """The spec of what was typed and of the fields of a job file, without code.

    Raises:
        SpellError: something is wrong with it.
    """
    return _spec(options, _joined(options, job))


def _joined(options: SpecOptions, job: Mapping[str, Any]) -> dict[str, Any]:
    return joined(job, {name: value for name, value in _values(options).items() if value != ""})


def _is_elsewhere(options: SpecOptions, job: JobFile | None) -> bool:
    """Whether the run's code is not that of the current folder."""
    return bool(options.code.github_url or options.code.commit_ref or (job and job.github_url))


def _spec(options: SpecOptions, values: Mapping[str, Any]) -> RunSpec:
    words = options.fields.get("command") or ()
    command = values.get("command", "")
    if not command.strip():
        raise UsageError("The command is missing.", f"Try: {click.get_current_context().command_path} -h")
    if lost_quotes(words):
        show.warn(
            f"The words are joined by spaces, and the shell of the run reads: {command}\n"
            "  To keep the quotes that your own shell removed, put the whole command into quotes."
        )
    return RunSpec(**with_files(values))


def changes(options: SpecOptions) -> dict[str, Any]:
    """What was typed, and nothing else, as fields of a spec in JSON values.

    Raises:
        SpellError: something is wrong with it.
    """
    return {name: to_wire(value) for name, value in with_files(_values(options)).items()}


def with_files(values: Mapping[str, Any], code: Snapshot | None = None) -> dict[str, Any]:
    """The values of a spec's fields, with the text of the requirement files that they name.

    Args:
        code: of the run, if it is not that of the current folder.
    """
    names = values.get("requirements")
    if not names:
        return dict(values)
    from orchestrator.cli.input.requirements import requirement_files  # 3 ms; few runs have such a file

    return {**values, "requirements": requirement_files(names, values.get("env", {}), code)}


def _values(options: SpecOptions) -> dict[str, Any]:
    """The values of the fields that were typed."""
    found = {name: _value(name, typed) for name, typed in options.fields.items() if typed not in (None, ())}
    if options.env_files:
        from orchestrator.cli.input.envfile import read_files  # 1 ms, and the parser 40: few runs have such files

        others = {**found.get("secrets", {}), **found.get("env", {})}
        unsaid = {name: value for name, value in read_files(options.env_files).items() if name not in others}
        found["env"] = {**unsaid, **found.get("env", {})}
    return found


def _value(name: str, typed: Any) -> Any:
    field = BY_NAME[name]
    if name == "command":
        typed = line_of(typed)
    if field.kind is MAPPING:
        typed = _pairs(typed, field.options[-1])
    if field.kind is FILES:
        return tuple(FileName(name, Path(), is_typed=True) for name in typed)
    return field.kind.read(typed, Path())


def with_folders(spec: RunSpec, code: Snapshot | None) -> RunSpec:
    """The spec, in which folders of the code that requirements name are projects of the snapshot."""
    if not (spec.editables or spec.requirements or spec.pip):
        return spec
    from orchestrator.cli.input.editables import with_editables  # 3 ms: tomllib; not every run has packages

    return with_editables(spec, code)


def with_project(spec: RunSpec, code: Snapshot | None, typed: CodeOptions, job: JobFile | None) -> RunSpec:
    """The spec with what its code says of its environment; see `cli.input.environment`."""
    nothing = typed.no_project if typed.no_project is not None else job.no_project if job else None
    asked = Asked(
        (*(job.group if job else ()), *typed.group), (*(job.extra if job else ()), *typed.extra), bool(nothing)
    )
    if asked == Asked() and not (code and _may_say(code, spec.command)):
        return spec
    from orchestrator.cli.input.environment import with_environment  # 2 ms; where there is nothing, nobody waits for it

    is_local = code is not None and not code.code.url and not typed.commit_ref
    return with_environment(spec, code, asked, is_local=is_local, json_=typed.json_)


def _may_say(code: Snapshot, command: str) -> bool:
    """Whether there may be something to find, or to warn of. Fast."""
    names = code.untracked and (name for name in code.untracked if name.endswith(KINDS))
    return ".py" in command or any(names) or says_something(code.manifest.entries, code.code.subdir)


def with_code(spec: RunSpec, code: Snapshot | None, ignored: str = "") -> RunSpec:
    """The spec with its code, and with the patterns of the code's `.spellignore` (its text)."""
    spec = replace(spec, ignore=(*ignored.splitlines(), *spec.ignore))
    if code is None:
        return spec
    return replace(spec, code=code.code, description=spec.description or code.subject)


def warn_unfilled(spec: RunSpec) -> None:
    """Warn about each `:NAME:` in a command without parameters: it may be meant as one."""
    names = () if spec.params else dict.fromkeys(PLACEHOLDER.findall(spec.command))
    for name in names:
        show.warn(f"The command's ':{name}:' stays as it is; --param {name}=VALUE would fill it.")


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and option == "--env" and (known := _of_shell(name)) is not None:
            value = known
        elif not equals or not name:
            long = f"--e{text}" if option == "--env" else ""  # click reads -executor as -e xecutor
            is_meant = any(long in item.options for item in BY_NAME.values())
            cure = f"Did you mean {long}, with two dashes?" if is_meant else ""
            if not cure and option == "--env":
                cure = f"Your shell has no variable {text} to take the value from."
            raise InvalidConfig(f"{option} {text!r} is not of the form NAME=VALUE.", cure)
        found[name] = value
    return found


def _of_shell(name: str) -> str | None:
    """The value of a variable of the shell; None if it has none, or this is no name."""
    return os.environ.get(name) if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else None
