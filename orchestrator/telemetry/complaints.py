"""Logs a failure that repeats only when it changes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator

from orchestrator.errors import SpellError


class Complaints:
    """Logs repeated failures: our own errors in one line, when the message changes; other errors with their traceback.

    Args:
        words: the message, with a `%d` for the number of the run.
    """

    def __init__(self, log: logging.Logger, words: str) -> None:
        self._log, self._words = log, words
        self._said: dict[int, str] = {}

    @contextlib.contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Log every error that the block raises for this run, and suppress it."""
        try:
            yield
        except SpellError as error:
            if self._said.get(number) != error.message:
                self._said[number] = error.message
                self._log.warning("%s: %s", self._words % number, error.message)
        except Exception:
            self._log.exception(self._words, number)

    def forget_all_but(self, numbers: Collection[int]) -> None:
        """Forget the failures of all other runs."""
        self._said = {number: said for number, said in self._said.items() if number in numbers}
