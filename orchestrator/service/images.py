"""Baked images: images with the environment of a spec as a layer, for registries and other engines."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from orchestrator.engine import Engine
from orchestrator.environments.orphans import BUILDING
from orchestrator.errors import ExecutorFailed, SpellError
from orchestrator.images import images
from orchestrator.images.bake import check_tag
from orchestrator.images.image_request import ImageRequest
from orchestrator.lifecycle.context import Context
from orchestrator.records.images import ImageRecord
from orchestrator.service.access import Who
from orchestrator.spec.run import RunSpec, to_wire

_LOOK_S = 0.05
_SILENT_S = 1.0


class Images:
    """Bakes images from the environments of one home.

    Args:
        context: has the environments.
        engine: makes the images.
        bases: the images that they are based on.
    """

    def __init__(self, context: Context, engine: Engine, bases: images.Images) -> None:
        self._context, self._engine, self._bases = context, engine, bases

    def bake(self, who: Who, spec: RunSpec, tag: str, *, push: bool) -> AsyncIterator[bytes]:
        """Bake the environment of `spec` into the image `tag`, and push it to its registry if `push`.

        Yields:
            JSON lines: `{"line": …}` for each line of the build log, `{}` while there is none; last `{"image": …}` or
            `{"error": …}`. The build ends when the client stops reading.

        Raises:
            InvalidConfig: an image cannot have this name.
            UsageError: the machine type does not exist.
            ExecutorFailed: no engine answers.
        """
        check_tag(tag)
        request = ImageRequest.of(spec, self._context.config.machine_for(spec).gpus)
        if lack := self._engine.lacks():
            raise ExecutorFailed(f"The image cannot be built: {lack}", "See what works here: spell doctor")
        return self._streamed(lambda log, cancelled: self._bake(spec, request, tag, log, cancelled, push=push))

    def _bake(
        self,
        spec: RunSpec,
        request: ImageRequest,
        tag: str,
        log: Path,
        cancelled: Callable[[], bool],
        *,
        push: bool,
    ) -> ImageRecord:
        image = self._bases.ensure(request, log, cancelled)
        environment = self._context.environments_of(spec, image.base(self._engine), log, cancelled)[0]
        baked = self._bases.bake(image, environment.path, tag, log, cancelled)
        if push:
            self._bases.push(tag, log, cancelled)
        return ImageRecord(tag, baked, push)

    def _streamed(self, make: Callable[[Path, Callable[[], bool]], ImageRecord]) -> AsyncIterator[bytes]:
        over, unwanted = threading.Event(), threading.Event()
        last: list[dict[str, object]] = []
        # The next server removes a folder of this name if this one is killed.
        folder = tempfile.TemporaryDirectory(
            prefix=f"{BUILDING}bake-", dir=self._context.home.environments, ignore_cleanup_errors=True
        )
        log = Path(folder.name, "log")
        log.touch()

        def work() -> None:
            try:
                last.append({"image": to_wire(make(log, lambda: unwanted.is_set() or self._context.closing.is_set()))})
            except SpellError as error:
                last.append(dict(error.to_wire()))
            except Exception as error:
                last.append(dict(SpellError(f"spelld met an internal error: {error!r}").to_wire()))
                raise
            finally:
                over.set()
                folder.cleanup()

        async def stream(lines: TextIO) -> AsyncIterator[bytes]:
            with lines:
                threading.Thread(target=work, name="bake", daemon=True).start()
                try:
                    async for line in _followed(lines, over):
                        yield line
                    yield _json_line(last[0])
                finally:
                    unwanted.set()  # do not wait for it: this thread serves all requests

        return stream(log.open(errors="replace"))


async def _followed(lines: Iterator[str], over: threading.Event) -> AsyncIterator[bytes]:
    """The lines as they come, and an empty object now and then: only writing shows that the client has gone."""
    said_at = time.monotonic()
    while True:
        is_over = over.is_set()
        for line in lines:
            yield _json_line({"line": line.rstrip("\n")})
            said_at = time.monotonic()
        if is_over:
            return
        if time.monotonic() - said_at > _SILENT_S:
            yield _json_line({})
            said_at = time.monotonic()
        await asyncio.sleep(_LOOK_S)


def _json_line(words: Mapping[str, object]) -> bytes:
    return (json.dumps(words) + "\n").encode()
