"""Time to cast a run from a plain folder of many files, compared with the same files in a git repository."""

from __future__ import annotations

import subprocess

from benchmarks.measure import BIN, Bench, Row, command, medians, ratio

_FILES = 10_000
_FOLDERS = 100
_REPEATS = 5


def folders(bench: Bench) -> list[Row]:
    """Measure both in turns, with all blobs at the server: what is left is finding, hashing and asking."""
    for name in ("plain", "tracked"):
        for number in range(_FILES):
            place = bench.repo.parent / name / str(number % _FOLDERS)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.py").write_text(f"number = {number}\n" * 20)
    tracked = bench.repo.parent / "tracked"
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=tracked, check=True)
    spell = [str(BIN / "spell"), "run", "-b", "true"]
    actions = [command(spell, bench.env, bench.repo.parent / name) for name in ("plain", "tracked")]
    plain_s, tracked_s = medians(_REPEATS, *actions)
    return [
        Row(
            f"G = `spell run -b true` in a repository of {_FILES:,} files", f"{tracked_s * 1000:.0f} ms", "", holds=True
        ),
        ratio("… in a folder with these files, without git", plain_s, tracked_s, 1.2, "G"),
    ]
