"""For code inside a run: send metrics, find the checkpoint folder, hear of a stop.

Standard library only, and readable by old Pythons: it is importable in every run without installing anything
(`from orchestrator.runtime import send_metric`). Outside a run everything still works, and nothing is sent.

Format of the metrics file (named by `SPELL_METRICS`): one JSON object a line, with `name`, `value`, `at` (seconds since
the epoch) and `step` (a whole number, or null for one more than the last).
"""

from __future__ import annotations

import json
import os
import signal
import time
import warnings
from pathlib import Path
from typing import Callable, Optional, SupportsFloat  # noqa: UP035 - the names that old Pythons know

CHECKPOINTS = "checkpoints"


def send_metric(name: str, value: SupportsFloat, step: Optional[int] = None) -> None:  # noqa: UP045 - see above
    """Record a value of this run, for `spell metrics` and the store. Never ends the run: a problem is a warning.

    Args:
        name: what is measured, for example "loss".
        value: a number, or anything that `float` takes (a 0-dimensional tensor, say).
        step: where in training it was measured; None for one more than the last step of that name.
    """
    path = os.environ.get("SPELL_METRICS")
    if not path:
        return
    try:
        words = {"name": str(name), "value": float(value), "step": None if step is None else int(step)}
        line = json.dumps({**words, "at": time.time()}, allow_nan=False)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, (line + "\n").encode())  # one write: lines of several processes never mix
        finally:
            os.close(fd)
    except Exception as error:
        warnings.warn(f"The metric {name!r} was not recorded: {error}", stacklevel=2)


def checkpoint_dir() -> Path:
    """The folder for this run's checkpoints: `checkpoints` in the root of the work dir (outside a run: in the current
    folder). It is made, and what lies there becomes part of the outputs, so that a later run can mount it."""
    path = Path(os.environ.get("SPELL_CHECKPOINT_DIR", CHECKPOINTS))
    path.mkdir(parents=True, exist_ok=True)
    return path


def on_stop(callback: Callable[[], None]) -> None:
    """Call `callback` when the run is asked to stop (SIGTERM): the moment to save a checkpoint and end.

    It is called once, in the main thread, and must see to it that the program ends: raise SystemExit, or set what the
    training loop looks at. The run is killed when it has not ended within the grace time (10 s unless
    configured). Must itself be called from the main thread.
    """

    def handler(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        callback()

    signal.signal(signal.SIGTERM, handler)
