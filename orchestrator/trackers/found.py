"""One run that was found in the files of a tracker."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.formats.records import Point
from orchestrator.records.imports import ImportedRun
from orchestrator.runtime import LONGEST_NAME, MOST_STEP

ELSEWHERE = "--artifacts-from DIR takes what lies below DIR"


@dataclass(frozen=True, slots=True)
class Found:
    """A run of a tracker.

    Attributes:
        run: what is recorded of it.
        title: its name for people, as the tracker has it.
        parent: the origin of the run that it belongs to; "" for none.
        points: reads the values of its metrics.
        files: its artifacts, by the paths that they have as outputs.
        log: the output of its command; None where the tracker has none.
        refusal: why it is not imported, unless the person asks for it: it has no end, or a file is damaged. "" for none.
        is_gone: whether it lies in the tracker's bin.
    """

    run: ImportedRun
    title: str
    points: Callable[[], Iterator[Point]]
    parent: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)
    log: Path | None = None
    refusal: str = ""
    is_gone: bool = False

    def write_metrics(self, path: Path) -> list[str]:
        """Write its metrics as a run's `send_metric` does. Returns sentences about what cannot be kept."""
        left_out: Counter[str] = Counter()
        with path.open("w", encoding="utf-8") as file:
            for name, step, value, at in self.points():
                if math.isfinite(value) and abs(step) <= MOST_STEP and 0 < len(name) <= LONGEST_NAME:
                    words = {"name": name, "step": step, "value": value, "at": at or self.run.started_at or 0.0}
                    file.write(json.dumps(words) + "\n")
                else:
                    left_out[name[:LONGEST_NAME]] += 1
        if not left_out:
            return []
        names = ", ".join(f"{name} ({count})" for name, count in left_out.most_common(10))
        return [f"Values of metrics that are not finite were left out: {names}"]


def is_within(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path leads, through all links, to one of these folders or below it."""
    real = path.resolve()
    return any(real.is_relative_to(root.resolve()) for root in roots)


def files_below(root: Path, within: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Return the files below a folder by their relative paths, and sentences about what was left out.

    Args:
        within: folders out of which no link is followed: a store that somebody else made may link to anything of this machine.
    """
    if not root.is_dir():
        return {}, []
    if not is_within(root, within):
        return {}, [f"{root} leads out of the tracker's own folders, and was left out: {ELSEWHERE}"]
    files, notices = {}, []
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*names, *links]:
            path = Path(folder, name)
            shown = path.relative_to(root).as_posix()
            if name in links or not path.is_file():
                notices.append(f"{shown!r} of its artifacts is no file, or a link to none, and was left out")
            elif path.is_symlink() and not is_within(path, within):
                notices.append(
                    f"{shown!r} of its artifacts is a link to {str(path.resolve())!r}, and was left out: {ELSEWHERE}"
                )
            else:
                files[shown] = path
    return files, notices
