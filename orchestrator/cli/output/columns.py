"""Chooses which columns of a table a terminal has room for, and how wide each may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

GAP = 2
"""Cells between two columns."""
_LEAST = 12  # a text of this width can still be recognised
_TEXTS = frozenset(
    {
        "BEST",
        "COMMAND",
        "DESCRIPTION",
        "LABELS",
        "LAST LINE",
        "MESSAGE",
        "NAME",
        "NEEDS",
        "PROJECT",
        "REPOSITORY",
        "WHAT",
    }
)
"""Columns of words, which may be cut. The others hold numbers, states and times: cut, they would say something else."""
_FIRST_TO_GO = (
    *("DESCRIPTION", "LABELS", "PROJECT", "COMMIT", "REPOSITORY", "MACHINE", "PROCESSES", "NEEDS"),
    *("DURATION", "COUNT", "MEAN", "CREATED", "COMMAND"),
)
"""Those that a person misses least, the least missed first."""


def fit(headers: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], room: int) -> dict[int, int]:
    """Return the width of each column that stays, by its place.

    Words are cut first. Then columns go: those that say nothing, those that say least, and the others from the right.
    The first column, which names the row, always stays, and the last stays longer than those between.

    Args:
        widths: which the columns need to be shown whole.
        room: the width of the terminal.
    """
    texts = {place for place, header in enumerate(headers) if place == 0 or header in _TEXTS}
    least = [min(width, _LEAST) if place in texts else width for place, width in enumerate(widths)]
    kept = list(range(len(headers)))
    for place in _leaving(headers, rows):
        if _total(least, kept) <= room:
            break
        kept.remove(place)
    words = {place: widths[place] for place in kept if place in texts}
    shares = _shared(words, room - _total(widths, kept) + sum(words.values()))
    return {place: shares.get(place, widths[place]) for place in kept}


def _leaving(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[int]:
    """Yield the places of all columns but the first, in the order in which they go."""
    last = len(headers) - 1
    places = [*range(last - 1, 0, -1), *([last] if last else [])]
    empty = [place for place in places if all(row[place] == "-" for row in rows)]
    minor = [headers.index(header) for header in _FIRST_TO_GO if header in headers[1:]]
    yield from dict.fromkeys([*empty, *minor, *places])


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[place] for place in kept) + GAP * (len(kept) - 1)


def _shared(wanted: Mapping[int, int], room: int) -> dict[int, int]:
    """Share room among columns: narrow ones get what they want, the others equal parts of the rest."""
    shares = {}
    for count, (place, width) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        shares[place] = min(width, max(0, room) // (len(wanted) - count))
        room -= shares[place]
    return shares
