"""Differences between runs."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.client.transport import Transport, quote
from orchestrator.records.compare import DiffRecord, diff_from_wire
from orchestrator.spec.type_checks import several

_LIMIT_S = 60.0


class Compare:
    """Compares runs."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def diff(self, before: int | str, after: int | str, sections: Sequence[str] = ()) -> DiffRecord:
        """Compare two runs.

        Args:
            before, after: references of the runs.
            sections: of spec, environment, code, outputs, metrics and result; all by default.
        """
        path = f"/runs/{quote(before)}/diff/{quote(after)}"
        return diff_from_wire(
            self._call("GET", path, params={"section": several("sections", sections)}, read_limit_s=_LIMIT_S)
        )
