"""Ports that runs listen on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortRecord:
    """A TCP port on which a process of a run listens; `program` is the name of that process."""

    port: int
    address: str
    program: str
