"""`spell gc`: removes unused data."""

from __future__ import annotations

import click

from orchestrator.cli.input.durations import Duration
from orchestrator.cli.output import show
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import connect
from orchestrator.errors import InvalidConfig
from orchestrator.records.gc import GcRecord
from orchestrator.spec.sizes import size_bytes

_DAY_S = 86400.0


class Size(click.ParamType[int]):
    """A number of bytes: `500M`, `20GB`, `1.5TiB`. All units are 1024-based, as in every size that spell shows."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        try:
            return size_bytes(str(value))
        except InvalidConfig as error:
            self.fail(error.message, param, ctx)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--dry-run", is_flag=True, help="Remove nothing, only list what gc would remove.")
@click.option(
    "--older-than",
    "days",
    type=Duration("days", 0, 36500),
    default=7,
    show_default=True,
    metavar="TIME",
    help="Remove only what has been unused for this long: 12h, 30d; a number counts days.",
)
@click.option(
    "--keep-size",
    "keep_bytes",
    type=Size(),
    metavar="SIZE",
    help="Then remove younger ones too, least recently used first, until environments take at most SIZE (20GB), "
    "outputs of archived runs at most SIZE, and caches at most SIZE.",
)
@click.option("--only", type=click.Choice(["caches"]), help="Remove only from the caches that runs share.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def gc(dry_run: bool, days: float, keep_bytes: int | None, only: str | None, json_: bool) -> None:
    """Remove unused data. Outputs, code and environments of kept runs stay.

    It removes containers of ended runs, unused images, environments and snapshots of code, outputs of archived runs
    that no kept run mounted and no link leads to, and what is unused in the caches that runs share."""
    words = "The server still removes what it has begun with. See what is left: spell gc --dry-run"
    with interruptible(words), connect() as client:
        found = client.gc.remove(days * _DAY_S, dry_run=dry_run, keep_bytes=keep_bytes, only=only or "")
    for words in found.warnings:
        show.warn(words)
    if json_:
        show.as_json(found)
        return
    _print(found, "Would free" if dry_run else "Freed")


def _print(found: GcRecord, verb: str) -> None:
    if found.removed:
        show.table(["SIZE", "WHAT"], [[show.size(item.size_bytes), item.what] for item in found.removed])
    by_kind: dict[str, int] = {}
    for item in found.removed:
        by_kind[item.kind] = by_kind.get(item.kind, 0) + item.size_bytes
    parts = ", ".join(f"{kind} {show.size(count)}" for kind, count in by_kind.items())
    if found.caches_bytes:
        show.say(f"The caches of runs take {show.size(found.caches_bytes)}.")
    show.say(f"{verb} {show.size(sum(by_kind.values()))}{f': {parts}' if len(by_kind) > 1 else ''}.")
