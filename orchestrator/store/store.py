"""Records runs, and moves them from state to state.

`move` is the only function that writes a state: a guarded UPDATE and its event row in one transaction. The worker of a
run holds its fence, a number that grows each time the run is claimed or taken over; a write with an older fence is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, text, update

from orchestrator.errors import Conflict, NotFound, StaleFence
from orchestrator.records.runs import AttemptRecord, SampleRecord
from orchestrator.runtime import CHECKPOINTS
from orchestrator.spec.run import to_wire
from orchestrator.states import ACTIVE, ENDS, FINAL, MOVES, State, StopRequest
from orchestrator.store.archive import ArchiveStore
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.attempts import AttemptStore, add_attempt
from orchestrator.store.casts import CastStore, add_cast
from orchestrator.store.database import Database
from orchestrator.store.gc import GcStore, check_sources
from orchestrator.store.imports import ImportStore
from orchestrator.store.labels import LabelStore
from orchestrator.store.lineage import LineageStore
from orchestrator.store.links import LinkStore
from orchestrator.store.metrics import MetricStore
from orchestrator.store.projects import ProjectStore, open_project
from orchestrator.store.queue import QueueReader
from orchestrator.store.reuse import ReuseStore
from orchestrator.store.rows import ClaimedRun, NewRun, claimed_run
from orchestrator.store.runs import RunReader
from orchestrator.store.samples import SampleStore, add_sample
from orchestrator.store.searches import SearchStore
from orchestrator.store.secrets import SecretStore
from orchestrator.store.stop_requests import StopRequestReader, check_acceptable, check_heeded
from orchestrator.store.tables import RESUMED, attempts, events, labels, mounts, runs
from orchestrator.store.trackers import TrackerStore
from orchestrator.store.uploads import UploadStore
from orchestrator.store.webhooks import WebhookStore, add_notifications
from orchestrator.store.workflows import WorkflowStore

WithRun = Callable[[Connection, int], None]
"""Called in the transaction that records a run, with its number. An exception undoes the run."""
RELEASED: Mapping[str, Any] = {"held": False, "gpus": "[]", "cores": "[]"}
"""The columns of a run that has given back its machine."""
_OF_ATTEMPT = "reason started_at ended_at duration_s exit_code signal cpu_time_s max_rss_bytes".split()
# Statements for every run are built once, because building takes SQLAlchemy longer than running takes SQLite.
_IS_THIS, _IS_OURS = runs.c.number == bindparam("run"), runs.c.fence == bindparam("our_fence")
_ADD_RUN, _ADD_EVENT = insert(runs), insert(events)
_COLUMNS = frozenset(runs.c.keys())
_MOVE = {
    to: update(runs).where(_IS_THIS, _IS_OURS, runs.c.state.in_([state for state in State if to in MOVES[state]]))
    for to in State
}
_UPDATE = update(runs).where(_IS_THIS, _IS_OURS, runs.c.state.in_(ACTIVE))
_RELEASE = update(runs).where(_IS_THIS, _IS_OURS).values(**RELEASED)
_CLAIM = (
    update(runs)
    .where(_IS_THIS, runs.c.state == State.MACHINE_REQUESTED, runs.c.wish.is_(None))
    .values(
        state=State.BUILDING,
        fence=runs.c.fence + 1,
        attempt=runs.c.attempt + 1,
        gpus=bindparam("given_gpus"),
        cores=bindparam("given_cores"),
        held=True,
        not_before=None,
    )
)
_EARLIER_S = select(func.sum(attempts.c.duration_s)).where(attempts.c.run == runs.c.number).scalar_subquery()
_ADD_EARLIER = (  # a run has taken as long as all its attempts
    update(runs)
    .where(_IS_THIS, _EARLIER_S.is_not(None))
    .values(duration_s=func.coalesce(runs.c.duration_s, 0.0) + _EARLIER_S)
)
_CLAIMED = select(runs).where(_IS_THIS)


class Store(RunReader, ArtifactStore, MetricStore, SampleStore, QueueReader, StopRequestReader):
    """All that is recorded in one home.

    Args:
        database: the opened file.
        on_change: called with a run's number after every committed change that followers need.
        on_end: called after that, when the run has ended.
    """

    def __init__(
        self,
        database: Database,
        on_change: Callable[[int], None] = lambda _number: None,
        on_end: Callable[[int], None] = lambda _number: None,
    ) -> None:
        super().__init__(database)
        self.on_change, self.on_end = on_change, on_end
        self.webhooks = WebhookStore(database)
        self.reuse = ReuseStore(database)
        self.attempts = AttemptStore(database)
        self.casts = CastStore(database)
        self.lineage = LineageStore(database)
        self.workflows = WorkflowStore(database)
        self.searches = SearchStore(database)
        self.gc = GcStore(database)
        self.secrets = SecretStore(database)
        self.uploads = UploadStore(database)
        self.trackers = TrackerStore(database)
        self.projects = ProjectStore(database)
        self.links = LinkStore(database)
        self.labels = LabelStore(database)
        self.imports = ImportStore(database)
        self.archive = ArchiveStore(database)
        self.way_out = database.way_out

    # -- casting ------------------------------------------------------------------------------------------------

    def add(self, new: NewRun, with_run: WithRun = lambda _connection, _number: None) -> int:
        """Record a run in state `machine_requested`. Returns its number.

        Args:
            with_run: see `WithRun`.

        Raises:
            CastBefore: when a request with its key has cast a run before.
        """
        spec, now = new.spec, time.time()
        code = spec.code
        with self._db.write() as connection:
            columns = {
                "name": spec.name,
                "state": State.MACHINE_REQUESTED,
                "spec": json.dumps(to_wire(spec)),
                "command": spec.filled_command,
                "description": spec.description,
                "executor": new.executor,
                "machine_type": spec.machine_type,
                "cpus": new.cpus,
                "memory_bytes": new.memory_bytes,
                "gpus_wanted": new.gpus,
                "repository": code.repository if code else "",
                "commit": code.commit if code else "",
                "dirty": bool(code and code.dirty),
                "created_at": now,
                "fingerprint": new.fingerprint,
                "rerun_of": new.rerun_of,
                "environment": new.environment,
                "image": new.image,
                "project": open_project(connection, spec.project) if spec.project else None,
            }
            number = connection.execute(_ADD_RUN, columns).inserted_primary_key[0]  # type: ignore[index]
            sources = [(position, mount.resource, mount.path) for position, mount in enumerate(spec.mounts)]
            sources += [(RESUMED, spec.resume, spec.checkpoints or CHECKPOINTS)] if spec.resume else []
            for position, resource, path in sources:
                kind, name, *_ = resource.split("/")
                connection.execute(
                    insert(mounts).values(
                        run=number,
                        position=position,
                        resource=resource,
                        path=path,
                        source_run=int(name) if kind == "runs" else None,
                    )
                )
            if sources:
                check_sources(connection, number)
            for label in sorted(set(spec.labels)):
                connection.execute(insert(labels).values(run=number, label=label))
            _add_event(connection, number, now, "state", State.MACHINE_REQUESTED, "")
            add_cast(connection, new.key, "run", number)
            with_run(connection, number)
        self.on_change(number)
        return int(number)

    # -- moving -------------------------------------------------------------------------------------------------

    def move(
        self,
        number: int,
        fence: int,
        to: State,
        text: str = "",
        *,
        sample: SampleRecord | None = None,
        **columns: Any,
    ) -> None:
        """Write a run's state, with its event.

        Args:
            number, fence: the run, and the fence under which the caller works on it.
            to: the new state.
            text: a message for followers.
            sample: the usage of the run so far; recorded in the same transaction.
            columns: other columns that change in the same transaction.

        Raises:
            StaleFence: when another worker has the run by now, or it is already final.
            Conflict: when the move is not legal.
            Unheeded: when `columns` have an end reason that a stop request, accepted by now, does not allow.
        """
        with self._db.write() as connection:
            _move(connection, number, fence, to, text, columns)
            if sample:
                add_sample(connection, sample)
        self.on_change(number)

    def end(self, number: int, fence: int, reason: str, detail: str = "", **columns: Any) -> None:
        """Move a run to the final state of an end reason, with its message. Raises as `move`."""
        with self._db.write() as connection:
            _end(connection, number, fence, reason, detail, columns)
        self.on_change(number)
        self.on_end(number)

    def retry(self, number: int, fence: int, failed: AttemptRecord, not_before: float, text: str) -> bool:
        """Send a run back to the queue, after an attempt that has failed and is recorded.

        Args:
            number, fence: as for `move`.
            failed: the attempt.
            not_before: when the next attempt may begin, in seconds since the epoch.
            text: a message for followers.

        Returns:
            False, and changes nothing, when a stop request has come meanwhile.

        Raises:
            StaleFence, Conflict: as `move`.
        """
        clean = {**dict.fromkeys(_OF_ATTEMPT), **RELEASED, "not_before": not_before}
        with self._db.write() as connection:
            if connection.scalar(select(runs.c.wish).where(runs.c.number == number)) is not None:
                return False
            add_attempt(connection, number, failed)
            _add_event(connection, number, time.time(), "notice", "", text)
            _move(connection, number, fence, State.MACHINE_REQUESTED, "", clean)
        self.on_change(number)
        return True

    def claim(self, number: int, gpus: Sequence[int], cores: Sequence[int] = ()) -> ClaimedRun | None:
        """Claim a queued run, with these GPUs and cores. Returns None when it is no longer queued: exactly one claim wins."""
        given = {"run": number, "given_gpus": json.dumps(list(gpus)), "given_cores": json.dumps(list(cores))}
        with self._db.write() as connection:
            if not connection.execute(_CLAIM, given).rowcount:
                return None
            _add_event(connection, number, time.time(), "state", State.BUILDING, "")
            row = connection.execute(_CLAIMED, {"run": number}).one()
        self.on_change(number)
        return claimed_run(row)

    def take_over(self, number: int) -> ClaimedRun | None:
        """Take an active run from a dead worker. Returns None when it is final."""
        with self._db.write() as connection:
            changed = connection.execute(
                update(runs).where(runs.c.number == number, runs.c.state.in_(ACTIVE)).values(fence=runs.c.fence + 1)
            ).rowcount
            row = connection.execute(select(runs).where(runs.c.number == number)).one()
        return claimed_run(row) if changed else None

    def request_stop(self, number: int, request: StopRequest, reason: str = "", detail: str = "") -> State:
        """Record a request to stop or kill. A run that was never taken from the queue ends at once.

        Args:
            reason, detail: the end reason, with its words, of a request to stop that no person made.

        Returns:
            The state of the run after this.

        Raises:
            NotFound: when there is no such run.
            Conflict: when the request would change nothing: the run has already ended; its command has ended by itself, so
                it cannot be stopped any more; it is being killed, so its outputs cannot be kept any more.
        """
        with self._db.write() as connection:
            columns = (runs.c.state, runs.c.fence, runs.c.attempt, runs.c.wish)
            row = connection.execute(select(*columns).where(runs.c.number == number)).one_or_none()
            if row is None:
                raise NotFound(f"There is no run {number}.")
            check_acceptable(number, row, request)
            if row.wish != request:
                connection.execute(
                    update(runs)
                    .where(runs.c.number == number)
                    .values(wish=request, wish_reason=reason or None, wish_detail=detail, not_before=None)
                )
                shown = "stopping" if request == StopRequest.STOP else "killing"
                _add_event(connection, number, time.time(), "wish", shown, detail)
            is_untouched = row.state == State.MACHINE_REQUESTED and not row.attempt
            if is_untouched:  # nothing was started, so nothing can be kept
                _end(connection, number, row.fence, "kill_requested", "", {"duration_s": 0.0})
        self.on_change(number)
        if not is_untouched:
            return State(row.state)
        self.on_end(number)
        return State.KILLED

    def update(self, number: int, fence: int, **columns: Any) -> None:
        """Write columns other than the state. Raises `StaleFence` as `move` does."""
        with self._db.write() as connection:
            if not connection.execute(_UPDATE, {"run": number, "our_fence": fence, **_checked(columns)}).rowcount:
                raise StaleFence(f"Another worker has run {number}.")

    def release(self, number: int, fence: int) -> None:
        """Record that the machine of a run is free, in any state. Does nothing when another worker has the run by now."""
        with self._db.write() as connection:
            connection.execute(_RELEASE, {"run": number, "our_fence": fence})

    def notice(self, number: int, text: str) -> None:
        """Record a message for the followers of a run."""
        with self._db.write() as connection:
            _add_event(connection, number, time.time(), "notice", "", text)
        self.on_change(number)

    # -- reading ------------------------------------------------------------------------------------------------

    def claimed(self, number: int) -> ClaimedRun:
        """Return the run as its worker sees it now.

        Raises:
            NotFound: when there is no such run.
        """
        with self._db.read() as connection:
            row = connection.execute(_CLAIMED, {"run": number}).one_or_none()
        if row is None:
            raise NotFound(f"There is no run {number}.")
        return claimed_run(row)

    def unreleased(self) -> list[ClaimedRun]:
        """Return the runs that have ended, but whose machine is not free yet."""
        query = select(runs).where(text("held"), runs.c.state.in_(list(FINAL)))
        with self._db.read() as connection:
            return [claimed_run(row) for row in connection.execute(query)]

    def led(self) -> list[int]:
        """Return the numbers of all runs that have a worker: neither queued nor final, oldest first."""
        states = ACTIVE - {State.MACHINE_REQUESTED}
        query = select(runs.c.number).where(runs.c.state.in_(list(states))).order_by(runs.c.number)
        with self._db.read() as connection:
            return list(connection.scalars(query))

    def active_count(self) -> int:
        """Return how many runs have not ended."""
        query = select(func.count()).select_from(runs).where(runs.c.state.in_(list(ACTIVE)))
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)

    def in_use(self) -> tuple[set[str], set[str]]:
        """Return environment keys and image IDs of runs that have not ended or still hold their machine."""
        query = select(runs.c.environment, runs.c.image).where(runs.c.state.in_(list(ACTIVE)) | runs.c.held)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return {row.environment for row in rows} - {None}, {row.image for row in rows} - {None}


def _move(connection: Connection, number: int, fence: int, to: State, text: str, columns: Mapping[str, Any]) -> None:
    values = {"run": number, "our_fence": fence, "state": to, **_checked(columns)}
    if not connection.execute(_MOVE[to], values).rowcount:
        raise _why_not(connection, number, fence, to)
    if columns.get("reason"):
        check_heeded(connection, number, columns["reason"])
    _add_event(connection, number, time.time(), "state", to, text)


def _checked(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return these columns, if all exist: SQLAlchemy ignores values that a statement does not use."""
    if unknown := columns.keys() - _COLUMNS:
        raise TypeError(f"runs have no columns {sorted(unknown)}")
    return columns


def _end(connection: Connection, number: int, fence: int, reason: str, detail: str, columns: Mapping[str, Any]) -> None:
    end = ENDS[reason]
    detail = detail.encode(errors="backslashreplace").decode()  # a file name, or output of a hostile image
    message = end.words(columns.get("exit_code"), columns.get("signal"), detail)
    now = time.time()
    columns = {"ended_at": now, **columns, "reason": reason, "message": message}
    _move(connection, number, fence, end.state, message, columns)
    connection.execute(_ADD_EARLIER, {"run": number})
    add_notifications(connection, number, now)


def _add_event(connection: Connection, number: int, at: float, kind: str, state: str, text: str) -> None:
    clean = text.encode(errors="backslashreplace").decode()
    connection.execute(_ADD_EVENT, {"run": number, "at": at, "kind": kind, "state": state, "text": clean})


def _why_not(connection: Connection, number: int, fence: int, to: State) -> Conflict:
    row = connection.execute(select(runs.c.state, runs.c.fence).where(runs.c.number == number)).one_or_none()
    if row is None or row.fence != fence or row.state in FINAL:
        return StaleFence(f"Run {number} no longer belongs to this worker.")
    return Conflict(f"Run {number} cannot go from {row.state} to {to}.")
