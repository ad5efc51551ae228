"""What the followers of a run are told when its command has ended, or its home was moved."""

from __future__ import annotations

import contextlib
from shlex import quote

from orchestrator.environments import installed_in
from orchestrator.errors import DiskFull, StoreBusy
from orchestrator.executors.base import Verdict
from orchestrator.lifecycle.context import Context
from orchestrator.spec.filters import Filter
from orchestrator.states import State
from orchestrator.telemetry import logs
from orchestrator.telemetry.metrics import lines_lost
from orchestrator.telemetry.trackers import besides as logged_besides

_NAMED = 3
_MOST_RUNNING = 10_000
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
    for start, text in logged_besides.sentences(context.store.trackers.sources(number)):
        _tell_once(context, number, start, text)
    if packages := installed_in(context.home.layer(number)):
        _tell_once(context, number, _INSTALLED, of_packages(packages))


def _tell_once(context: Context, number: int, start: str, text: str) -> None:
    """Tell it, unless an earlier attempt told what starts so."""
    told = [event.text for event in context.store.events(number) if event.kind == "notice"]
    if not any(words.startswith(start) for words in told):
        _tell(context, number, text)


def tell_moved(context: Context, before: str) -> None:
    """Tell the runs of processes that the home was moved: they keep the paths that they have got. Containers do not see it.

    Args:
        before: the place that it had.
    """
    after = context.home.root
    words = (
        f"The home was moved from {before} to {after}. The run goes on, but looks for python, packages, metrics and "
        f"checkpoints by their paths in the old place. Make a link there: ln -s {quote(str(after))} {quote(before)}"
    )
    for run in context.store.summaries(Filter(states=[State.RUNNING]), limit=_MOST_RUNNING):
        if context.store.claimed(run.number).executor == "process":
            _tell(context, run.number, words)


def _tell(context: Context, number: int, text: str) -> None:
    with contextlib.suppress(DiskFull, StoreBusy):
        context.store.notice(number, text)


def of_packages(packages: list[str]) -> str:
    """Name the packages that a run has installed for itself, and the options that keep them for later runs."""
    more = f" and {len(packages) - _NAMED} more" if len(packages) > _NAMED else ""
    words = f"{_INSTALLED}{', '.join(packages[:_NAMED])}{more}"
    fetched = [package for package in packages if not package.endswith(")")]
    if not fetched:
        return words
    options = " ".join(f"--pip {quote(package.partition(' @ ')[2] or package)}" for package in fetched)
    how = f"{options} or --pip-req FILE" if not more else "--pip-req FILE"
    which = "them" if fetched == packages else "those of an index or URL"
    return f"{words}. To install {which} once and keep them for later runs, cast with {how}"
