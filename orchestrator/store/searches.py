"""Searches over parameters, and their trials with their progress."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.errors import Conflict, NotFound
from orchestrator.records.searches import SearchRecord, SearchSummary, TrialRecord
from orchestrator.spec.run import to_wire
from orchestrator.spec.search import SearchSpec
from orchestrator.states import FINAL, SearchState, State, StopRequest, TrialState
from orchestrator.store.casts import add_cast
from orchestrator.store.database import Database
from orchestrator.store.tables import attempts, metric_summaries, metrics, runs, searches, trials

_MAX_PAGE = 10_000
_MOST_NAMES = 20
_IN_COLUMNS = ("kind", "spec", "space")
_AGGREGATES: Mapping[str, Any] = {
    "avg": metric_summaries.c.total / metric_summaries.c.count,
    "min": metric_summaries.c.least,
    "max": metric_summaries.c.most,
    "last": metric_summaries.c.last,
}


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial as the controller of its search sees it."""

    number: int
    state: TrialState
    params: Mapping[str, str]
    run: int | None = None
    run_state: State | None = None
    run_stop_request: StopRequest | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class StoredSearch:
    """A search as its controller sees it.

    Attributes:
        body: the `SearchSpec` as JSON values.
        cast: the number of trials so far, which are numbered from 1.
        sampler: that of the last trial of a bayesian search; "" for none yet.
        waiting, running: the trials in these states, oldest first.
    """

    number: int
    stop_request: StopRequest | None
    body: Mapping[str, Any]
    sampler: str
    cast: int
    waiting: list[StoredTrial]
    running: list[StoredTrial]


