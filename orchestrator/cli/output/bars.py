"""Progress of a long transfer: a bar on a terminal, nothing elsewhere. The module of the bar is loaded only for one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from orchestrator.cli.output.progress import Bar

_FROM_BYTES = 8 << 20


class Silent:
    """Progress that is not shown."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def wrap(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Return the same chunks."""
        return chunks

    def advance(self, size: int) -> None:
        """Do nothing; `size` more bytes are done."""

    def beside(self, _title: str, _total: int) -> Callable[[int], object]:
        """Return a callback that shows nothing either."""
        return self.advance

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()


def bar(title: str, total: int) -> Bar | Silent:
    """Return the progress of `total` bytes: a bar if stderr is a terminal and there are many bytes, else a silent one."""
    if total < _FROM_BYTES or not sys.stderr.isatty():
        return Silent()
    from orchestrator.cli.output.progress import Bar  # 26 ms: rich; most copies are small

    return Bar(title, total)
