"""Lists of runs. The queries make SQLite read an index in the order of the list, and only as far as needed.

Alternatives (two labels, three states) become separate queries, whose results are merged: for `IN (…)` SQLite would read
and sort all matching runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    bindparam,
    column,
    func,
    literal_column,
    or_,
    select,
    table,
    text,
)

from orchestrator.errors import UsageError
from orchestrator.spec.filters import Filter, Sort
from orchestrator.store.tables import labels, metric_summaries, projects, runs

MAX_PAGE = 10_000
_MOST_BRANCHES = 200
_TRIGRAM = 3  # shorter texts are not in the index
_SUMMARY = [
    runs.c[name]
    for name in (
        "number name state wish command description machine_type executor repository commit dirty archived created_at "
        "started_at ended_at duration_s exit_code signal reason message"
    ).split()
] + [
    func.coalesce(
        select(projects.c.name).where(projects.c.id == runs.c.project).scalar_subquery(), literal_column("''")
    ).label("project")
]
_ONE = select(*_SUMMARY).where(runs.c.number == bindparam("run"))  # built once, because every followed run uses it
_runs_text = table("runs_text", column("rowid"))


def one(connection: Connection, number: int) -> Row[Any] | None:
    """Return the columns of a summary of one run, archived or not."""
    return connection.execute(_ONE, {"run": number}).one_or_none()


def rows(
    connection: Connection, wanted: Filter, order: Sort, *, limit: int, before: int = 0, skip: int = 0
) -> list[Row[Any]]:
    """Return the columns of summaries, in order: the last `limit` of all matching runs.

    Args:
        before: only runs with smaller numbers; 0 for all.
        skip: how many to leave out at the end.

    Raises:
        UsageError: when there are too many alternatives.
    """
    limit = min(limit, MAX_PAGE)
    found: dict[int, Row[Any]] = {}
    for query in queries(wanted, order, limit=limit + skip, before=before):
        found.update((row.number, row) for row in connection.execute(query))
    merged = sorted(found.values(), key=lambda row: (row.sort_value, row.number), reverse=not order.is_descending)
    return merged[skip : skip + limit][::-1]


def queries(wanted: Filter, order: Sort, *, limit: int, before: int = 0) -> Iterator[Select[Any]]:
    """Yield one query for each combination of alternatives, the last run first."""
    alternatives = [sorted(set(values)) or [""] for values in (wanted.states, wanted.labels, wanted.machine_types)]
    combinations = list(itertools.product(*alternatives))
    if len(combinations) > _MOST_BRANCHES:
        raise UsageError("There are too many states, labels and machine types at once.", "Give fewer of them.")
    for state, label, machine_type in combinations:
        yield _query(wanted, order, state, label, machine_type, before).limit(limit)


def _query(wanted: Filter, order: Sort, state: str, label: str, machine_type: str, before: int) -> Select[Any]:
    source: FromClause = runs
    number, conditions = _number(wanted, order, label)
    value: ColumnElement[Any] = number
    if order.key == "metric":
        source = metric_summaries.join(runs, runs.c.number == metric_summaries.c.run)
        value = metric_summaries.c.last
        conditions.append(metric_summaries.c.name == order.metric)
    elif order.key == "duration":
        value = runs.c.duration_s
        conditions.append(value.is_not(None))
    elif _indexed(wanted):
        source = _runs_text.join(runs, runs.c.number == _runs_text.c.rowid)
    elif label:
        source = labels.join(runs, runs.c.number == labels.c.run)
    conditions += _scans(wanted, is_led=source is not runs or order.key != "number", state=state, kind=machine_type)
    if before:
        conditions.append(number < before)
    if wanted.since:
        first = select(func.min(runs.c.number)).where(runs.c.created_at >= wanted.since).scalar_subquery()
        conditions += [number >= first, _unled(runs.c.created_at) >= wanted.since]
    keys = [value, number] if value is not number else [number]
    sorted_by = [key.asc() if order.is_descending else key.desc() for key in keys]
    return select(*_SUMMARY, value.label("sort_value")).select_from(source).where(*conditions).order_by(*sorted_by)


def _number(wanted: Filter, order: Sort, label: str) -> tuple[ColumnElement[Any], list[ColumnElement[bool]]]:
    """Return the column that orders the list, and the conditions for text, label and metrics."""
    number: ColumnElement[Any] = runs.c.number
    conditions: list[ColumnElement[bool]] = []
    leads = order.key == "number"
    if order.key == "metric":
        number = metric_summaries.c.run
    indexed, short = _indexed(wanted), [_shown(item) for item in wanted.text if len(item) < _TRIGRAM]
    if indexed:
        match = text("runs_text MATCH :matched").bindparams(matched=" AND ".join(map(_phrase, indexed)))
        if leads:
            number = _runs_text.c.rowid
            conditions.append(match)  # type: ignore[arg-type]
        else:
            conditions.append(runs.c.number.in_(select(_runs_text.c.rowid).where(match)))
    conditions += [
        or_(runs.c.command.contains(item, autoescape=True), runs.c.description.contains(item, autoescape=True))
        for item in short
    ]
    if label and leads and not indexed:
        number = labels.c.run
        conditions.append(labels.c.label == label)
    elif label:
        bears = select(labels.c.run).where(labels.c.run == runs.c.number, labels.c.label == label)
        conditions.append(bears.exists())
    for part in wanted.parts():
        compared = metric_summaries.alias()
        holds = select(compared.c.run).where(compared.c.name == part.metric, compared.c.last.op(part.op)(part.value))
        conditions.append(number.in_(holds))
    return number, conditions


def _scans(wanted: Filter, *, is_led: bool, state: str, kind: str) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions on columns of `runs`. Only the first one may use its index."""
    project = select(projects.c.id).where(projects.c.name == wanted.project).scalar_subquery()
    given = [
        (runs.c.name, wanted.name, wanted.name),
        (runs.c.project, wanted.project, project),
        (runs.c.state, state, state),
        (runs.c.machine_type, kind, kind.lower()),
        (runs.c.archived, True, wanted.archived),
    ]
    is_led = is_led or bool(wanted.metrics)
    for item, is_asked, value in given:
        if is_asked:
            yield (_unled(item) if is_led else item) == value
            is_led = True


def _unled(item: Column[Any]) -> ColumnElement[Any]:
    """Return the column, written so that SQLite does not use its index: https://sqlite.org/optoverview.html, unary "+"."""
    return literal_column(f"+runs.{item.name}", item.type)


def _indexed(wanted: Filter) -> list[str]:
    return [item for item in wanted.text if len(item) >= _TRIGRAM]


def _shown(item: str) -> str:
    """Return a text that SQLite does not cut: NUL, which no command has, would end it."""
    return item.replace("\0", "\ufffd")


def _phrase(item: str) -> str:
    """Return a text that FTS5 takes literally: https://sqlite.org/fts5.html, FTS5 Strings."""
    return '"' + _shown(item).replace('"', '""') + '"'
