"""The progress bar of a long transfer. It is loaded only for a bar, because rich loads slowly."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class Bar:
    """A bar on stderr, for `total` bytes."""

    def __init__(self, title: str, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(title, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def wrap(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the same chunks and count their bytes."""
        for chunk in chunks:
            yield chunk
            self._progress.advance(self._task, len(chunk))

    def advance(self, size: int) -> None:
        """Add `size` bytes to the bar."""
        self._progress.advance(self._task, size)

    def beside(self, title: str, total: int) -> Callable[[int], object]:
        """Add a second bar, and return a callback that adds bytes to it."""
        return functools.partial(self._progress.advance, self._progress.add_task(title, total=total))

    def done(self, count: int) -> None:
        """Set the bar to `count` bytes."""
        self._progress.update(self._task, completed=count)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bar, for example during a question."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()
