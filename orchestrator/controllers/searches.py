"""Casts the trials of searches, each as a run. All state is in the store; see `SearchController.advance`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping

from orchestrator.errors import Conflict, DiskFull, ExecutorFailed, SpellError, StoreBusy
from orchestrator.service import OWNER, Service
from orchestrator.spec.search import BAYESIAN, SearchSpec
from orchestrator.spec.validate import read_search
from orchestrator.states import FINAL, State, StopRequest, TrialState
from orchestrator.store import Store
from orchestrator.store.searches import StoredSearch, StoredTrial

_STEPS_AT_ONCE = 100  # then the other searches have their turn


class SearchController:
    """Casts the trials of all searches of a home, each exactly once.

    Args:
        store: of searches and runs.
        service: casts runs as the owner of the home.
        wake: makes the loop call `advance` soon.
    """

    def __init__(self, store: Store, service: Service, wake: Callable[[], None]) -> None:
        self._store, self._service, self._wake = store.searches, service, wake
        self._specs: dict[int, SearchSpec] = {}

    def advance(self) -> None:
        """Do what can be done now for each search. May be called at any time; the next server continues."""
        errors: list[Exception] = []
        for number in self._store.running():
            try:
                self._advance(number)
            except Exception as error:  # the other searches continue
                errors.append(error)
        if errors:
            raise ExceptionGroup("searches that wait", errors)

    def _advance(self, number: int) -> None:
        for _ in range(_STEPS_AT_ONCE):
            if not self._lead(self._store.stored(number)):
                return
        self._wake()

    def _lead(self, stored: StoredSearch) -> bool:
        """Move a search one step. Returns whether there may be more to do."""
        try:
            search = self._spec(stored)
        except SpellError as error:
            return self._give_up(stored, error)
        ended = [trial for trial in stored.running if trial.run_state in FINAL]
        for trial in ended:
            self._settle(stored, search, trial)
        if ended:
            return True
        if stored.stop_request:
            self._end_runs(stored, stored.stop_request)
        elif len(stored.running) < search.at_once and (stored.waiting or stored.cast < search.count):
            self._cast_trial(stored, search)
            return True
        if not stored.running:
            self._store.end(stored.number, self._said_of_end(stored, search))
            self._specs.pop(stored.number, None)
        return False

    def _give_up(self, stored: StoredSearch, error: SpellError) -> bool:
        """End a search that this version cannot read, as soon as no trial of it runs. Returns as `_lead`."""
        words = f"This version cannot read the spec of the search: {error.message}"
        ended = [trial for trial in stored.running if trial.run_state in FINAL]
        for trial in ended:
            self._store.settle(stored.number, trial.number, TrialState.FAILED, None, words)
        if stored.stop_request:
            self._end_runs(stored, stored.stop_request)
        if not stored.running:
            self._store.end(stored.number, words)
        return bool(ended)

    def _spec(self, stored: StoredSearch) -> SearchSpec:
        """The spec, kept in memory: it never changes, and checking many values takes long."""
        if stored.number not in self._specs:
            self._specs[stored.number] = read_search(stored.body)
        return self._specs[stored.number]

    def _settle(self, stored: StoredSearch, search: SearchSpec, trial: StoredTrial) -> None:
        """Record how a trial ended. A trial that was stopped with its search is cast again if the search is resumed."""
        assert trial.run is not None
        state, value, words = TrialState.FAILED, None, ""
        if trial.run_state == State.COMPLETE or (trial.run_state == State.STOPPED and not stored.stop_request):
            state = TrialState.COMPLETE if trial.run_state == State.COMPLETE else TrialState.STOPPED
            value, words = self._measured(search, trial.run)
        self._store.settle(stored.number, trial.number, state, value, words)

    def _measured(self, search: SearchSpec, run: int) -> tuple[float | None, str]:
        """The value of a run's metric, or the reason why it has none."""
        if not search.metric:
            return None, ""
        value = self._service.metrics.value(run, search.metric, search.metric_agg)
        if value is None:
            return None, f"it did not send the metric {search.metric!r}"
        if not math.isfinite(value):
            return None, f"its values of {search.metric!r} are too large to be compared"
        return value, ""

    def _end_runs(self, stored: StoredSearch, request: StopRequest) -> None:
        for trial in stored.running:
            if trial.run_stop_request not in (request, StopRequest.KILL):
                with contextlib.suppress(Conflict):  # the search has just ended
                    self._service.runs.request_stop(OWNER, str(trial.run), request)

    def _cast_trial(self, stored: StoredSearch, search: SearchSpec) -> None:
        """Cast the next trial: one that waits to be cast again, or a new one."""
        again = stored.waiting[0] if stored.waiting else None
        number, trial = stored.number, again.number if again else stored.cast + 1
        params = again.params if again else self._params(stored, search, trial)
        try:
            cast = self._service.runs.cast(
                OWNER,
                dataclasses.replace(search.spec, params=params),
                reuse=search.reuse,
                with_run=lambda connection, run: self._store.cast(connection, number, trial, params, run),
            )
            if cast.reused:
                value, words = self._measured(search, cast.number)
                state, words = TrialState.COMPLETE, words or "taken from before, as it is identical"
                self._store.settle_uncast(number, trial, params, state, run=cast.number, value=value, message=words)
        except StoreBusy:
            raise  # the next pass tries again
        except (DiskFull, ExecutorFailed) as error:  # both pass: a trial must not fail for them
            self._store.say(number, f"It waits: {error.message}")
            raise
        except SpellError as error:
            words = error.whole
            self._store.settle_uncast(number, trial, params, TrialState.FAILED, message=words)

    def _params(self, stored: StoredSearch, search: SearchSpec, trial: int) -> Mapping[str, str]:
        if search.kind != BAYESIAN:
            return search.params(trial)
        tried = self._store.trials(stored.number)
        from orchestrator.controllers.bayesian import SAMPLER, Tried, suggest  # 149 ms: optuna; few servers need it

        if stored.sampler != SAMPLER:
            self._store.use_sampler(stored.number, SAMPLER, trial)
        return suggest(
            search, trial, [Tried(item.params, item.value, item.state == TrialState.RUNNING) for item in tried]
        )

    def _said_of_end(self, stored: StoredSearch, search: SearchSpec) -> str:
        """The message of a search that has a metric when no trial sent it."""
        trials = self._store.trials(stored.number)
        well = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.STOPPED)]
        if not search.metric or not well or any(trial.value is not None for trial in well):
            return ""
        sent = ", ".join(self._store.sent(stored.number))
        return f"No trial sent the metric {search.metric!r}. They sent {f'these: {sent}' if sent else 'none at all'}."
