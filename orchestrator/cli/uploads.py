"""Makes and removes uploads: upload, rm."""

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

_FOLLOW = "Upload what they lead to, too: spell upload --follow-links …"
_HELP = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_HELP)
@click.argument("path", type=click.Path())
@click.option("-n", "--name", help="Name of the upload: uploads/NAME. [default: the name of the folder or file]")
@click.option("-f", "--force", is_flag=True, help="Replace an upload of the same name.")
@click.option("--follow-links", is_flag=True, help="Upload what links lead to that lead out of the folder.")
@click.option("--json", "json_", is_flag=True, help="Print the upload as JSON.")
def upload(path: str, name: str | None, force: bool, follow_links: bool, json_: bool) -> None:
    """Upload PATH, a folder or file, to uploads/NAME, for runs to mount.

    Only files that the server lacks are sent. After ^C, the same command continues the upload. The exit code is 1 if
    links were left out that lead to files outside the folder.
    """
    found = datatree.look(path, follow_links=follow_links)
    for warning in found.warnings:
        show.warn(warning)
    if found.outside and not found.files:
        raise InvalidConfig(f"{path!r} has no files to upload. {found.outside_words}", _FOLLOW)
    if not found.files:
        raise InvalidConfig(f"{path!r} has no files to upload.", "Empty folders are not uploaded.")
    name = _name_of(path, ask=not (force or json_)) if name is None else name
    check_name(name)
    if not json_:
        show.say(f"Total upload size: {show.size(found.total_bytes)}")
    try:
        with connect() as client, bar(f"Uploading to uploads/{name}", found.total_bytes) as progress:
            tree = datatree.DataTree(found, progress.beside(f"Reading {path}", found.total_bytes))
            record = client.uploads.put(name, tree, replace=force, on_progress=progress.advance)
    except KeyboardInterrupt:
        options = f"{' --follow-links' if follow_links else ''}{' -f' if force else ''}"
        words = f"spell upload -n {_quoted(name)} {shlex.quote(path)}{options}"
        show.say(f"\nUpload aborted. To resume this upload, run:\n{words}", err=True)
        sys.exit(INTERRUPTED)
    if json_:
        show.as_json(record)
    else:
        show.say(f"Upload of {name} ({path}) to 'uploads/{name}' complete.")
    if found.outside:
        show.error(found.outside_words, _FOLLOW)
    streams.leave(int(bool(found.outside)))  # at once: to free the records of many files would take a while


def _name_of(path: str, *, ask: bool) -> str:
    """Return the name of the folder or file. On a terminal, ask for the name of a file, which often says little."""
    name = default_name(path)
    if ask and os.path.isfile(path) and sys.stdin.isatty():
        return str(click.prompt(f"Upload {os.path.basename(path)} to uploads/", default=name, prompt_suffix=" "))
    return name


def _quoted(name: str) -> str:
    return shlex.quote(name) if shlex.quote(name) != name else f"'{name}'"


@click.command(context_settings=_HELP)
@click.argument("resource", nargs=-1, required=True, shell_complete=complete.uploads)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def rm(resource: Sequence[str], force: bool) -> None:
    """Remove each RESOURCE: uploads/NAME.

    Runs cannot be removed; archive them with spell archive.
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
                    show.warn(f"The target of {link.alias!r} is gone. Remove the link: spell unlink {link.alias}")


def _question(name: str, upload: UploadRecord | None) -> str:
    size = f" ({show.count(upload.count, 'file')}, {show.size(upload.bytes)})" if upload else ""
    return show.plain(show.safe(f"Remove uploads/{name}{size} for good?"))


def _upload_in(resource: str) -> str:
    """Return the name of an upload.

    Raises:
        UsageError, NotFound: if the resource is not an upload.
    """
    kind, _, name = resource.strip("/").partition("/")
    if kind == "runs":
        run = name.partition("/")[0]
        cure = f"Archive the run instead: spell archive {run}" if run else "Archive runs instead: spell archive RUN"
        raise UsageError("Outputs of runs cannot be removed.", cure)
    if resource.isdecimal():
        raise NotFound(
            f"{resource!r} is not an upload.",
            f"A run is runs/{resource}, and cannot be removed; archive it: spell archive {resource}. "
            f"An upload of this name: spell rm uploads/{resource}",
        )
    if kind != "uploads":
        cure = f"To remove an upload, type: spell rm uploads/{resource}" if "/" not in resource else ""
        raise NotFound(f"{resource!r} is not an upload.", cure or "See them with: spell ls uploads")
    if not name:
        raise UsageError("The name of the upload is missing.", "See uploads with: spell ls uploads")
    if "/" in name:
        whole = name.partition("/")[0]
        raise UsageError(
            f"{resource!r} is a part of an upload. Only a whole upload can be removed.",
            f"Remove it: spell rm uploads/{whole}",
        )
    return name
