"""Notifications of the end of runs: recorded in the transaction of the end, and done when the webhook has answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, insert, select, update

from orchestrator.store.database import Database
from orchestrator.store.tables import notifications, runs

_SPEC = select(runs.c.spec).where(runs.c.number == bindparam("run"))  # built once, because every run that ends uses it


@dataclass(frozen=True, slots=True)
class Notification:
    """A webhook that will be called about the end of a run."""

    id: int
    run: int
    url: str = field(repr=False)  # knowing the URL may be enough to write there
    tries: int


class WebhookStore:
    """Notifications of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def due(self, now: float, limit: int) -> list[Notification]:
        """Return the notifications that are due, the longest waiting first."""
        columns = (notifications.c.id, notifications.c.run, notifications.c.url, notifications.c.tries)
        query = select(*columns).where(~notifications.c.done, notifications.c.next_at <= now)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(notifications.c.next_at).limit(limit))
            return [Notification(*row) for row in rows]

    def next_at(self) -> float | None:
        """Return when the next one is due; None when none is left."""
        query = select(notifications.c.next_at).where(~notifications.c.done).order_by(notifications.c.next_at).limit(1)
        with self._db.read() as connection:
            return connection.scalar(query)

    def tried(self, number: int, answer: str, next_at: float | None) -> None:
        """Record an attempt to send a notification.

        Args:
            number: its id.
            answer: the outcome, as text.
            next_at: when to try again; None for never.
        """
        values = {"answer": answer, "done": next_at is None} | ({} if next_at is None else {"next_at": next_at})
        with self._db.write() as connection:
            connection.execute(
                update(notifications)
                .where(notifications.c.id == number)
                .values(tries=notifications.c.tries + 1, **values)
            )

    def forget(self) -> None:
        """Record that nothing more is to be sent."""
        with self._db.write() as connection:
            connection.execute(update(notifications).where(~notifications.c.done).values(done=True))


def add_notifications(connection: Connection, number: int, now: float) -> None:
    """Record the notifications about the end of this run, in the transaction of that end."""
    spec = connection.scalar(_SPEC, {"run": number}) or "{}"
    urls: Sequence[str] = json.loads(spec).get("notify", ())
    if urls:
        connection.execute(insert(notifications), [{"run": number, "url": url, "next_at": now} for url in urls])
