"""Time to upload many small files and to copy them back, compared with `cp -r`."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
from pathlib import Path

from benchmarks.measure import BIN, Bench, Row, command, ratio, seconds

_FILES = 10_000
_FOLDERS = 20
_FILE_BYTES = 2_000
_REPEATS = 5


def uploads(bench: Bench) -> list[Row]:
    """Measure the commands in turns with `cp -r`. No file is removed meanwhile, because a file system that has just
    removed many files makes new ones slowly. Before each command all data is written to the disk: an upload waits for
    that, `cp` does not, so the next command would wait in its place."""
    source = bench.repo.parent / "many"
    _fill(source)
    spell = [str(BIN / "spell")]
    counter = itertools.count()
    times: dict[str, list[float]] = {"cp": [], "upload": [], "again": [], "back": []}
    for number in itertools.islice(counter, _REPEATS + 1):
        name, copy = f"many{number}", bench.repo.parent / f"copy{number}"
        measured = {
            "cp": command(["cp", "-r", str(source), str(copy)], bench.env, bench.repo),
            "upload": command([*spell, "upload", "-n", name, str(source)], bench.env, bench.repo),
            "again": command([*spell, "upload", "-n", name, str(source)], bench.env, bench.repo),
            "back": command([*spell, "cp", f"uploads/{name}", f"{copy}-back"], bench.env, bench.repo),
        }
        for what, action in measured.items():
            os.sync()
            times[what].append(seconds(action))
    subprocess.run(["diff", "-r", source, bench.home.uploads / "many0"], check=True)
    medians = {what: statistics.median(column[1:]) for what, column in times.items()}
    base_s = medians["cp"]
    return [
        Row(f"C = `cp -r` of {_FILES:,} files of {_FILE_BYTES:,} bytes", f"{base_s * 1000:.0f} ms", "", holds=True),
        ratio("`spell upload` of them", medians["upload"], base_s, 3, "C"),
        ratio("… again, nothing has changed", medians["again"], base_s, 3, "C"),
        ratio("`spell cp` of them", medians["back"], base_s, 6, "C"),
    ]


def _fill(folder: Path) -> None:
    for number in range(_FILES):
        place = folder / str(number % _FOLDERS)
        if number < _FOLDERS:
            place.mkdir(parents=True)
        (place / f"{number}.bin").write_bytes(os.urandom(_FILE_BYTES))
