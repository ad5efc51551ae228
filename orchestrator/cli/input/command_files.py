"""`--from-file` and `--save-command`: the arguments and options of a verb in a YAML (or JSON) file.

Its keys are the names of options without dashes and the names of arguments; `-` and `_`, upper and lower case are the same.
An option that takes several values has a list, or one string that is split as a shell does; a switch is true or false. The
command line wins over the file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from orchestrator.cli.input.empty import MAY_BE_EMPTY
from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec.fields import BY_KEY

F = TypeVar("F", bound=Callable[..., Any])
_OWN = ("from_file", "save_command")
_FIRST_LINE = "# saved command: {} --from-file this file\n"
_FILES, _SAVE = "spell.command_files", "spell.save_command"  # in a context's meta


def command_files(command: F) -> F:
    """Give a verb both options; the verb itself sees neither."""

    @functools.wraps(command)
    def saved(*args: Any, **values: Any) -> Any:
        ctx = click.get_current_context()
        if path := ctx.meta.get(_SAVE):
            _save(ctx, path)
        return command(*args, **values)

    for option in _OPTIONS:
        saved = option(saved)
    return cast("F", saved)


def _load(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    ctx.meta.setdefault(_FILES, []).append(path)
    from orchestrator.spec import yamlfile  # 15 ms: yaml; few commands come from a file

    root = yamlfile.compose(path, "it is not a mapping of options to values")
    known = dict(_names(ctx.command))
    keys = {str(key.value): _plain(str(key.value)) for key, _ in root.value}
    shown = {key: _shown(known[plain]) for key, plain in keys.items() if plain in known}
    names = sorted({*shown, *(_shown(item) for item in known.values())})
    found: dict[str, Any] = {}
    otherwise = f"{ctx.info_name} has no such option"
    _refuse_other_kinds(path, root, shown, otherwise)
    for key, node in yamlfile.entries(path, root, names, otherwise):
        parameter = known[_plain(key)]
        if parameter.name in found:
            raise InvalidConfig(f"{path}: {key} is given twice.")
        value = _written(node)
        if value == "" and parameter.name not in MAY_BE_EMPTY:
            continue  # as in a job file
        found[str(parameter.name)] = _values(parameter, value)
    ctx.default_map = {**(ctx.default_map or {}), **found}


def _refuse_other_kinds(path: Path, root: Any, shown: Collection[str], otherwise: str) -> None:
    """Refuse a job file or a workflow file: a mapping with a key that only such a file has."""
    for key, _ in root.value:
        name = str(key.value)
        if name not in shown and (cure := _otherwise(path, name)):
            raise UsageError(f"{path}, line {key.start_mark.line + 1}: {name}: {otherwise}.", cure)


def _otherwise(path: Path, key: str) -> str:
    """How to cast a file of another kind that has this key; "" when no kind has it."""
    if key == "steps":
        return f"A workflow file is cast with: spell workflow {path}"
    return f"A job file is cast with: spell run --file {path}" if key in BY_KEY else ""


def files_of(ctx: click.Context) -> list[Path]:
    """The files that the options of a command name here. A run needs none of them."""
    found: list[Path] = ctx.meta.get(_FILES, [])
    return found


def refuse_saved(path: Path, kind: str) -> None:
    """See that a file was not written by --save-command.

    Args:
        kind: what it should be, such as `a job file`.

    Raises:
        UsageError: it was.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8") as file:
        first = file.readline()
        before, after = _FIRST_LINE.split("{}")
        if first.startswith(before) and first.endswith(after):
            verb = first[len(before) : -len(after)]
            raise UsageError(f"{path} is a saved command, not {kind}.", f"Cast it with: {verb} --from-file {path}")


def _written(node: Any) -> Any:
    """A value as it is written, like words typed: text, or a list of texts."""
    if not isinstance(node.value, list):
        return str(node.value)
    is_list = node.id == "sequence"
    return [str(item.value) if item.id == "scalar" else None for item in node.value] if is_list else {}


def _names(command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
    """Every spelling of every parameter that a file may set."""
    for parameter in command.params:
        if parameter.name in _OWN:
            continue
        if isinstance(parameter, click.Argument) and parameter.name:
            yield _plain(parameter.name), parameter
        for name in (*parameter.opts, *parameter.secondary_opts):
            yield _plain(name), parameter


def _plain(name: str) -> str:
    stripped = name.lstrip("-").replace("_", "-")
    return stripped if len(stripped) == 1 else stripped.lower()  # -h and -H may be two options


def _shown(parameter: click.Parameter) -> str:
    return max(parameter.opts, key=len).lstrip("-").replace("_", "-")


def _values(parameter: click.Parameter, value: Any) -> Any:
    if isinstance(parameter, click.Argument) and isinstance(value, str):
        return [value] if parameter.nargs == -1 else value  # the run's own shell splits a command
    if parameter.multiple or parameter.nargs == -1:
        if isinstance(value, str):
            return _split(parameter, value)
        if isinstance(value, Mapping) or not all(isinstance(item, str) for item in value):
            raise InvalidConfig(f"{_shown(parameter)}: takes a list of values, each a word or text.")
        return list(value)
    if not isinstance(value, str):
        raise InvalidConfig(f"{_shown(parameter)}: takes one value, not {type(value).__name__}.")
    return value


def _split(parameter: click.Parameter, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidConfig(f"{_shown(parameter)}: {error}.") from error


def _remember(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    ctx.meta[_SAVE] = path  # the other options may not be read yet
    if path:
        ctx.meta.setdefault(_FILES, []).append(path)


def _save(ctx: click.Context, path: Path) -> None:
    import yaml  # 11 ms: few commands are saved

    _check_is_ours(path)
    used = {}
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name not in _OWN and ctx.get_parameter_source(name) in (
            ParameterSource.COMMANDLINE,
            ParameterSource.DEFAULT_MAP,
        ):
            used[_shown(parameter)] = _writable(ctx.params[name])
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(_FIRST_LINE.format(ctx.command_path))
            file.write(yaml.safe_dump(used, sort_keys=False, allow_unicode=True))
        beside.replace(path)
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        beside.unlink(missing_ok=True)


def _check_is_ours(path: Path) -> None:
    """Check that no other file would be overwritten.

    Raises:
        UsageError: one would be.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(_FIRST_LINE))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be written: {error.strerror}.") from error
    if begins and not begins.startswith(_FIRST_LINE.partition("{")[0].encode()):
        raise UsageError(f"{path} exists already and was not written by --save-command.", "Name another file.")


def _writable(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_writable(item) for item in value]
    return str(value) if isinstance(value, Path) else value


_OPTIONS = (
    click.option(
        "--save-command",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        expose_value=False,
        is_eager=True,
        callback=_remember,
        help="Write the arguments and options to a file for --from-file.",
    ),
    click.option(
        "--from-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        expose_value=False,
        is_eager=True,  # it says what the other options are
        callback=_load,
        help="Take arguments and options from a file; the command line wins.",
    ),
)
