"""Workflows, and their steps with their progress."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from orchestrator.errors import Conflict, NotFound
from orchestrator.records.workflows import StepRecord, WorkflowRecord, WorkflowSummary
from orchestrator.spec.run import to_wire
from orchestrator.spec.workflow import WorkflowSpec
from orchestrator.states import State, StepState, StopRequest, WorkflowState
from orchestrator.store.casts import add_cast
from orchestrator.store.database import Database
from orchestrator.store.tables import runs, steps, workflows

_MAX_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step as the controller of its workflow sees it."""

    name: str
    state: StepState
    needs: tuple[str, ...]
    run: int | None
    run_state: State | None
    run_stop_request: StopRequest | None


@dataclass(frozen=True, slots=True)
class StoredWorkflow:
    """A workflow as its controller sees it; its steps by name, in the order of its file."""

    number: int
    stop_request: StopRequest | None
    reuse: bool
    steps: Mapping[str, StoredStep]


class WorkflowStore:
    """Workflows of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # -- writing ------------------------------------------------------------------------------------------------

    def add(self, spec: WorkflowSpec, key: str = "") -> int:
        """Record a workflow, all of whose steps wait. Returns its number.

        Args:
            key: of the request.

        Raises:
            CastBefore: when a request with this key has cast a workflow before.
        """
        values = {"name": spec.name, "state": WorkflowState.RUNNING, "reuse": spec.reuse, "created_at": time.time()}
        with self._db.write() as connection:
            number = connection.execute(insert(workflows).values(**values)).inserted_primary_key[0]  # type: ignore[index]
            rows = [
                {
                    "workflow": number,
                    "name": step.name,
                    "position": position,
                    "spec": json.dumps(to_wire(step.spec)),
                    "needs": json.dumps(step.all_needs),
                    "state": StepState.WAITING,
                }
                for position, step in enumerate(spec.steps)
            ]
            connection.execute(insert(steps), rows)
            add_cast(connection, key, "workflow", number)
        return int(number)

    def request_stop(self, number: int, request: StopRequest) -> None:
        """Record a request to stop or kill; `KILL` replaces `STOP`. Steps that wait never start.

        Raises:
            NotFound: when there is no such workflow.
            Conflict: when it has already ended.
        """
        with self._db.write() as connection:
            row = connection.execute(select(workflows).where(workflows.c.id == number)).one_or_none()
            if row is None:
                raise NotFound(f"There is no workflow {number}.")
            if row.state != WorkflowState.RUNNING:
                cure = f"See how: spell workflow info {number}"
                raise Conflict(f"Workflow {number} is already finished: {row.state}.", cure)
            if row.wish != StopRequest.KILL:
                connection.execute(update(workflows).where(workflows.c.id == number).values(wish=request))
            waiting = and_(steps.c.workflow == number, steps.c.state == StepState.WAITING)
            words = "the workflow was stopped" if request == StopRequest.STOP else "the workflow was killed"
            connection.execute(update(steps).where(waiting).values(state=StepState.SKIPPED, message=words))

    def cast(self, connection: Connection, number: int, name: str, run: int) -> None:
        """Record the run of a step that waits, in the transaction that makes this run.

        Raises:
            Conflict: when the step no longer waits; the new run must not be made.
        """
        if not _move(connection, number, name, StepState.WAITING, StepState.CAST, run=run, message=""):
            raise Conflict(f"Step {name!r} of workflow {number} no longer waits.")

    def reuse(self, number: int, name: str, run: int) -> None:
        """Record that a waiting step is complete, because an earlier run is identical."""
        with self._db.write() as connection:
            _move(connection, number, name, StepState.WAITING, StepState.COMPLETE, run=run, reused=True, message="")

    def settle(self, number: int, name: str, before: StepState, state: StepState, message: str = "") -> None:
        """Move a step from one state to another, unless it is no longer in the first."""
        with self._db.write() as connection:
            _move(connection, number, name, before, state, message=message)

    def end(self, number: int) -> None:
        """Record that a workflow without open steps has ended: as requested, or as its steps ended."""
        with self._db.write() as connection:
            of_this = select(steps.c.run).where(steps.c.workflow == number)
            lost = connection.execute(of_this.where(steps.c.state != StepState.COMPLETE).limit(1)).first() is not None
            ends: dict[StopRequest | None, WorkflowState] = {
                None: WorkflowState.FAILED if lost else WorkflowState.COMPLETE
            }
            ends |= {StopRequest.STOP: WorkflowState.STOPPED, StopRequest.KILL: WorkflowState.KILLED}
            wish = connection.scalar(select(workflows.c.wish).where(workflows.c.id == number))
            connection.execute(
                update(workflows)
                .where(workflows.c.id == number, workflows.c.state == WorkflowState.RUNNING)
                .values(state=ends[StopRequest(wish) if wish else None], ended_at=time.time())
            )

    # -- reading ------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> int:
        """Return the number of the workflow that a user names: `7`, a name (the newest of several), or `latest`.

        Raises:
            NotFound: when it does not exist.
        """
        query = select(func.max(workflows.c.id))
        if reference.isdecimal() and len(reference) < 19:
            query = query.where(workflows.c.id == int(reference))
        elif reference != "latest":
            query = query.where(workflows.c.name == reference)
        with self._db.read() as connection:
            number = connection.scalar(query)
        if number is None:
            raise NotFound(f"There is no workflow {reference!r}.", "See them with: spell workflow list")
        return int(number)

    def running(self) -> list[int]:
        """Return the numbers of the workflows that have not ended, oldest first."""
        query = select(workflows.c.id).where(workflows.c.state == WorkflowState.RUNNING).order_by(workflows.c.id)
        with self._db.read() as connection:
            return list(connection.scalars(query))

    def stored(self, number: int) -> StoredWorkflow:
        """Return the present state of a workflow."""
        with self._db.read() as connection:
            row = connection.execute(select(workflows).where(workflows.c.id == number)).one()
            found = {
                step.name: StoredStep(
                    step.name,
                    StepState(step.state),
                    tuple(json.loads(step.needs)),
                    step.run,
                    State(step.run_state) if step.run_state else None,
                    StopRequest(step.run_wish) if step.run_wish else None,
                )
                for step in _steps_of(connection, number)
            }
        return StoredWorkflow(number, StopRequest(row.wish) if row.wish else None, row.reuse, found)

    def step_spec(self, number: int, name: str) -> dict[str, Any]:
        """Return the spec of a step, as it was sent."""
        query = select(steps.c.spec).where(steps.c.workflow == number, steps.c.name == name)
        with self._db.read() as connection:
            spec: dict[str, Any] = json.loads(connection.execute(query).scalar_one())
        return spec

    def record(self, number: int) -> WorkflowRecord:
        """Return the record of one workflow.

        Raises:
            NotFound: when it does not exist.
        """
        with self._db.read() as connection:
            row = connection.execute(_summaries().where(workflows.c.id == number)).one_or_none()
            if row is None:
                raise NotFound(f"There is no workflow {number}.", "See them with: spell workflow list")
            found = [_step_record(step) for step in _steps_of(connection, number)]
        return WorkflowRecord(**row._mapping, steps=found)

    def summaries(self, *, limit: int, before: int = 0) -> list[WorkflowSummary]:
        """Return the newest `limit` workflows, newest last; if `before` is given, only those with smaller numbers."""
        query = _summaries().order_by(workflows.c.id.desc()).limit(min(limit, _MAX_PAGE))
        if before:
            query = query.where(workflows.c.id < before)
        with self._db.read() as connection:
            return [WorkflowSummary(**row._mapping) for row in reversed(connection.execute(query).all())]


def _move(connection: Connection, number: int, name: str, before: StepState, state: StepState, **columns: Any) -> bool:
    this = and_(steps.c.workflow == number, steps.c.name == name, steps.c.state == before)
    return bool(connection.execute(update(steps).where(this).values(state=state, **columns)).rowcount)


def _summaries() -> Any:
    of_this = select(func.count()).where(steps.c.workflow == workflows.c.id)
    columns = (workflows.c[name] for name in "name state wish reuse created_at ended_at".split())
    return select(
        workflows.c.id.label("number"),
        *columns,
        of_this.where(steps.c.state == StepState.COMPLETE).scalar_subquery().label("steps_complete"),
        of_this.scalar_subquery().label("steps_count"),
    )


def _steps_of(connection: Connection, number: int) -> Sequence[Row[Any]]:
    columns = (steps.c[name] for name in "name state needs run reused message".split())
    of_run = (runs.c[name].label(f"run_{name}") for name in "state wish message exit_code signal duration_s".split())
    query = select(*columns, *of_run).select_from(steps.outerjoin(runs, runs.c.number == steps.c.run))
    return connection.execute(query.where(steps.c.workflow == number).order_by(steps.c.position)).all()


def _step_record(row: Row[Any]) -> StepRecord:
    return StepRecord(
        name=row.name,
        state=row.run_state or row.state,
        run=row.run,
        reused=row.reused,
        needs=json.loads(row.needs),
        exit_code=row.run_exit_code,
        signal=row.run_signal,
        duration_s=row.run_duration_s,
        message=row.message or row.run_message or "",
    )
