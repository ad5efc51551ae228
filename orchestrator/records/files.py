"""Files: outputs of runs, and lines of `spell ls`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """One output of a run.

    Attributes:
        path: relative to `runs/N`.
        sha256: None until it has been computed in the background.
        note: why it was not kept; "" if it was.
    """

    run: int
    path: str
    size: int
    mode: str
    sha256: str | None
    note: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A line of `spell ls`.

    Attributes:
        link: the target of a symbolic link, else "".
        final: False for a file of a run that has not ended, which may still change.
    """

    path: str
    size: int
    modified_at: float
    is_dir: bool
    link: str = ""
    final: bool = True
