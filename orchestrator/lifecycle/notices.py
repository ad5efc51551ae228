"""What the followers of a run are told when its command has ended."""

from __future__ import annotations

import contextlib

from orchestrator.environments import installed_in
from orchestrator.errors import DiskFull, StoreBusy
from orchestrator.executors.base import Verdict
from orchestrator.lifecycle.context import Context
from orchestrator.telemetry import logs

_NAMED = 3
_INSTALLED = "Installed for this run only: "


def tell(context: Context, number: int, verdict: Verdict) -> None:
    """Tell what else there is to say about an attempt that has ended."""
    if verdict.note:
        context.firmly(lambda: context.store.notice(number, verdict.note))
    if cut_bytes := logs.cut_bytes(context.home.log(number)):
        _tell(context, number, f"The log grew beyond its limit: {cut_bytes} bytes from its middle were dropped")
    if packages := installed_in(context.home.layer(number)):
        told = [event.text for event in context.store.events(number) if event.kind == "notice"]
        if not any(text.startswith(_INSTALLED) for text in told):  # by an earlier attempt
            _tell(context, number, _of_packages(packages))


def _tell(context: Context, number: int, text: str) -> None:
    with contextlib.suppress(DiskFull, StoreBusy):
        context.store.notice(number, text)


def _of_packages(packages: list[str]) -> str:
    more = f" and {len(packages) - _NAMED} more" if len(packages) > _NAMED else ""
    options = " ".join(f"--pip {package}" for package in packages[:_NAMED])
    how = f"{options} or --pip-req FILE" if not more else "--pip-req FILE"
    words = f"{_INSTALLED}{', '.join(packages[:_NAMED])}{more}."
    return f"{words} To install them once and keep them for later runs, cast with {how}"
