"""Finds the runs of a tracker in a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.errors import InvalidConfig, NotFound
from orchestrator.trackers import mlflow, trackio, wandb
from orchestrator.trackers.found import Found

_TRACKERS = {mlflow.NAME: mlflow.find, wandb.NAME: wandb.find, trackio.NAME: trackio.find}
NAMES = tuple(_TRACKERS)


def find(tracker: str, path: Path, elsewhere: Sequence[Path] = ()) -> Iterator[Found]:
    """Yield the runs of a tracker, in the order in which they began.

    Args:
        elsewhere: folders outside of the tracker's own from which files are taken, too.

    Raises:
        NotFound: there are none.
        InvalidConfig: a file is damaged.
    """
    if not path.exists():
        raise NotFound(f"{path} does not exist.")
    try:
        yield from _TRACKERS[tracker](path, elsewhere)
    except OSError as error:
        raise InvalidConfig(f"{error.filename or path}: {error.strerror}.") from error
