"""Environments of runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnvironmentRecord:
    """The environment that a run would get.

    Attributes:
        key: identifies it; "" while its image is not here, or projects of its code, which say what they need, are not built.
        is_built: whether it is there, so that a run need not wait for it.
        python: the full version of its Python, once it is built.
        packages: the installed packages with their versions, once it is built.
        executor: the executor that the run would have.
    """

    key: str
    is_built: bool
    python: str
    packages: list[str]
    executor: str
