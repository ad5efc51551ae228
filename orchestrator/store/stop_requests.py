"""Requests to stop or kill a run: which are accepted, and that each accepted one has its effect.

`check_acceptable` refuses what could change nothing. `check_heeded` stands in every transaction that writes an end reason: a
request that was accepted a moment before makes it fail, and the worker decides again. So no accepted request is forgotten.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, select

from orchestrator.errors import Conflict, NotFound
from orchestrator.states import FINAL, State, StopRequest, is_heeded
from orchestrator.store.database import Database
from orchestrator.store.tables import runs

_OF_RUN = select(runs.c.wish, runs.c.wish_reason, runs.c.wish_detail).where(runs.c.number == bindparam("run"))


class Unheeded(Exception):
    """A stop request was accepted that this end of the run does not heed. The worker must decide again."""


class RequestedStop(NamedTuple):
    """The request to end a run; `request` is None when none exists. `reason` and `detail`: see `Store.request_stop`."""

    request: StopRequest | None
    reason: str
    detail: str


class StopRequestReader:
    """Reads the stop requests of runs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def stop_request(self, number: int) -> RequestedStop:
        """Return the request to end a run.

        Raises:
            NotFound: when there is no such run.
        """
        with self._db.read() as connection:
            row = connection.execute(_OF_RUN, {"run": number}).one_or_none()
        if row is None:
            raise NotFound(f"There is no run {number}.")
        return RequestedStop(StopRequest(row.wish) if row.wish else None, row.wish_reason or "", row.wish_detail)


def check_acceptable(number: int, row: Row[Any, Any, Any, Any], request: StopRequest) -> None:
    """Check that this request can have its effect on a run.

    Args:
        row: the state and the wish of the run.

    Raises:
        Conflict: when it cannot.
    """
    if row.state in FINAL:
        raise Conflict(f"Run {number} is already finished: {row.state}.", f"See how: spell info {number}")
    if request == StopRequest.KILL or row.wish == StopRequest.STOP:
        return
    if row.wish == StopRequest.KILL:
        raise Conflict(f"Run {number} is already being killed.")
    if row.state in (State.SAVING, State.PUSHING):
        words = f"Run {number} cannot be stopped any more: its command has ended, and its outputs are being saved."
        raise Conflict(words, f"To lose them: spell kill {number}")


def check_heeded(connection: Connection, number: int, reason: str) -> None:
    """Check, in the transaction that writes this end reason, that the run does what was requested of it.

    Raises:
        Unheeded: when it does not.
    """
    wish = connection.execute(_OF_RUN, {"run": number}).one().wish
    if not is_heeded(StopRequest(wish) if wish else None, reason):
        raise Unheeded
