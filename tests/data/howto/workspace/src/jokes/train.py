"""A training that needs a package of the same workspace."""

from importlib.metadata import version
from pathlib import Path

import words


def main() -> None:
    Path("model.txt").write_text(" ".join(words.of("why did the chicken cross the road")))
    print(f"jokes {version('jokes')}, with words {version('words')}")
