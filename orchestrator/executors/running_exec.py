"""The contract of an additional command beside that of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator


class RunningExec(ABC):
    """An additional, interactive command beside that of a run."""

    run_is_over = False
    """Whether it ended because its run did; set by `exit_code`."""

    @abstractmethod
    def read(self) -> Iterator[tuple[int, bytes]]:
        """Yield its output as it comes: 1 and bytes of stdout, 2 and bytes of stderr. Ends when the command ends."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write to its input; b"" ends the input."""

    @abstractmethod
    def resize(self, columns: int, rows: int) -> None:
        """Set the size of its terminal."""

    @abstractmethod
    def exit_code(self) -> int:
        """Return its exit code. Call it after `read` has ended."""

    @abstractmethod
    def close(self) -> None:
        """End the command: the client has gone."""
