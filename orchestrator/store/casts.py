"""The keys of requests to cast. A client whose server died before it answered sends its request again: it casts once."""

from __future__ import annotations

import time

from sqlalchemy import Connection, bindparam, delete, insert, select

from orchestrator.store.database import Database
from orchestrator.store.tables import casts

_KEPT_S = 86_400.0
"""For how long a request that comes again is known. A client gives up after some minutes."""
_FIND = select(casts.c.number).where(casts.c.key == bindparam("this"), casts.c.noun == bindparam("its_noun"))
_ADD = insert(casts)
_FORGET = delete(casts).where(casts.c.at < bindparam("before"))


class CastBefore(Exception):
    """A request with this key has cast something: what is being cast now must not be.

    Attributes:
        number: of the run, search or workflow.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class CastStore:
    """The keys of requests to cast."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def check_new(self, key: str, noun: str) -> None:
        """Check that no request with this key has cast anything.

        Args:
            key: "" for a request without one, which is always new.
            noun: what it casts: `run`, `search` or `workflow`.

        Raises:
            CastBefore: when one has.
        """
        if key:
            with self._db.read() as connection:
                _check(connection, key, noun)


def add_cast(connection: Connection, key: str, noun: str, number: int) -> None:
    """Record what a request has cast, in the same transaction. Raises as `CastStore.check_new`."""
    if key:
        _check(connection, key, noun)
        now = time.time()
        connection.execute(_ADD, {"key": key, "noun": noun, "number": number, "at": now})
        connection.execute(_FORGET, {"before": now - _KEPT_S})


def _check(connection: Connection, key: str, noun: str) -> None:
    number = connection.scalar(_FIND, {"this": key, "its_noun": noun})
    if number is not None:
        raise CastBefore(number)
