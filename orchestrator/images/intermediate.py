"""Removes intermediate images of the classic builder that a killed server left.

A label on each names the home; the final image loses the label. BuildKit makes no intermediate images.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter

from orchestrator.engine import Engine, EngineError
from orchestrator.records.gc import RemovedRecord

LABEL = "spell.step"
_GONE_OR_NEEDED = (404, 409)


def marked(dockerfile: str, engine: Engine) -> str:
    """Return the Dockerfile with a label for its intermediate images."""
    return re.sub(r"(?m)^(FROM .*)$", rf'\1\nLABEL {LABEL}="{_key(engine)}"', dockerfile)


def remove_left(engine: Engine, before: float, *, dry_run: bool) -> list[RemovedRecord]:
    """Remove those on which no other image is built, the uppermost first. No build may run meanwhile.

    Args:
        engine: the engine.
        before: remove only images made before this moment, in seconds since the epoch.
        dry_run: remove nothing.

    Raises:
        EngineError: when the engine does not answer.
    """
    with engine.translated_errors():
        images = {image["Id"]: image for image in engine.api.images(all=True)}
    above = Counter(image["ParentId"] for image in images.values())
    steps = {key for key, image in images.items() if (image["Labels"] or {}).get(LABEL) == _key(engine)}
    left = [key for key in steps if not above[key] and images[key]["Created"] < before]
    removed = []
    while left:
        step = left.pop()
        below = images[step]["ParentId"]
        if not dry_run and not _is_removed(engine, step):
            continue
        size = int(images[step]["Size"]) - (int(images[below]["Size"]) if below in images else 0)
        removed.append(RemovedRecord(f"image {step}", max(0, size), "image"))
        above[below] -= 1
        if below in steps and not above[below]:
            left.append(below)
    return removed


def _is_removed(engine: Engine, image: str) -> bool:
    try:
        with engine.translated_errors():
            engine.api.remove_image(image, noprune=True)
    except EngineError as error:
        if error.status not in _GONE_OR_NEEDED:
            raise
        return False
    return True


def _key(engine: Engine) -> str:
    """Return text that stands for a home: others can see the history of an image, so it must not name it."""
    return hashlib.sha256(os.fsencode(engine.key)).hexdigest()[:16]
