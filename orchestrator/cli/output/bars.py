"""Progress of something long: a bar on a terminal, nothing elsewhere. The bar itself is loaded only for one."""

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
        """The same chunks."""
        return chunks

    def advance(self, size: int) -> None:
        """So many bytes more are done."""

    def beside(self, _title: str, _total: int) -> Callable[[int], object]:
        """Progress of something else is not shown either."""
        return self.advance

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """There is nothing to pause."""
        return contextlib.nullcontext()


def bar(title: str, total: int) -> Bar | Silent:
    """Progress over `total` bytes: shown where somebody sits at a terminal and it takes a while."""
    if total < _FROM_BYTES or not sys.stderr.isatty():
        return Silent()
    from orchestrator.cli.output.progress import Bar  # 26 ms: rich; most of what is copied is small

    return Bar(title, total)
