"""Makes, lists and removes links: link, unlink."""

from __future__ import annotations

from collections.abc import Sequence

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.client.client import connect
from orchestrator.errors import ServerUnavailable, SpellError, UsageError
from orchestrator.records.links import LinkRecord
from orchestrator.spec.names import check_alias

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.command(context_settings=_HELP)
@click.argument("alias", default="", shell_complete=complete.links)
@click.argument("resource", default="", shell_complete=complete.resources)
@click.option("-f", "--force", is_flag=True, help="Replace a link of the same name.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def link(alias: str, resource: str, force: bool, json_: bool) -> None:
    """Make ALIAS another name of RESOURCE, in mounts too. With ALIAS alone, show its target; without it, list all links."""
    if resource and "/" in alias and "/" not in resource:
        raise UsageError("The name comes first.", f"Type: spell link {resource} {alias}")
    with connect() as client:
        links = client.links
        if resource:
            found = [links.put(check_alias(alias), resource, replace=force)]
        else:
            found = [links.get(alias)] if alias else links.list()
    if json_:
        show.as_json(found[0] if alias else found)
        return
    if not found:
        show.say("There are no links yet. Try: spell link ALIAS runs/NUMBER/PATH")
    elif resource:
        show.say("Successfully created symlink:")
    for item in found:
        show.say(_line(item))


def _line(item: LinkRecord) -> str:
    return f"{item.alias} → {item.resource}   {show.clock(item.created_at)}"


@click.command(context_settings=_HELP)
@click.argument("alias", nargs=-1, required=True, shell_complete=complete.links)
@click.pass_context
def unlink(ctx: click.Context, alias: Sequence[str]) -> None:
    """Remove each link ALIAS. Its target stays."""
    failed = 0
    with connect() as client:
        links = client.links
        for name in dict.fromkeys(alias):
            try:
                links.remove(name)
            except SpellError as error:
                if len(alias) == 1 or isinstance(error, ServerUnavailable):
                    raise
                failed = error.exit_code
                show.error(error.message)
                continue
            show.say(f"Removed link {name}.")
    ctx.exit(failed)
