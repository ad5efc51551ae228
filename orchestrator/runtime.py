"""For code inside a run: send metrics, find the checkpoint folder, react to a stop.

It needs only the standard library and works from Python 3.6 on (so no `from __future__ import annotations`), so every run
can import it without installing anything (`from orchestrator.runtime import send_metric`). Outside a run it works too, but
sends nothing, and says so once.

Format of the metrics file (named by `SPELL_METRICS`): one JSON object a line, with `name`, `value`, `at` (seconds since
the epoch) and `step` (a whole number, or null for one more than the last).
"""

import contextlib
import json
import math
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Callable, Optional, Set, SupportsFloat  # noqa: UP035 - names that old Pythons have

CHECKPOINTS = "checkpoints"
LONGEST_NAME = 250
MOST_STEP = (1 << 63) - 1
_SAID: Set[str] = set()  # noqa: UP006 - the same


def send_metric(name: str, value: SupportsFloat, step: Optional[int] = None) -> None:  # noqa: UP045 - see above
    """Record a value of a metric of this run. A failure only causes a warning and never ends the run.

    Args:
        name: of the metric, for example "loss"; up to 250 characters.
        value: a number, or anything that `float` accepts, such as a 0-dimensional tensor.
        step: the training step, of at most 63 bits; None for one more than the last step of that name.
    """
    path = os.environ.get("SPELL_METRICS")
    if not path:
        _say_once("send_metric does nothing here, as this is no run of spell. To record metrics: spell run COMMAND")
        return
    try:
        number = float(value)
        _check(str(name), number, step)
        words = {"name": str(name), "value": number, "step": None if step is None else int(step)}
        line = json.dumps({**words, "at": time.time()}, allow_nan=False)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, (line + "\n").encode())  # one write: lines of several processes never mix
        finally:
            os.close(fd)
    except Exception as error:
        warnings.warn(f"The metric {str(name)[:LONGEST_NAME]!r} was not recorded: {error}", stacklevel=2)


def _say_once(words: str) -> None:
    """Write a line to stderr, once in a process. It must break no script, also one that makes warnings errors or closed stderr."""
    if words in _SAID:
        return
    _SAID.add(words)
    with contextlib.suppress(Exception):  # there may be nowhere to say it
        sys.stderr.write("spell: " + words + "\n")


def _check(name: str, value: float, step: Optional[int]) -> None:  # noqa: UP045 - see above
    if not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(f"its name must have 1 to {LONGEST_NAME} characters")
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    if step is not None and abs(int(step)) > MOST_STEP:
        raise ValueError("its step has more than 63 bits")


def checkpoint_dir() -> Path:
    """Make and return the folder for this run's checkpoints: `checkpoints` in the work dir, or in the current folder
    outside a run. Its files become outputs, so a later run can mount them."""
    path = Path(os.environ.get("SPELL_CHECKPOINT_DIR", CHECKPOINTS))
    path.mkdir(parents=True, exist_ok=True)
    return path


def on_stop(callback: Callable[[], None]) -> None:
    """Call a function when the run is asked to stop (SIGTERM), for example to save a checkpoint.

    Call `on_stop` in the main thread. A run that does not end within the grace time (10 s by default) is killed.

    Args:
        callback: called once, in the main thread. It must make the program end: it raises SystemExit, or sets a flag
            that the training loop checks.
    """

    def handler(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        callback()

    signal.signal(signal.SIGTERM, handler)