class SearchStore:
    """Searches of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # -- writing ------------------------------------------------------------------------------------------------

    def add(self, search: SearchSpec, key: str = "") -> int:
        """Record a search without trials. Returns its number.

        Args:
            key: of the request.

        Raises:
            CastBefore: when a request with this key has cast a search before.
        """
        body = to_wire(search)
        settings = {key: value for key, value in body.items() if key not in _IN_COLUMNS}
        values = {
            "kind": search.kind,
            "state": SearchState.RUNNING,
            "spec": json.dumps(body["spec"]),
            "space": json.dumps(body["space"]),
            "settings": json.dumps({**settings, "parallel": search.at_once, "count": search.count}),
            "created_at": time.time(),
        }
        with self._db.write() as connection:
            number = int(connection.execute(insert(searches).values(**values)).inserted_primary_key[0])  # type: ignore[index]
            add_cast(connection, key, "search", number)
        return number

    def cast(self, connection: Connection, number: int, trial: int, params: Mapping[str, str], run: int) -> None:
        """Record the run of a trial that is new or waits, in the transaction that makes this run.

        Raises:
            Conflict: when the search has ended or will end, or the trial has a run already; the new run must not be made.
        """
        if not _record(connection, number, trial, params, TrialState.RUNNING, run=run):
            raise Conflict(f"Trial {trial} of search {number} can no longer be cast.")

    def settle_uncast(
        self, number: int, trial: int, params: Mapping[str, str], state: TrialState, **columns: Any
    ) -> None:
        """Record a trial that is new or waits, and gets no run. Does nothing when the search will end."""
        with self._db.write() as connection:
            _record(connection, number, trial, params, state, **columns)

    def settle(self, number: int, trial: int, state: TrialState, value: float | None, message: str = "") -> None:
        """Record how the run of a trial has ended."""
        this = and_(trials.c.search == number, trials.c.number == trial, trials.c.state == TrialState.RUNNING)
        with self._db.write() as connection:
            connection.execute(update(trials).where(this).values(state=state, value=value, message=message))

    def request_stop(self, number: int, request: StopRequest) -> None:
        """Record a request to stop or kill; `KILL` replaces `STOP`. No further trial is cast.

        Raises:
            NotFound: when there is no such search.
            Conflict: when it has already ended.
        """
        with self._db.write() as connection:
            row = _existing(connection, number)
            if row.state != SearchState.RUNNING:
                cure = f"See how: spell hyper info {number}"
                raise Conflict(f"Search {number} is already finished: {row.state}.", cure)
            if row.wish != StopRequest.KILL:
                connection.execute(update(searches).where(searches.c.id == number).values(wish=request))
            waiting = and_(trials.c.search == number, trials.c.state == TrialState.WAITING)
            connection.execute(update(trials).where(waiting).values(state=TrialState.FAILED))

    def resume(self, number: int) -> None:
        """Resume a search that has ended: its failed trials wait again.

        Raises:
            NotFound: when it does not exist.
            Conflict: when it has not ended, or every trial is complete.
        """
        with self._db.write() as connection:
            row = _existing(connection, number)
            if row.state == SearchState.RUNNING:
                raise Conflict(f"Search {number} is running.", f"Follow it with: spell hyper info -f {number}")
            failed = and_(trials.c.search == number, trials.c.state == TrialState.FAILED)
            again = connection.execute(update(trials).where(failed).values(state=TrialState.WAITING)).rowcount
            count = json.loads(row.settings)["count"]
            if not again and _last_trial(connection, number) == count:
                raise Conflict(
                    f"There is nothing to resume: no trial of search {number} has failed ({count} trial{'s' * (count != 1)})."
                )
            clean = {"state": SearchState.RUNNING, "wish": None, "ended_at": None, "message": ""}
            connection.execute(update(searches).where(searches.c.id == number).values(**clean))

    def say(self, number: int, message: str) -> None:
        """Record why a search does not go on, until its next trial is cast."""
        this = and_(searches.c.id == number, searches.c.state == SearchState.RUNNING, searches.c.message != message)
        with self._db.write() as connection:
            connection.execute(update(searches).where(this).values(message=message))

    def use_sampler(self, number: int, sampler: str, trial: int) -> None:
        """Record what chooses the values of a search from this trial on."""
        this = searches.c.id == number
        with self._db.write() as connection:
            settings = json.loads(_existing(connection, number).settings)
            settings["samplers"] = {**settings.get("samplers", {}), str(trial): sampler}
            connection.execute(update(searches).where(this).values(settings=json.dumps(settings)))

    def end(self, number: int, message: str = "") -> None:
        """Record that a search without open trials has ended: as requested, or as its trials ended."""
        with self._db.write() as connection:
            row = _existing(connection, number)
            complete = select(trials.c.number).where(trials.c.search == number, trials.c.state == TrialState.COMPLETE)
            well = connection.scalar(complete.limit(1)) is not None
            ends: dict[StopRequest | None, SearchState] = {None: SearchState.COMPLETE if well else SearchState.FAILED}
            ends |= {StopRequest.STOP: SearchState.STOPPED, StopRequest.KILL: SearchState.KILLED}
            connection.execute(
                update(searches)
                .where(searches.c.id == number, searches.c.state == SearchState.RUNNING)
                .values(state=ends[StopRequest(row.wish) if row.wish else None], ended_at=time.time(), message=message)
            )

    # -- reading ------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> int:
        """Return the number of the search that a user names: `7`, or `latest`.

        Raises:
            NotFound: when it does not exist.
        """
        query = select(func.max(searches.c.id))
        if reference.isdecimal() and len(reference) < 19:
            query = query.where(searches.c.id == int(reference))
        elif reference != "latest":
            raise _none(reference)
        with self._db.read() as connection:
            number = connection.scalar(query)
        if number is None:
            raise _none(reference)
        return int(number)

    def running(self) -> list[int]:
        """Return the numbers of the searches that have not ended, oldest first."""
        query = select(searches.c.id).where(searches.c.state == SearchState.RUNNING).order_by(searches.c.id)
        with self._db.read() as connection:
            return list(connection.scalars(query))

    def stored(self, number: int) -> StoredSearch:
        """Return the present state of a search."""
        with self._db.read() as connection:
            row = _existing(connection, number)
            cast = _last_trial(connection, number)
            rows = connection.execute(
                _trials_of(number).where(trials.c.state.in_([TrialState.WAITING, TrialState.RUNNING]))
            )
            found = [_stored_trial(item) for item in rows]
        settings = json.loads(row.settings)
        del settings["count"]
        samplers = settings.pop("samplers", {})
        return StoredSearch(
            number,
            StopRequest(row.wish) if row.wish else None,
            {**settings, "kind": row.kind, "spec": json.loads(row.spec), "space": json.loads(row.space)},
            list(samplers.values())[-1] if samplers else "",
            cast,
            [trial for trial in found if trial.state == TrialState.WAITING],
            [trial for trial in found if trial.state == TrialState.RUNNING],
        )

    def trials(self, number: int) -> list[StoredTrial]:
        """Return all trials of a search, in their order."""
        with self._db.read() as connection:
            return [_stored_trial(row) for row in connection.execute(_trials_of(number))]

    def value(self, run: int, metric: str, metric_agg: str) -> float | None:
        """Return the value of a metric of a run, as one number; None when it sent none. Only values of the last attempt
        count, because the outputs are of that attempt."""
        query = select(_AGGREGATES[metric_agg]).where(metric_summaries.c.run == run, metric_summaries.c.name == metric)
        failed_at = select(func.max(attempts.c.ended_at)).where(attempts.c.run == run)
        with self._db.read() as connection:
            since = connection.scalar(failed_at)
            return (
                connection.scalar(query) if since is None else _value_since(connection, run, metric, metric_agg, since)
            )

    def sent(self, number: int) -> list[str]:
        """Return the names of the metrics that the trials of a search sent; only some of them if there are many."""
        joined = metric_summaries.join(trials, trials.c.run == metric_summaries.c.run)
        query = select(metric_summaries.c.name).select_from(joined).where(trials.c.search == number)
        with self._db.read() as connection:
            return list(connection.scalars(query.distinct().order_by(metric_summaries.c.name).limit(_MOST_NAMES)))

    def record(self, number: int) -> SearchRecord:
        """Return the record of one search.

        Raises:
            NotFound: when it does not exist.
        """
        with self._db.read() as connection:
            row = _existing(connection, number)
            summary = _summary(connection, row)
            found = [_trial_record(trial) for trial in connection.execute(_trials_of(number))]
        settings = json.loads(row.settings)
        return SearchRecord(
            **to_wire(summary),
            space=json.loads(row.space),
            parallel=settings["parallel"],
            seed=settings["seed"],
            reuse=settings["reuse"],
            samplers=settings.get("samplers", {}),
            trials=found,
        )

    def summaries(self, *, limit: int, before: int = 0) -> list[SearchSummary]:
        """Return the newest `limit` searches, newest last; if `before` is given, only those with smaller numbers."""
        query = select(searches).order_by(searches.c.id.desc()).limit(min(limit, _MAX_PAGE))
        if before:
            query = query.where(searches.c.id < before)
        with self._db.read() as connection:
            return [_summary(connection, row) for row in reversed(connection.execute(query).all())]


def _existing(connection: Connection, number: int) -> Row[Any]:
    row = connection.execute(select(searches).where(searches.c.id == number)).one_or_none()
    if row is None:
        raise _none(str(number))
    return row


def _none(reference: str) -> NotFound:
    return NotFound(f"There is no search {reference!r}.", "See them with: spell hyper list")


def _record(
    connection: Connection, number: int, trial: int, params: Mapping[str, str], state: TrialState, **columns: Any
) -> bool:
    """Record a trial that is new or waits. Returns whether it was, and the search goes on."""
    search = _existing(connection, number)
    if search.state != SearchState.RUNNING or search.wish:
        return False
    if search.message:
        connection.execute(update(searches).where(searches.c.id == number).values(message=""))
    new = {"state": state, "value": None, "message": "", **columns}
    written = upsert(trials).values(search=number, number=trial, params=json.dumps(dict(params)), **new)
    waits = trials.c.state == TrialState.WAITING
    statement = written.on_conflict_do_update(index_elements=[trials.c.search, trials.c.number], set_=new, where=waits)
    return bool(connection.execute(statement).rowcount)


def _last_trial(connection: Connection, number: int) -> int:
    return connection.scalar(select(func.max(trials.c.number)).where(trials.c.search == number)) or 0


def _trials_of(number: int) -> Any:
    of_run = (runs.c[name].label(f"run_{name}") for name in "state wish message exit_code signal duration_s".split())
    query = select(trials, *of_run).select_from(trials.outerjoin(runs, runs.c.number == trials.c.run))
    return query.where(trials.c.search == number).order_by(trials.c.number)


def _stored_trial(row: Row[Any]) -> StoredTrial:
    return StoredTrial(
        row.number,
        TrialState(row.state),
        json.loads(row.params),
        row.run,
        State(row.run_state) if row.run_state else None,
        StopRequest(row.run_wish) if row.run_wish else None,
        row.value,
    )


def _trial_record(row: Row[Any]) -> TrialRecord:
    waits, is_settled = row.state == TrialState.WAITING, row.state != TrialState.RUNNING
    state = row.run_state if is_settled or row.run_state not in FINAL else State.PUSHING  # its value is not read yet
    return TrialRecord(
        number=row.number,
        run=row.run,
        state=row.state if waits else state or row.state,
        params=json.loads(row.params),
        value=row.value,
        exit_code=row.run_exit_code,
        signal=row.run_signal,
        duration_s=row.run_duration_s,
        message=row.message or ("" if state == State.COMPLETE else row.run_message or ""),
    )


def _value_since(connection: Connection, run: int, metric: str, metric_agg: str, since: float) -> float | None:
    sent = metrics.c
    of_attempt = (sent.run == run, sent.name == metric, sent.at >= since)
    aggregates = {"min": func.min(sent.value), "max": func.max(sent.value), "avg": func.avg(sent.value)}
    if metric_agg in aggregates:
        return connection.scalar(select(aggregates[metric_agg]).where(*of_attempt))
    return connection.scalar(select(sent.value).where(*of_attempt).order_by(sent.id.desc()).limit(1))


def _summary(connection: Connection, row: Row[Any]) -> SearchSummary:
    settings = json.loads(row.settings)
    of_this = trials.c.search == row.id
    complete = func.sum(case((trials.c.state == TrialState.COMPLETE, 1), else_=0))
    counts = connection.execute(select(func.count().label("cast"), complete.label("complete")).where(of_this)).one()
    best_first = trials.c.value if settings["direction"] == "minimize" else trials.c.value.desc()
    best = connection.execute(
        select(trials.c.run, trials.c.value)
        .where(of_this, trials.c.value.is_not(None))
        .order_by(best_first, trials.c.number)
        .limit(1)
    ).one_or_none()
    return SearchSummary(
        number=row.id,
        kind=row.kind,
        state=row.state,
        wish=row.wish,
        command=json.loads(row.spec)["command"],
        metric=settings["metric"],
        metric_agg=settings["metric_agg"],
        direction=settings["direction"],
        trials_complete=counts.complete or 0,
        trials_cast=counts.cast,
        trials_count=settings["count"],
        best_run=best.run if best else None,
        best_value=best.value if best else None,
        created_at=row.created_at,
        ended_at=row.ended_at,
        message=row.message,
    )
