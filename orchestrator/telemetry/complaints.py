"""What fails again and again, logged once in a while."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator

from orchestrator.errors import SpellError


class Complaints:
    """Logs what fails again and again: an error of ours in one line, when its words change; others with their traceback.

    Args:
        words: what failed, with a `%d` for the number of the run.
    """

    def __init__(self, log: logging.Logger, words: str) -> None:
        self._log, self._words = log, words
        self._said: dict[int, str] = {}

    @contextlib.contextmanager
    def of(self, number: int) -> Iterator[None]:
        """What is done for this run; whatever it raises is logged, and goes no further."""
        try:
            yield
        except SpellError as error:
            if self._said.get(number) != error.message:
                self._said[number] = error.message
                self._log.warning("%s: %s", self._words % number, error.message)
        except Exception:
            self._log.exception(self._words, number)

    def forget_all_but(self, numbers: Collection[int]) -> None:
        """Only these runs may still fail."""
        self._said = {number: said for number, said in self._said.items() if number in numbers}
