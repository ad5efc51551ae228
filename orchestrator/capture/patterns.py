"""Patterns of files that are not sent, in the format of .gitignore, as options of `git ls-files`.

They are those of git itself, so git applies them, also where there is no repository. As options they win over the rules
of .gitignore: `!data/` in `.spellignore` sends a folder that git ignores.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence

NEVER = (
    "__pycache__/", "node_modules/", ".ipynb_checkpoints/", ".hg/", ".svn/", ".tox/", ".nox/", ".mypy_cache/",
    ".pytest_cache/", ".ruff_cache/", ".DS_Store",
)  # fmt: skip
"""What programs make by themselves, and no run needs."""
_SECRET = (
    ".env", ".env.*", "*.env", ".netrc", ".pypirc", ".git-credentials", ".htpasswd", "*.pem", "id_rsa*", "id_dsa*",
    "id_ecdsa*", "id_ed25519*", "*credentials*.json", "kaggle.json", "secrets.*",
)  # fmt: skip
_NO_SECRET = ("*.example", "*.sample", "*.template", "*.dist", "*.py", "*.pub")


def is_secret(path: str) -> bool:
    """Whether a file is, by its name, one of secrets, which belong neither into git nor into a snapshot."""
    return _names().fullmatch(path.rpartition("/")[2]) is not None


@functools.cache  # one pattern for all names: a folder has many files
def _names() -> re.Pattern[str]:
    secret, others = ("|".join(map(fnmatch.translate, words)) for words in (_SECRET, _NO_SECRET))
    return re.compile(f"(?!{others})(?:{secret})")


def lines_of(text: str) -> tuple[str, ...]:
    """The patterns in the text of a `.spellignore`: an option of git takes no comment and no blank at the end."""
    found = (re.sub(r"(?<!\\)\s+$", "", line) for line in text.removeprefix("\ufeff").splitlines())
    return tuple(line for line in found if line and not line.startswith("#"))


def options(patterns: Iterable[str], folder: bytes = b"") -> Iterator[str]:
    """Yield the patterns as options of `git ls-files`.

    Args:
        folder: where git lists the files, `libs/x/` below the folder of the patterns, or b"" in that folder itself.
    """
    for pattern in patterns:
        if inner := _below(pattern, os.fsdecode(folder)):
            yield f"--exclude={inner}"


def _below(pattern: str, folder: str) -> str:
    """A pattern as it counts in a folder; "" where it matches nothing there."""
    negation, plain = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    if not folder or plain.startswith("**/") or "/" not in plain.rstrip("/"):
        return pattern
    plain = plain.lstrip("/")
    return f"{negation}/{plain.removeprefix(folder)}" if plain.startswith(folder) else ""


def exactly(path: bytes) -> str:
    """The pattern that matches one path: a file, or with `/` at its end a folder."""
    return "/" + re.sub(r"([\\*?\[\] ])", r"\\\1", os.fsdecode(path))


def has_exceptions(patterns: Sequence[str]) -> bool:
    """Whether one of them asks for what others leave out."""
    return any(pattern.startswith("!") for pattern in patterns)
