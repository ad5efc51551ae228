"""`spell project`: groups runs. A run is in one project at most."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.hints import Group
from orchestrator.cli.output import show
from orchestrator.client.client import Client, connect
from orchestrator.errors import Conflict, NotFound, UsageError
from orchestrator.records.projects import ProjectRecord
from orchestrator.spec.names import check_project

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_name = click.argument("name", shell_complete=complete.projects)
_runs = click.argument("run", nargs=-1, required=True, shell_complete=complete.runs)
_as_json = click.option("--json", "json_", is_flag=True, help="Print JSON.")


@click.group(cls=Group, context_settings=_HELP)
def project() -> None:
    """Group runs in projects. A run is in one project at most. See also: spell run -p NAME, spell ps -p NAME."""


@project.command(context_settings=_HELP)
@click.argument("name", default="")
@click.option("-n", "--name", "named", default="", help="The name, instead of NAME.")
@click.option("-d", "--description", default="", help="Description of the project.")
@click.option("-r", "--run", "run", multiple=True, shell_complete=complete.runs, help="A run of the project.")
@_as_json
def create(name: str, named: str, description: str, run: Sequence[str], json_: bool) -> None:
    """Make a project."""
    if bool(name) == bool(named):
        raise UsageError("Give the name of the project once.", "Try: spell project create NAME")
    with connect() as client:
        found = client.projects.create(check_project(name or named), description, run)
    _print(found, f"Created project {found.name}.", json_)


@project.command("list", context_settings=_HELP)
@click.option("--archived", is_flag=True, help="Only archived projects.")
@_as_json
def list_(archived: bool, json_: bool) -> None:
    """List projects, oldest first."""
    with connect() as client:
        found = client.projects.list(archived=archived)
    if json_:
        show.as_json(found)
    elif not found:
        show.say("No project is archived." if archived else "There are no projects yet. Try: spell project create NAME")
    else:
        headers = ["NAME", "DESCRIPTION", "TOTAL RUNS", "ACTIVE", "CREATED AT"]
        show.table(headers, [_row(item) for item in found])


def _row(item: ProjectRecord) -> list[str]:
    counts = [str(item.runs), str(item.active_runs)]
    return [item.name, show.cut(item.description, 60) or "-", *counts, show.clock(item.created_at)]


@project.command(context_settings=_HELP)
@_name
@_as_json
def info(name: str, json_: bool) -> None:
    """Show a project. List its runs with spell ps -p NAME."""
    with connect() as client:
        found = client.projects.get(name)
    if json_:
        show.as_json(found)
        return
    show.say(f"Project      {found.name}{' [Archived]' if found.archived else ''}")
    if found.description:
        show.say(f"Description  {found.description}")
    show.say(f"Runs         {found.runs}, of which {found.active_runs} active")
    show.say(f"Created      {show.clock(found.created_at)}")


@project.command(context_settings=_HELP)
@_name
@click.option("-n", "--name", "new_name", help="New name.")
@click.option("-d", "--description", help="New description.")
@_as_json
def edit(name: str, new_name: str | None, description: str | None, json_: bool) -> None:
    """Change the name or description of a project."""
    if new_name is None and description is None:
        raise UsageError("No change is given.", "Try: spell project edit NAME --name NEW --description TEXT")
    with connect() as client:
        found = client.projects.edit(name, new_name, description)
    _print(found, f"Changed project {found.name}.", json_)


@project.command("add-runs", context_settings=_HELP)
@_name
@_runs
@_as_json
def add_runs(name: str, run: Sequence[str], json_: bool) -> None:
    """Move each RUN into the project, out of any other."""
    with connect() as client:
        found = client.projects.add_runs(name, run)
    _print(found, f"Project {found.name} has {show.count(found.runs, 'run')} now.", json_)


@project.command("remove-runs", context_settings=_HELP)
@_name
@_runs
@_as_json
def remove_runs(name: str, run: Sequence[str], json_: bool) -> None:
    """Remove each RUN from the project."""
    with connect() as client:
        found = client.projects.remove_runs(name, run)
    _print(found, f"Project {found.name} has {show.count(found.runs, 'run')} now.", json_)


@project.command(context_settings=_HELP)
@_name
@_as_json
def archive(name: str, json_: bool) -> None:
    """Hide a project from the list; no run can be cast into it. Its runs do not change."""
    with connect() as client:
        found = client.projects.archive(name)
    _print(found, f"Archived project {found.name}.", json_)


@project.command(context_settings=_HELP)
@click.argument("name")
@_as_json
def unarchive(name: str, json_: bool) -> None:
    """Unarchive a project."""
    with connect() as client:
        found = client.projects.unarchive(name)
    _print(found, f"Unarchived project {found.name}.", json_)


def _print(found: ProjectRecord, words: str, json_: bool) -> None:
    if json_:
        show.as_json(found)
    else:
        show.say(words)


def see_project(client: Client, name: str, *, force: bool) -> None:
    """Make a project of this name if it does not exist: with `force`, or if the person at the terminal agrees.

    Raises:
        NotFound: if it does not exist, and no terminal is there to ask.
    """
    try:
        client.projects.get(name)
    except NotFound as error:
        if not (force or (sys.stdin.isatty() and sys.stderr.isatty())):
            error.cure += "\nOr create it with --force."
            raise
        if force:
            show.warn(f"A project named {name!r} could not be found, so spell creates it.")
        elif not click.confirm(show.safe(f"{error.message} Would you like to create a new one?"), err=True):
            raise click.Abort from None
        with contextlib.suppress(Conflict):  # another client has made it meanwhile
            client.projects.create(check_project(name))
