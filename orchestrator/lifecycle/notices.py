"""What the followers of a run are told when its command has ended."""

from __future__ import annotations

import contextlib

from orchestrator.environments import installed_in
from orchestrator.errors import DiskFull, StoreBusy
from orchestrator.executors.base import Verdict
from orchestrator.lifecycle.context import Context
from orchestrator.telemetry import logs
from orchestrator.telemetry.metrics import lines_lost

_NAMED = 3
_INSTALLED = "Installed for this run only: "
_NO_METRICS = "Lines of $SPELL_METRICS that are no metrics and were not recorded: "
_METRICS_FORM = (
    """`send_metric` writes such lines; another program writes {"name": "loss", "value": 0.7, "step": 10, "at": 1767225600.0} """
    "and a line feed: `step` may be null, and `at` is the time in seconds since 1970"
)


def tell(context: Context, number: int, verdict: Verdict) -> None:
    """Tell what else there is to say about an attempt that has ended."""
    if verdict.note:
        context.firmly(lambda: context.store.notice(number, verdict.note))
    if cut_bytes := logs.cut_bytes(context.home.log(number)):
        _tell(context, number, f"The log grew beyond its limit: {cut_bytes} bytes from its middle were dropped")
    if lost := lines_lost(context.store, context.home, number):
        _tell_once(context, number, _NO_METRICS, f"{_NO_METRICS}{lost}. {_METRICS_FORM}")
    if packages := installed_in(context.home.layer(number)):
        _tell_once(context, number, _INSTALLED, _of_packages(packages))


def _tell_once(context: Context, number: int, start: str, text: str) -> None:
    """Tell it, unless an earlier attempt told what starts so."""
    told = [event.text for event in context.store.events(number) if event.kind == "notice"]
    if not any(words.startswith(start) for words in told):
        _tell(context, number, text)


def _tell(context: Context, number: int, text: str) -> None:
    with contextlib.suppress(DiskFull, StoreBusy):
        context.store.notice(number, text)


def _of_packages(packages: list[str]) -> str:
    more = f" and {len(packages) - _NAMED} more" if len(packages) > _NAMED else ""
    options = " ".join(f"--pip {package}" for package in packages[:_NAMED])
    how = f"{options} or --pip-req FILE" if not more else "--pip-req FILE"
    words = f"{_INSTALLED}{', '.join(packages[:_NAMED])}{more}."
    return f"{words} To install them once and keep them for later runs, cast with {how}"
