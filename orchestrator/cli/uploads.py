"""Uploads: putting a folder or file under uploads/NAME, and removing it again."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

import click

from orchestrator.capture import datatree
from orchestrator.cli.input import complete
from orchestrator.cli.output import show, streams
from orchestrator.cli.output.bars import bar
from orchestrator.cli.output.detach import INTERRUPTED
from orchestrator.client.client import connect
from orchestrator.client.upload import default_name
from orchestrator.errors import InvalidConfig, NotFound, UsageError
from orchestrator.records.uploads import UploadRecord, check_name

_HELP = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_HELP)
@click.argument("path", type=click.Path())
@click.option("-n", "--name", help="What it is called: uploads/NAME. Else as the folder or file is.")
@click.option("-f", "--force", is_flag=True, help="Replace an upload of that name.")
@click.option("--json", "json_", is_flag=True, help="Print the upload as JSON.")
def upload(path: str, name: str | None, force: bool, json_: bool) -> None:
    """Put PATH, a folder or file, under uploads/NAME, for runs to mount.

    Only what the server lacks is sent; what ^C cut off goes on where it was.
    """
    found = datatree.look(path)
    for warning in found.warnings:
        show.warn(warning)
    if not found.files:
        raise InvalidConfig(f"There is nothing to upload in {path!r}.", "Empty folders are not kept.")
    name = _name_of(path, ask=not (force or json_)) if name is None else name
    check_name(name)
    if not json_:
        show.say(f"Total upload size: {show.size(found.total_bytes)}")
    try:
        with connect() as client, bar(f"Uploading to uploads/{name}", found.total_bytes) as progress:
            tree = datatree.DataTree(found, progress.beside(f"Reading {path}", found.total_bytes))
            record = client.uploads.put(name, tree, replace=force, on_progress=progress.advance)
    except KeyboardInterrupt:
        words = f"spell upload -n {_quoted(name)} {shlex.quote(path)}{' -f' if force else ''}"
        show.say(f"\nUpload aborted. To resume this upload, run:\n{words}", err=True)
        sys.exit(INTERRUPTED)
    if json_:
        show.as_json(record)
    else:
        show.say(f"Upload of {name} ({path}) to 'uploads/{name}' complete.")
    streams.leave(0)  # while what is known of many files is still held: to take that apart would take a while


def _name_of(path: str, *, ask: bool) -> str:
    """As the folder is called. Of a file, whoever sits at a terminal is asked: a name that says more may be meant."""
    name = default_name(path)
    if ask and os.path.isfile(path) and sys.stdin.isatty():
        return str(click.prompt(f"Upload {os.path.basename(path)} to uploads/", default=name, prompt_suffix=" "))
    return name


def _quoted(name: str) -> str:
    return shlex.quote(name) if shlex.quote(name) != name else f"'{name}'"


@click.command(context_settings=_HELP)
@click.argument("resource", nargs=-1, required=True, shell_complete=complete.uploads)
@click.option("-f", "--force", is_flag=True, help="Ask nothing.")
def rm(resource: Sequence[str], force: bool) -> None:
    """Remove each RESOURCE: uploads/NAME.

    Runs are not removed but archived: spell archive.
    """
    names = [_upload_in(item) for item in resource]
    with connect() as client:
        there = {item.name: item for item in client.uploads.list()}
        for name in names:
            if not force and sys.stdin.isatty() and not click.confirm(_question(name, there.get(name))):
                continue
            client.uploads.remove(name)
            show.say(f"Removed uploads/{name}")
            for link in client.links.list():
                if f"{link.resource}/".startswith(f"uploads/{name}/"):
                    show.warn(f"{link.alias!r} leads to nothing now. Forget it: spell unlink {link.alias}")


def _question(name: str, upload: UploadRecord | None) -> str:
    size = f" ({upload.count} files, {show.size(upload.bytes)})" if upload else ""
    return show.plain(show.safe(f"Remove uploads/{name}{size} for good?"))


def _upload_in(resource: str) -> str:
    """The name of the upload that a resource is.

    Raises:
        UsageError, NotFound: it is something else.
    """
    kind, _, name = resource.strip("/").partition("/")
    if kind == "runs":
        run = name.partition("/")[0]
        cure = f"Put the run away instead: spell archive {run}" if run else "Put runs away instead: spell archive RUN"
        raise UsageError("Outputs of runs are not removed.", cure)
    if kind != "uploads":
        cure = f"An upload is meant so: spell rm uploads/{resource}" if "/" not in resource else ""
        raise NotFound(f"{resource!r} is not an upload.", cure or "See them with: spell ls uploads")
    if not name:
        raise UsageError("Say which upload is to go.", "See them with: spell ls uploads")
    if "/" in name:
        whole = name.partition("/")[0]
        raise UsageError(f"An upload is removed as a whole, not {resource!r}.", f"Remove it: spell rm uploads/{whole}")
    return name
