"""Sizes as people write them. Units count by 1024, but for the memory of GPUs, which makers state by 1000."""

from __future__ import annotations

import re

from orchestrator.errors import InvalidConfig

# Not compiled here: every `spell run` loads this module.
_SIZE = r"(?i)\s*(\d{1,15}(?:\.\d{1,9})?) ?([kmgt]?)(i?)b?\s*"
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def size_bytes(text: str, base: int = 1024) -> int:
    """The bytes of `500M`, `20GB`, `1.5TiB`; without a unit, the number itself.

    Args:
        base: 1000 for units by 1000; those with an `i` (`GiB`) always count by 1024.

    Raises:
        InvalidConfig: it is no size.
    """
    found = re.fullmatch(_SIZE, text, re.ASCII)
    if not found:
        raise InvalidConfig(f"{text!r} is not a size; write it as 500M or 20GB.")
    factor: int = (1024 if found[3] else base) ** _POWERS[found[2].upper()]
    return round(float(found[1]) * factor)


def size_text(size: int, base: int = 1024) -> str:
    """The shortest text for which `size_bytes` returns this size: `32G`."""
    for unit in "TGMK":
        factor = base ** _POWERS[unit]
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
