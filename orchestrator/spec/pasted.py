"""Lines pasted from articles, whose typesetting turns `--` into a long dash, and quotes into typographic ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestrator.errors import InvalidConfig

DASHES = "‐‑‒–—―−﹘﹣－"
_SINGLE, _DOUBLE = "‘’‚‛′", "“”„‟«»″"
QUOTES = _SINGLE + _DOUBLE
_ENDS = {"„": "“”", "‚": "‘’", "“": "”", "‘": "’", "«": "»", "»": "«", "‟": "”"}
"""The quotes that end what one begins; others end with themselves."""
_PLAIN = str.maketrans({**dict.fromkeys(_SINGLE, "'"), **dict.fromkeys(_DOUBLE, '"')})


def check_pasted(command: str) -> None:
    """Refuse a command that begins with a dash or quote that is none to a shell.

    Raises:
        InvalidConfig: with the command as it may have been meant.
    """
    if kind := kind_of(text := command.strip()):
        meant = " ".join(meant_by(text.split(), ()))
        raise InvalidConfig(
            f"The command begins with {text[0]}, which is no {kind} to a shell.", f"Write it as: {meant}"
        )


def kind_of(word: str) -> str:
    """What a word begins with: a `dash` or a `quote` that is none to a shell; "" for anything else."""
    return "" if not word else "dash" if word[0] in DASHES else "quote" if word[0] in QUOTES else ""


def meant_by(words: Sequence[str], options: Collection[str]) -> list[str]:
    """The words as they may have been typed before they were typeset.

    Args:
        options: a dash alone stands before a name of these, or else for `--`.
    """
    found: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word[:1] and word[0] in QUOTES:
            ends = _ENDS.get(word[0], word[0])
            while left and not (word[-1] in ends and len(word) > 1):
                word += " " + left.pop(0)
            found.append(word[1 : -1 if word[-1] in ends else None].translate(_PLAIN))
        elif word[:1] and word[0] in DASHES:
            name = word.lstrip(DASHES + "-")
            if not name and left and f"--{left[0]}" in options:
                name = left.pop(0)
            found.append(f"-{name}" if len(name) == 1 else f"--{name}")
        else:
            found.append(word)
    return found
