"""Says what trackers have logged besides metrics, and which values could not be recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from orchestrator.store.trackers import TrackerSource
from orchestrator.telemetry.trackers.pictures import FOLDER

NOT_FINITE, UNNAMED, IMAGE, SAVED = "not finite", "unnamed", "image", "saved image"
WORDS = {
    "tensorboard": "TensorBoard",
    "wandb": "wandb",
    "mlflow": "MLflow",
    "trackio": "Trackio",
    "lightning": "Lightning",
}
"""The names of the trackers, by the first word of a source."""
_KINDS = {"histogram": "histogram", IMAGE: "image", "audio": "audio clip", "text": "text"}


def sentences(sources: Sequence[TrackerSource]) -> Iterator[tuple[str, str]]:
    """Yield the sentences about the sources of a run, each with its beginning."""
    counts: Counter[str] = Counter()
    for source in sources:
        counts.update(source.counts)
    if counts[NOT_FINITE]:
        start = "Values that are NaN or infinite are not recorded as metrics: "
        yield start, f"{start}{counts[NOT_FINITE]}, in the files of {_who(sources, NOT_FINITE)}"
    if counts[UNNAMED]:
        start = "Values whose name or step is too long are not recorded as metrics: "
        yield start, f"{start}{counts[UNNAMED]}, in the files of {_who(sources, UNNAMED)}"
    if kinds := [_count(counts[kind], word) for kind, word in _KINDS.items() if counts[kind]]:
        start = "The event files of TensorBoard also hold "
        saved = f"; saved below {FOLDER}: {_count(counts[SAVED], 'image')}" if counts[SAVED] else ""
        yield start, f"{start}{', '.join(kinds)}{saved}"


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _who(sources: Sequence[TrackerSource], kind: str) -> str:
    found = {WORDS.get(item.source.partition(":")[0], item.source) for item in sources if item.counts.get(kind)}
    return ", ".join(sorted(found))
