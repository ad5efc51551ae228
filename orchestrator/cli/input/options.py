"""The options that say what a run is, for every verb that casts runs. The table of `spec.fields` has their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.durations import Duration
from orchestrator.spec.fields import BY_NAME
from orchestrator.spec.run import CACHES, MAX_RETRIES, NETWORKS

F = TypeVar("F", bound=Callable[..., Any])


def _option(name: str, metavar: str, words: str, **more: Any) -> Callable[[F], F]:
    """The option of a field; the verb gets it by the field's name.

    Args:
        words: its help.
        more: as of `click.option`.
    """
    field = BY_NAME[name]
    is_many = field.kind.shape in ("list", "mapping")
    return click.option(*field.options, name, metavar=metavar, help=words, multiple=is_many, **more)


_RESUME = _option(
    "resume", "RUN", "Begin with the checkpoints of RUN, or with a folder of its outputs: runs/7/output",
    shell_complete=complete.runs,
)  # fmt: skip
_FIELDS: tuple[Callable[[Any], Any], ...] = (
    _option(
        "machine_type", "NAME", "Machine type; see spell machine-types. [default: cpu]",
        shell_complete=complete.machine_types,
    ),
    _option("cpus", "N", "Cores, may be a fraction, instead of those of the machine type.", type=click.FLOAT),
    _option("memory_bytes", "SIZE", "Memory, such as 32G."),
    _option("gpus", "N", "How many GPUs.", type=click.INT),
    _option("gpu_type", "NAME[,NAME]", "Only GPUs of this name, such as a100, h100 or 'rtx 4090'."),
    _option("gpu_memory_bytes", "SIZE", "Only GPUs with at least this much memory, such as 40G."),
    _option(
        "mounts", "RES[:PATH]", "Mount a resource, read-only: runs/2/data.txt", shell_complete=complete.resources
    ),
    _option("pip", "PKG[==V]", "A pip package."),
    _option("requirements", "FILE", "A file of pip requirements."),
    _option("python", "VERSION", "Version of Python, such as 3.12. [default: the server's]"),
    _option("editables", "FOLDER", "Install this project of the code editable, with its dependencies."),
    _option("frameworks", "NAME[==V]", "A named set of packages: pytorch, transformers, …", shell_complete=complete.frameworks),
    _option("image", "IMAGE", "The base image of its container."),
    _option("apt", "PKG[=V]", "An apt package for its container."),
    _option(
        "network", "bridge|none", "The network of its container. [default: bridge]", type=click.Choice(NETWORKS)
    ),
    _option("env", "K[=V]", "An environment variable; without =V, with the value of your shell."),
    _option("description", "TEXT", "[default: the message of the commit]"),
    _option("name", "NAME", "A name to call the run by, in mounts too."),
    _option("labels", "LABEL", "A label to find it by.", shell_complete=complete.labels),
    _option("params", "N=V", "Fill :N: in the command."),
    _option("timeout_s", "TIME", "Stop the run after this running time: 90m, 2h; a number counts minutes.", type=Duration("minutes")),
    _option("ignore", "PATTERN", "Outputs not to keep, as in .gitignore; also .spellignore"),
    _option("executor", "NAME", "Executor: docker or process. [default: docker where an engine answers]", shell_complete=complete.executors),
    _option("project", "NAME", "The project that it belongs to.", shell_complete=complete.projects),
    _option("retries", "K", "Try a failed command again, up to K times.", type=click.IntRange(0, MAX_RETRIES)),
    _option("stop_conditions", "COND", "Stop it when a metric meets this condition: 'loss > 10:100'.", shell_complete=complete.metrics),
    _option(
        "no_output_timeout_s", "TIME", "Stop it when it writes nothing and computes nothing for this long.",
        type=Duration("minutes"),
    ),
    _option("notify", "URL", "Call this webhook when it ends."),
    _option(
        "secrets", "NAME[=VAR]", "Give it a secret as an environment variable; see spell secret.",
        shell_complete=complete.secrets,
    ),
    _option(
        "caches", "on|read-only|off", "The caches that runs share, for models, datasets, packages. [default: on]",
        type=click.Choice(CACHES),
    ),
    _RESUME,
    _option("checkpoints", "FOLDER", "The folder of its checkpoints, for --retries and spell resume. [default: checkpoints]"),
)  # fmt: skip


_UNTRACKED = click.option(
    "--include-untracked", is_flag=True, help="Send untracked files too, except those that git ignores."
)
_FORCE = click.option("-f", "--force", is_flag=True, help="Ask no questions.")
_CURRENT_CODE = click.option(
    "--current-code", is_flag=True, help="Resume with the code of this folder. [default: that of the resumed run]"
)
_NOW = (_CURRENT_CODE, _UNTRACKED, _FORCE)
_CODE = (
    click.option("--github-url", metavar="URL", help="Take the code from this git URL instead."),
    click.option("--github-ref", metavar="REF", help="Its branch, tag or commit. [default: its default branch]"),
    click.option("-c", "--commit-ref", metavar="REF", help="Take this commit of the local repository."),
    _UNTRACKED,
    click.option("--submodules", is_flag=True, help="Send submodules, too, and fetch those that are not here."),
    click.option("--no-code", is_flag=True, help="Send no code."),
    click.option(
        "--whole-folder", is_flag=True, help="Send a folder without a repository also if it is big, or your home."
    ),
    click.option(
        "--deps-from-env",
        metavar="[DIR]",
        help="Take the packages of this virtual or conda environment. [default: the active one]",
    ),
    click.option(
        "--no-project",
        is_flag=True,
        default=None,
        help="Do not look for packages in uv.lock, requirements.txt, pyproject.toml, …",
    ),
    click.option("--group", multiple=True, metavar="NAME", help="Install this group of the project, too."),
    click.option("--extra", multiple=True, metavar="NAME", help="Install this extra of the project, too."),
    _FORCE,
    click.option(
        "--env-file", "env_file", type=click.Path(path_type=Path), metavar="FILE", multiple=True,
        help="Environment variables from a file, such as .env; -e wins.",
    ),
    click.option(
        "--file", "file", type=click.Path(path_type=Path), metavar="JOB.yaml|JOB.sbatch",
        help="Take the spec from a job file, or from a script with #SBATCH lines."
    ),
)  # fmt: skip


def spec_options(command: F) -> F:
    """Give a verb all options of a spec; `cli.input.spec.SpecOptions` takes them."""
    return _with((*_FIELDS, *_CODE), command)


def change_options(command: F) -> F:
    """Give a verb the options of a spec without those that say its code."""
    return _with(_FIELDS, command)


def resume_options(command: F) -> F:
    """Give a verb the options of a spec for a run that is resumed, with the code of then or of now."""
    return _with((*(option for option in _FIELDS if option is not _RESUME), *_NOW), command)


def current_code_option(command: F) -> F:
    """Give a verb the option that takes the code of now for a run that is resumed."""
    return _CURRENT_CODE(command)


def _with(options: Sequence[Callable[[F], F]], command: F) -> F:
    for option in reversed(options):
        command = option(command)
    return command
