"""Images that hold the environment of a spec."""

from __future__ import annotations

import json
from collections.abc import Callable

from orchestrator.client.transport import Transport, lines
from orchestrator.errors import ServerUnavailable
from orchestrator.errors import from_wire as error_from_wire
from orchestrator.records import from_wire
from orchestrator.records.images import ImageRecord
from orchestrator.spec.run import RunSpec, to_wire

_LIMIT_S = 3600.0


class Images:
    """Bakes images."""

    def __init__(self, transport: Transport) -> None:
        self._stream = transport.stream

    def bake(
        self, spec: RunSpec, tag: str, *, push: bool = False, on_progress: Callable[[str], object] = lambda _line: None
    ) -> ImageRecord:
        """Bake the environment of a spec into an image.

        Args:
            tag: of the image.
            push: whether to push the image to its registry.
            on_progress: called with each line of the build log.

        Raises:
            SpellError: of the class that the server raised.
        """
        body = {"spec": to_wire(spec), "tag": tag, "push": push}
        answer = self._stream("POST", "/images", json=body, read_limit_s=_LIMIT_S)
        for line in lines(answer):
            words = json.loads(line)
            if "line" in words:
                on_progress(words["line"])
            elif "image" in words:
                return from_wire(ImageRecord, words["image"])
            elif words:  # the server sends an empty object to see whether the client is still there
                raise error_from_wire(words, answer.status_code)
        raise ServerUnavailable("The server ended before the image was made.", "See: spell server logs")
