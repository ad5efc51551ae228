"""Keeps the images of event files as files, in the outputs of the run: `tensorboard-images/TAG/STEP.png`.

They are written beside the work dir while the run works, and moved into it when its command has ended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from orchestrator.content.files import remove_tree
from orchestrator.telemetry.trackers.found import Picture

FOLDER = "tensorboard-images"
_MOST = 1000
_MOST_BYTES = 256 << 20
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
_NO_NAME = re.compile(r"[^\w.=+-]+")
_LONGEST = 100


class Pictures:
    """The images of one run.

    Args:
        folder: where they are gathered.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = self._bytes = 0
        for path in folder.rglob("*.*") if folder.exists() else ():  # a server before this one wrote them
            self._count, self._bytes = self._count + 1, self._bytes + path.stat().st_size

    def keep(self, prefix: str, pictures: Sequence[Picture]) -> int:
        """Write images, and return how many were kept. To write one again changes nothing."""
        kept, numbers = 0, dict[str, int]()
        for picture in pictures:
            kind = next((kind for mark, kind in _KINDS.items() if picture.data.startswith(mark)), "")
            if not kind or self._count >= _MOST or self._bytes + len(picture.data) > _MOST_BYTES:
                continue
            parts = [_NO_NAME.sub("_", part)[:_LONGEST] for part in f"{prefix}{picture.tag}".split("/")]
            folder = self._folder.joinpath(*(part for part in parts if part.strip(".")))
            name = f"{folder}/{picture.step}"
            number = numbers[name] = numbers.get(name, 0) + 1
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"{picture.step}{f'-{number}' if number > 1 else ''}.{kind}"
            self._count, self._bytes = self._count + (not target.exists()), self._bytes + len(picture.data)
            target.write_bytes(picture.data)
            kept += 1
        return kept

    def deliver(self, code: Path) -> None:
        """Move them into the work dir, unless the run has something of that name itself."""
        if not self._folder.exists():
            return
        if os.path.lexists(code / FOLDER):
            remove_tree(self._folder)
        else:
            os.rename(self._folder, code / FOLDER)
