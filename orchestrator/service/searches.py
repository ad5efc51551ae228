"""Searches over parameters: cast, listed, inspected, stopped, resumed. `controllers/searches` casts their trials."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from orchestrator.records.searches import SearchCastRecord, SearchRecord, SearchSummary
from orchestrator.service.access import Access, Who
from orchestrator.service.runs import Runs
from orchestrator.spec.search import SearchSpec
from orchestrator.states import StopRequest
from orchestrator.store import CastBefore, Store

_SEEDS = 1 << 31


class Searches:
    """The searches of one home.

    Args:
        store: of searches.
        access: resolves references.
        runs: checks the specs of trials.
        wake: wakes the controllers' loop.
    """

    def __init__(self, store: Store, access: Access, runs: Runs, wake: Callable[[], None]) -> None:
        self._store, self._access, self._runs, self._wake = store.searches, access, runs, wake

    def cast(self, who: Who, search: SearchSpec, *, key: str = "") -> SearchCastRecord:
        """Record a search and begin it. Everything that can be checked is checked now, before any run exists.

        Args:
            key: of the request. One with the key of an earlier request casts nothing, and gets that search.

        Raises:
            SpellError: as `Runs.cast`.
        """
        search.check_varies()
        new, warnings = self._runs.check(who, search.spec, lambda resource: self._access.mountable(who, resource))
        seed = random.randrange(_SEEDS) if search.seed is None else search.seed  # noqa: S311 - no secret depends on it
        # the executor is chosen now: if it cannot run anything later, the search waits for it
        spec = dataclasses.replace(new.spec, executor=new.executor)
        try:
            number = self._store.add(dataclasses.replace(search, spec=spec, seed=seed), key)
        except CastBefore as before:
            number = before.number
        self._wake()
        return SearchCastRecord(number, warnings)

    def list(self, who: Who, *, limit: int, before: int) -> list[SearchSummary]:
        """The newest `limit` searches before number `before`, newest last."""
        return self._store.summaries(limit=limit, before=before)

    def get(self, who: Who, reference: str) -> SearchRecord:
        """The whole record of a search, by number or `latest`."""
        return self._store.record(self._access.resolve_search(who, reference))

    def request_stop(self, who: Who, reference: str, request: StopRequest) -> SearchRecord:
        """Stop or kill a search: no further trial starts, and running trials are stopped or killed. Raises as the store."""
        number = self._access.resolve_search(who, reference)
        self._store.request_stop(number, request)
        self._wake()
        return self._store.record(number)

    def resume(self, who: Who, reference: str) -> SearchRecord:
        """Resume a search that has ended: cast trials that failed or were never cast. Raises as the store."""
        number = self._access.resolve_search(who, reference)
        self._store.resume(number)
        self._wake()
        return self._store.record(number)
