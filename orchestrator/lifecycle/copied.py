"""What becomes of active runs in a copy of a home: they are lost in it, and go on in the original."""

from __future__ import annotations

import contextlib
import logging

from orchestrator.errors import Conflict
from orchestrator.lifecycle.context import Context
from orchestrator.spec.filters import Filter
from orchestrator.states import ACTIVE, State, StopRequest
from orchestrator.store import RELEASED, Store

_log = logging.getLogger(__name__)
_PAGE = 10_000


def disown(context: Context) -> None:
    """End what was active when the home was copied, in the store only: processes and containers are the original's.

    To be called before the scheduler starts. It can be repeated when the server was killed meanwhile.
    """
    store = context.store
    active = sorted(ACTIVE, key=list(State).index)
    while found := store.summaries(Filter(states=active), limit=_PAGE):
        for run in found:
            _end(store, run.number)
    for held in store.unreleased():
        store.release(held.number, held.fence)
    for number in store.searches.running():
        with contextlib.suppress(Conflict):
            store.searches.request_stop(number, StopRequest.STOP)
    for number in store.workflows.running():
        with contextlib.suppress(Conflict):
            store.workflows.request_stop(number, StopRequest.STOP)
    store.webhooks.forget()  # the original sends them


def _end(store: Store, number: int) -> None:
    taken = store.take_over(number)
    if taken:
        _log.warning("run %d is active in the home that this one is a copy of", number)
        store.end(number, taken.fence, "home_copied", **RELEASED)
