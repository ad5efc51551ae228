"""`spell export --to mlflow`: writes runs where another tracker reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.output import parts, show
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import Client, connect
from orchestrator.content.manifest import EXECUTABLE, LINK, actual
from orchestrator.errors import DiskFull, NotFound, SpellError, UsageError, is_disk_full
from orchestrator.formats.records import Point
from orchestrator.records.runs import RunRecord
from orchestrator.spec.filters import Filter
from orchestrator.states import FINAL
from orchestrator.trackers.mlflow_database import MlflowDatabase, Place

_PAGE = 1000
_LOG = "log.txt"  # as an artifact


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one run: `written`, `known` (it was there), or `active` (it has not ended)."""

    what: str
    run: int
    key: str


def export_to_mlflow(words: Sequence[str], wanted: Filter | None, *, json_: bool) -> None:
    """Write runs into `PATH/mlflow.db`.

    Args:
        words: references of runs, and PATH as the last one.
        wanted: which runs, if no reference is given.

    Raises:
        UsageError: no run, or no PATH, is named.
    """
    *references, path = words
    if not references and wanted is None:
        raise UsageError(
            "Runs or PATH are missing.",
            "Try: spell export --to mlflow latest PATH; or all: spell export --to mlflow --all PATH",
        )
    if references and wanted is not None:
        raise UsageError("Name runs, or give --all, --label or --project; not both.")
    outcomes = []
    with parts.tidily(), interruptible("What was written stays; the same command goes on."), connect() as client:
        runs = [client.runs.get(reference).number for reference in references] or [*_matching(client, wanted)]
        if not runs:
            raise NotFound("No runs match.", "See them with: spell ps")
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with MlflowDatabase(folder) as database:
                for number in dict.fromkeys(runs):
                    outcomes.append(_write(client, client.runs.get(number), database))
                    if not json_:
                        _say(outcomes[-1])
        except OSError as error:
            kind = DiskFull if is_disk_full(error) else SpellError
            raise kind(f"{error.filename or folder}: {error.strerror}.", "Name another folder.") from error
    if json_:
        show.as_json(outcomes)
    elif any(item.what == "written" for item in outcomes):
        show.say(
            f"See them: mlflow ui --backend-store-uri sqlite:///{show.line(str(folder.absolute()))}/mlflow.db", err=True
        )


def _matching(client: Client, wanted: Filter | None) -> Iterator[int]:
    found, before = list[int](), 0
    while page := client.runs.list(wanted, limit=_PAGE, before=before):
        found += [run.number for run in reversed(page)]
        before = page[0].number
    yield from reversed(found)


def _write(client: Client, run: RunRecord, database: MlflowDatabase) -> _Outcome:
    if run.state not in FINAL:
        return _Outcome("active", run.number, "")
    place = database.place(run)
    if place is None:
        return _Outcome("known", run.number, "")
    _copy(client, run, place)
    values = (Point(item.name, item.step, item.value, item.at) for item in client.metrics.each(run.number))
    database.add(run, place, values)
    return _Outcome("written", run.number, place.key)


def _copy(client: Client, run: RunRecord, place: Place) -> None:
    """Copy outputs and log of a run, which appear with all of them."""
    above = place.artifacts.parent
    above.parent.mkdir(parents=True, exist_ok=True)
    with parts.part_folder(above.parent) as beside:
        root = beside / "new" / place.artifacts.name
        root.mkdir(parents=True)
        for item in client.runs.artifacts(run.number) if run.outputs_removed_at is None else ():
            if item.note or item.mode == LINK:
                continue
            target = root / actual(item.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.writelines(client.resources.download(f"runs/{run.number}/{actual(item.path)}").chunks)
            target.chmod(0o755 if item.mode == EXECUTABLE else 0o644)
        log = client.logs.get(run.number)
        if log.end and not (root / _LOG).exists():
            with (root / _LOG).open("xb") as file:
                file.writelines(log.chunks)
        if above.exists():  # of an export that was killed before it had recorded the run
            above.rename(beside / "old")
        (beside / "new").rename(above)


def _say(outcome: _Outcome) -> None:
    if outcome.what == "written":
        show.say(f"✔ Wrote run {outcome.run} ({outcome.key})")
    elif outcome.what == "known":
        show.say(f"Run {outcome.run} is there already.")
    else:
        show.warn(f"Run {outcome.run} has not ended, and was left out. Wait for it: spell wait {outcome.run}")
