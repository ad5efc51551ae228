"""The options that say what a run is to be, for every verb that casts runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from orchestrator.cli.input import complete
from orchestrator.spec.run import NETWORKS

F = TypeVar("F", bound=Callable[..., Any])

_CHANGES = (
    click.option(
        "-t",
        "--machine-type",
        metavar="NAME",
        shell_complete=complete.machine_types,
        help="What to run on; see spell machine-types. [default: cpu]",
    ),
    click.option(
        "-m",
        "--mount",
        metavar="RES[:PATH]",
        multiple=True,
        shell_complete=complete.resources,
        help="Mount a resource, read-only: runs/2/data.txt",
    ),
    click.option("--pip", metavar="PKG[==V]", multiple=True, help="A pip package."),
    click.option("--pip-req", metavar="FILE", multiple=True, help="A file of pip requirements."),
    click.option("--python", metavar="VERSION", help="The wanted Python, such as 3.12. [default: the server's]"),
    click.option(
        "--framework", metavar="NAME[==V]", multiple=True, help="A named set of packages: pytorch, transformers, …"
    ),
    click.option("--from", "--docker-image", "image", metavar="IMAGE", help="The base image of its container."),
    click.option("--apt", metavar="PKG[=V]", multiple=True, help="An apt package for its container."),
    click.option(
        "--network",
        type=click.Choice(NETWORKS),
        metavar="bridge|none",
        help="The network of its container. [default: bridge]",
    ),
    click.option("-e", "--env", metavar="K=V", multiple=True, help="An environment variable."),
    click.option("-d", "--description", metavar="TEXT", help="[default: the message of the commit]"),
    click.option("--name", metavar="NAME", help="A name to call the run by, in mounts too."),
    click.option(
        "--label", metavar="LABEL", multiple=True, shell_complete=complete.labels, help="A label to find it by."
    ),
    click.option("--param", metavar="N=V", multiple=True, help="Fill :N: in the command."),
    click.option("--timeout", type=float, metavar="MINUTES", help="Stop the run after this running time."),
    click.option(
        "--ignore", metavar="PATTERN", multiple=True, help="Outputs not to keep, as in .gitignore; also .spellignore"
    ),
    click.option(
        "--executor",
        metavar="NAME",
        help="Which executor runs it: docker or process. [default: docker where an engine answers]",
    ),
    click.option(
        "-p", "--project", metavar="NAME", shell_complete=complete.projects, help="The project that it belongs to."
    ),
    click.option(
        "--retries", type=click.IntRange(0, 100), metavar="K", help="Try a failed command again, up to K times."
    ),
    click.option(
        "--stop-condition", metavar="COND", multiple=True, help="Stop it when a metric says so: 'loss > 10:100'."
    ),
    click.option(
        "--no-output-timeout",
        type=float,
        metavar="MINUTES",
        help="Stop it when it says and does nothing for this long.",
    ),
    click.option("--notify", metavar="URL", multiple=True, help="Tell this webhook of its end."),
    click.option(
        "--secret",
        metavar="NAME[=VAR]",
        multiple=True,
        shell_complete=complete.secrets,
        help="Give it a secret as an environment variable; see spell secret.",
    ),
)


_CODE = (
    click.option("--github-url", metavar="URL", help="Take the code from this git URL instead."),
    click.option("--github-ref", metavar="REF", help="Its branch, tag or commit. [default: its default branch]"),
    click.option("-c", "--commit-ref", metavar="REF", help="Take another commit of the local repository."),
    click.option("--include-untracked", is_flag=True, help="Send untracked files too, except those that git ignores."),
    click.option("-f", "--force", is_flag=True, help="Ask nothing."),
    click.option(
        "--file", "file", type=click.Path(path_type=Path), metavar="JOB.yaml", help="Take the spec from a job file."
    ),
)


def spec_options(command: F) -> F:
    """Give a verb all options of a spec; it gets them as the fields of `asking.Asked`."""
    return _with((*_CHANGES, *_CODE), command)


def change_options(command: F) -> F:
    """Give a verb the options of a spec but for those that say its code; see `asking.changes`."""
    return _with(_CHANGES, command)


def _with(options: Sequence[Callable[[F], F]], command: F) -> F:
    for option in reversed(options):
        command = option(command)
    return command
