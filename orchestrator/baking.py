"""Baked images: the environment of a spec in an image layer, for registries and for engines that know nothing of spell."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.engine import Engine
from orchestrator.environments import Base, Container, ImageRequest, Images
from orchestrator.environments.image_bake import check_tag
from orchestrator.errors import ExecutorFailed, SpellError
from orchestrator.records import ImageRecord
from orchestrator.spec import RunSpec, to_wire
from orchestrator.workshop import Workshop

_LOOK_S = 0.05


class Baker:
    """Bakes images of one home.

    Args:
        workshop: its environments.
        engine: makes them.
        images: what they stand on.
    """

    def __init__(self, workshop: Workshop, engine: Engine, images: Images) -> None:
        self._shop, self._engine, self._images = workshop, engine, images

    def bake(self, spec: RunSpec, tag: str, *, push: bool) -> Iterator[bytes]:
        """Bake what `spec` asks for into the image `tag`, and push it to its registry when asked.

        Yields:
            JSON lines: `{"line": …}` of the build log as it comes; last `{"image": …}` or `{"error": …}`. When nobody
            reads on, the build is ended.

        Raises:
            InvalidConfig: no image can be called so.
            ExecutorFailed: no engine answers.
        """
        check_tag(tag)
        if lack := self._engine.lacks():
            raise ExecutorFailed(f"No image can be made: {lack}", "See what works here: spell doctor")
        return self._streamed(lambda log, cancelled: self._bake(spec, tag, log, cancelled, push=push))

    def _bake(self, spec: RunSpec, tag: str, log: Path, cancelled: Callable[[], bool], *, push: bool) -> ImageRecord:
        gpus = self._shop.config.types().get(spec.machine_type.lower())
        request = ImageRequest(spec.image, spec.apt, spec.python, bool(gpus and gpus.gpus))
        image = self._images.ensure(request, log, cancelled)
        base = Base(Container(self._engine, image.id, image.python), image.id, image.python, image.path)
        environment = self._shop.environment(spec, base, log, cancelled)
        baked = self._images.bake(image, environment.path, tag, log, cancelled)
        if push:
            self._images.push(tag, log, cancelled)
        return ImageRecord(tag, baked, push)

    def _streamed(self, make: Callable[[Path, Callable[[], bool]], ImageRecord]) -> Iterator[bytes]:
        over, unwanted = threading.Event(), threading.Event()
        last: list[dict[str, object]] = []
        with tempfile.TemporaryDirectory(prefix="bake-", dir=self._shop.home.work) as folder:
            log = Path(folder, "log")
            log.touch()

            def work() -> None:
                try:
                    last.append({"image": to_wire(make(log, lambda: unwanted.is_set() or self._shop.closing.is_set()))})
                except SpellError as error:
                    last.append(dict(error.to_wire()))
                except Exception as error:
                    last.append(dict(SpellError(f"spelld met an error of its own: {error!r}").to_wire()))
                    raise
                finally:
                    over.set()

            thread = threading.Thread(target=work, name="bake", daemon=True)
            thread.start()
            try:
                with log.open(errors="replace") as lines:
                    while not over.wait(_LOOK_S):
                        yield from _json_lines(lines)
                    yield from _json_lines(lines)
                yield (json.dumps(last[0]) + "\n").encode()
            finally:
                unwanted.set()
                thread.join()


def _json_lines(lines: Iterator[str]) -> Iterator[bytes]:
    for line in lines:
        yield (json.dumps({"line": line.rstrip("\n")}) + "\n").encode()
