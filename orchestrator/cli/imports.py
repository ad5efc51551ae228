"""`spell import`: brings finished runs of other trackers as numbered runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import Client, connect
from orchestrator.content.scratch import Scratch
from orchestrator.errors import NotFound, ServerUnavailable, SpellError, UsageError
from orchestrator.states import ENDS
from orchestrator.trackers import source
from orchestrator.trackers.found import Found

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_MOST_TOLD = 5


@dataclasses.dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one run that was found: `imported`, `known` (it was imported before), `found` (with --dry-run), or
    `refused`, with the reason."""

    what: str
    title: str
    origin: str
    run: int | None
    message: str = ""


@click.command("import", context_settings=_HELP)
@click.argument("tracker", type=click.Choice(source.NAMES))
@click.argument("path", type=click.Path(path_type=Path), shell_complete=complete.files)
@click.option(
    "--run", "wanted", multiple=True, metavar="NAME", help="Only the run with this name or key; may be repeated."
)
@click.option("-p", "--project", default="", shell_complete=complete.projects, help="The project that they belong to.")
@click.option("--label", multiple=True, help="A label to find them by.")
@click.option(
    "--artifacts-from",
    "elsewhere",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also take files that PATH names or links to below DIR, outside of the tracker's own folders; may be repeated.",
)
@click.option("--partial", is_flag=True, help="Take runs without an end, too, and what can be read of damaged ones.")
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and import nothing.")
@click.option("--json", "json_", is_flag=True, help="Print JSON: what became of each run.")
@click.pass_context
def import_(
    ctx: click.Context,
    tracker: str,
    path: Path,
    wanted: Sequence[str],
    project: str,
    label: Sequence[str],
    elsewhere: Sequence[Path],
    partial: bool,
    dry_run: bool,
    json_: bool,
) -> None:
    """Import the runs that TRACKER has in PATH: parameters, metrics, files and log, in the order in which they began.

    \b
    mlflow   the folder with mlflow.db (or mlruns), or that file
    wandb    the folder wandb, an offline-run-… in it, or a run-….wandb
    trackio  the folder with PROJECT.db, or that file

    A run is imported once; nothing in PATH is changed. The exit code is 1 if a run was refused."""
    found = [item for item in source.find(tracker, path, elsewhere) if not item.is_gone]
    if wanted:
        found = [item for item in found if {item.title, item.run.origin.partition(":")[2]} & set(wanted)]
    if not found:
        raise NotFound(f"{path} holds no {'such run' if wanted else 'run'}.", "Runs in the tracker's bin are left out.")
    with interruptible("What was imported stays; the same command goes on."), connect() as client:
        importing = _Importing(client, partial=partial, dry_run=dry_run, project=project, labels=tuple(label))
        outcomes = []
        for item in found:
            outcomes.append(importing.take(item))
            if not json_:
                _say(outcomes[-1], item)
    if json_:
        show.as_json(outcomes)
    elif any(item.what == "refused" for item in outcomes) and not partial:
        show.say("What can be read of runs without an end, or of damaged ones, is taken with --partial.", err=True)
    ctx.exit(int(any(item.what == "refused" for item in outcomes)))


class _Importing:
    """Imports runs one by one."""

    def __init__(self, client: Client, *, partial: bool, dry_run: bool, project: str, labels: tuple[str, ...]) -> None:
        self._client, self._partial, self._dry_run = client, partial, dry_run
        self._project, self._labels = project, labels
        self._known = {item.origin: (item.run, item.path) for item in client.imports.list()}
        if project and project not in {item.name for item in client.projects.list()}:
            raise UsageError(f"There is no project {project!r}.", f"Create it: spell project create '{project}'")

    def take(self, item: Found) -> _Outcome:
        """Import a run, unless it was imported before or is refused."""
        origin = item.run.origin
        if origin in self._known:
            number, path = self._known[origin]
            return _Outcome("known", item.title, origin, number, f"It came from {path}.")
        if item.refusal and not self._partial:
            return _Outcome("refused", item.title, origin, None, item.refusal)
        if self._dry_run:
            return _Outcome("found", item.title, origin, None, "\n".join(item.run.notices))
        try:
            return self._send(item)
        except ServerUnavailable:
            raise
        except SpellError as error:
            return _Outcome("refused", item.title, origin, None, error.whole)

    def _send(self, item: Found) -> _Outcome:
        spec = item.run.spec
        parent, _ = self._known.get(item.parent, (None, ""))
        labels = [*spec["labels"], *self._labels, *([f"parent:{parent}"] if parent else [])]
        spec = {**spec, "labels": list(dict.fromkeys(labels)), "project": self._project}
        with Scratch() as folder:
            metrics = folder / "metrics"
            notices = (*item.run.notices, *item.write_metrics(metrics))
            run = dataclasses.replace(item.run, spec=spec, notices=notices)
            cast = self._client.imports.add(run, item.files, metrics=metrics, log=item.log)
        self._known[run.origin] = (cast.number, run.path)
        if cast.reused:  # another import has brought it meanwhile
            return _Outcome("known", item.title, run.origin, cast.number)
        return _Outcome("imported", item.title, run.origin, cast.number, "\n".join(notices))


def _say(outcome: _Outcome, item: Found) -> None:
    title = show.line(outcome.title)
    if outcome.what == "known":
        show.say(f"Run {title!r} was imported before, as run {outcome.run}. {show.line(outcome.message)}".rstrip())
    elif outcome.what == "refused":
        show.error(f"Run {title!r} was not imported. {outcome.message}")
    else:
        state = ENDS[item.run.reason].state
        files = show.count(len(item.files), "file")
        done = "Would import" if outcome.run is None else "Imported"
        number = "" if outcome.run is None else f" as run {outcome.run}"
        show.say(f"✔ {done} {title!r}{number} ({state}, {files})")
        told = outcome.message.splitlines()
        for line in told[:_MOST_TOLD]:
            show.say(f"  {line}")
        if len(told) > _MOST_TOLD:
            more = "" if outcome.run is None else f": spell logs -v {outcome.run}"
            show.say(f"  … and {len(told) - _MOST_TOLD} more{more}")
