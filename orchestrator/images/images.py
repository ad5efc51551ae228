"""All images of a home, from which containers start: pulled, extended with packages, baked for registries, removed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config import DockerConfig
from orchestrator.engine import Engine, EngineError
from orchestrator.environments import Base, Container
from orchestrator.environments.lock import Failure, hold
from orchestrator.environments.uv import BuildLog
from orchestrator.errors import BuildFailed, DiskFull, SpellError, is_disk_full
from orchestrator.images import bake as image_bake
from orchestrator.images import intermediate
from orchestrator.images.build import REPOSITORY, Recipe, build, dockerfile, remove_abandoned_names
from orchestrator.images.image_request import ImageRequest
from orchestrator.images.probe import Contents, Probes, choose
from orchestrator.images.stream import Transfer, Watch, follow
from orchestrator.records.gc import RemovedRecord
from orchestrator.records.plans import BUILD, PULL, READY

PROBES = ".images"  # in the folder of all environments


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has.

    Attributes:
        id: its ID in the engine (`sha256:…`), which identifies its content.
        reference: the name that the user gave.
        python: the path of its Python.
        version: the version of its Python ("3.11.2").
        contents: all that was found in it.
    """

    id: str
    reference: str
    python: str
    version: str
    contents: Contents

    @property
    def path(self) -> str:
        """Its PATH."""
        return self.contents.path

    def base(self, engine: Engine) -> Base:
        """Return it as that on which an environment is built."""
        return _base(engine, self.id, self.python, self.contents)


class Images:
    """The images of a home. Safe to use from many threads at once.

    Args:
        engine: has and builds them.
        config: names the image for requests without one.
    """

    def __init__(self, engine: Engine, config: DockerConfig) -> None:
        self._engine = engine
        self._config = config
        self._folder = engine.home.environments
        self._probes = Probes(engine, self._folder / PROBES)
        self._builds = 0  # running now
        self._counting = threading.Lock()

    def start(self) -> None:
        """Clean up after a server that was killed, in the background, as asking the engine takes a while."""
        threading.Thread(target=self._clear, name="clear-images", daemon=True).start()

    def _clear(self) -> None:
        if not self._engine.lacks():
            with contextlib.suppress(SpellError):  # the engine is gone: the next start does it
                remove_abandoned_names(self._engine)

    def ensure(self, request: ImageRequest, log: Path, cancelled: Callable[[], bool]) -> Image:
        """Return the requested image. Pulls or builds it if the engine lacks it, or waits for another builder.

        Args:
            request: the request.
            log: the build log; output is appended as it comes.
            cancelled: called many times a second; True ends everything.

        Raises:
            BuildFailed: it cannot be pulled or built; the log says why. Nothing of it is kept.
            DiskFull: the disk is full.
            BuildCancelled: when cancelled.
            EngineError: the engine does not answer.
        """
        reference = self.reference(request)
        watch = functools.partial(self._watch, log, cancelled)
        base = self._find(reference) or self._pull(reference, watch)
        contents = self._contents(base, reference, watch)
        apt = tuple(sorted(set(request.apt)))
        if contents.pythons:
            python = choose(contents, request.python, reference)
            if not apt:
                return Image(base, reference, python.path, python.version, contents)
        recipe = self._recipe(base, apt, is_gpu=request.gpu, has_python=bool(contents.pythons))
        added = ", ".join(apt if contents.pythons else ("Python", *apt))
        built = self._find(recipe.tag) or self._build(recipe, f"{added} could not be installed into {reference}", watch)
        contents = self._contents(built, recipe.tag, watch)
        python = choose(contents, request.python, reference)
        return Image(built, recipe.tag, python.path, python.version, contents)

    def look(self, request: ImageRequest) -> tuple[str, str, Image | None]:
        """Return what `ensure` would have to do, without doing it.

        Returns:
            The name of the image, what it needs (`ready`, `pull` or `build`), and the image if it is known already.

        Raises:
            BuildFailed, EngineError: as `ensure`.
        """
        reference = self.reference(request)
        apt = tuple(sorted(set(request.apt)))
        base = self._find(reference)
        contents = self._probes.found(base) if base else None
        if base is None or contents is None:
            return reference, READY if base else PULL, None
        if contents.pythons:
            python = choose(contents, request.python, reference)
            if not apt:
                return reference, READY, Image(base, reference, python.path, python.version, contents)
        recipe = self._recipe(base, apt, is_gpu=request.gpu, has_python=bool(contents.pythons))
        built = self._find(recipe.tag)
        contents = self._probes.found(built) if built else None
        if built is None or contents is None:
            return recipe.tag, READY if built else BUILD, None
        python = choose(contents, request.python, reference)
        return recipe.tag, READY, Image(built, recipe.tag, python.path, python.version, contents)

    def reference(self, request: ImageRequest) -> str:
        """Return the name of the requested or configured image."""
        configured = self._config.gpu_base_image if request.gpu else self._config.base_image
        version = request.python or "{}.{}".format(*sys.version_info)
        return request.reference or configured.replace("{version}", version)

    def has(self, image: str) -> bool:
        """Whether the engine has this image, by ID or name."""
        return self._find(image) is not None

    def base_of(self, image: str) -> Base:
        """Return an image (by its ID) that was used before, as that on which its environment was built."""
        return _base(self._engine, image, "", self._probes.known(image))

    def bake(self, image: Image, environment: Path, tag: str, log: Path, cancelled: Callable[[], bool]) -> str:
        """Make an image that holds an environment, for machines without spell.

        Args:
            image: the image that the environment was built on.
            environment: its folder.
            tag: the name of the new image.
            log: the build log.
            cancelled: called many times a second.

        Returns:
            The ID of the new image.

        Raises:
            InvalidConfig: when the tag is not valid.
            BuildFailed, DiskFull, BuildCancelled: see there.
        """
        image_bake.check_tag(tag)
        with self._watch(log, cancelled, f"The image {tag} could not be built") as watch, self._building():
            image_bake.bake(self._engine, image_bake.Baking(image.id, image.path, environment, tag), watch)
        return self._find(tag) or ""

    def push(self, tag: str, log: Path, cancelled: Callable[[], bool]) -> None:
        """Push an image to the registry in its name, with the user's login there (`docker login`).

        Raises:
            InvalidConfig: when the tag is not valid.
            BuildFailed: with the message of the registry.
            BuildCancelled: when cancelled.
        """
        image_bake.check_tag(tag)
        with self._watch(log, cancelled, f"The image {tag} could not be pushed") as watch:
            watch.log.say(f"Pushing {tag}")
            follow(
                self._engine,
                lambda client, _put: client.push(tag, stream=True, decode=True),
                watch,
                Transfer(watch).take,
            )

    def gc(self, keep: set[str], older_than_s: float, *, dry_run: bool) -> list[RemovedRecord]:
        """Remove unused images that this home has built, and intermediate images of builds whose server was killed.

        Args:
            keep: IDs of images that stay.
            older_than_s: for how long, up to now, an image must have been unused.
            dry_run: remove nothing.

        Raises:
            EngineError: when the engine does not answer.
        """
        before = time.time() - older_than_s
        with self._engine.translated_errors():
            images: list[dict[str, Any]] = self._engine.api.images(filters={"label": self._engine.ours("image")})
            needed = keep | {str(item["ImageID"]) for item in self._engine.api.containers(all=True)}
        removed = []
        for image in images:
            # An image that the user has named belongs to the user.
            is_ours = all(tag.startswith(f"{REPOSITORY}:") for tag in image["RepoTags"] or ())
            if image["Id"] not in needed and is_ours and not self._is_used(image, before):
                item = self._removed(image)
                if dry_run or (not self._is_used(image, before) and self._remove(image)):
                    removed.append(item)
        with self._counting, contextlib.suppress(EngineError):  # the images removed so far are still reported
            if not self._builds:
                removed += intermediate.remove_left(self._engine, before, dry_run=dry_run)
        return removed

    # -- one step of `ensure` each ------------------------------------------------------------------------------------

    def _find(self, reference: str) -> str | None:
        try:
            with self._engine.translated_errors():
                return str(self._engine.api.inspect_image(reference)["Id"])
        except EngineError as error:
            if error.status == 404:
                return None
            if error.status == 400:
                raise BuildFailed(f"{reference!r} is not a valid image: {error.message}.", "Check its name.") from error
            raise

    def _contents(self, image: str, reference: str, watch: _Watching) -> Contents:
        return self._probes.contents(image, lambda: watch(f"The image {reference} could not be examined"))

    def _pull(self, reference: str, watch: _Watching) -> str:
        def pull(opened: Watch) -> None:
            opened.log.say(f"Pulling {reference}")
            follow(
                self._engine,
                lambda client, _put: client.pull(reference, stream=True, decode=True),
                opened,
                Transfer(opened).take,
            )

        if reference.startswith("sha256:"):
            raise BuildFailed(f"The engine has no image {reference}.", "Name an image that can be pulled.")
        key = hashlib.sha256(reference.encode()).hexdigest()
        with watch(f"The image {reference} could not be pulled") as opened:
            return self._alone(f"pull-{key}", reference, pull, opened)

    def _recipe(self, base: str, apt: tuple[str, ...], *, is_gpu: bool, has_python: bool) -> Recipe:
        text = dockerfile("cpu") + (dockerfile("gpu") if is_gpu else "")
        args = {"PYTHON": "" if has_python else "python3", "APT": " ".join(apt)}
        labels = self._engine.labels(role="image", base=base)
        content = json.dumps([text, base, args, labels], sort_keys=True)
        tag = f"{REPOSITORY}:{hashlib.sha256(content.encode()).hexdigest()[:32]}"
        return Recipe(text, tag, args, labels, base)

    def _build(self, recipe: Recipe, what: str, watch: _Watching) -> str:
        def make(opened: Watch) -> None:
            opened.log.say(f"Building the image {recipe.tag}")
            with self._building():
                build(self._engine, recipe, opened)

        with watch(what) as opened:
            return self._alone(recipe.tag.rpartition(":")[2], recipe.tag, make, opened)

    def _alone(self, key: str, reference: str, make: Callable[[Watch], None], watch: Watch) -> str:
        """Make an image, unless another builder made it, or failed to, while we waited. Returns its ID."""
        self._folder.mkdir(parents=True, exist_ok=True)

        def waiting() -> None:
            watch.log.say("Another run is pulling or building this image; waiting")

        with hold(self._folder, f"image-{key}", waiting, watch.cancelled) as lock:
            if found := self._find(reference):
                return found
            if lock.failure is not None:
                for line in lock.failure.log:
                    watch.log.say(line)
                raise BuildFailed(lock.failure.message, lock.failure.cure)
            try:
                make(watch)
            except BuildFailed as error:
                watch.log.say(error.message)
                lock.fail(Failure(error.message, error.cure, tuple(watch.log.lines)))
                raise
            found = self._find(reference)
        if not found:
            raise BuildFailed(f"{watch.what}: it was removed right after it was made.", "Cast the run again.")
        return found

    @contextlib.contextmanager
    def _watch(self, log: Path, cancelled: Callable[[], bool], what: str) -> Iterator[Watch]:
        try:
            with contextlib.closing(BuildLog(log)) as opened:
                yield Watch(opened, cancelled, self._config.idle_limit_s, what)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(
                    f"{what}: the disk of the home is full.", "Free some space, then cast the run again."
                ) from error
            raise BuildFailed(f"{what}: {error.strerror or error}.") from error

    @contextlib.contextmanager
    def _building(self) -> Iterator[None]:
        with self._counting:
            self._builds += 1
        try:
            yield
        finally:
            with self._counting:
                self._builds -= 1

    # -- one step of `gc` each ----------------------------------------------------------------------------------------

    def _is_used(self, image: dict[str, Any], before: float) -> bool:
        """Whether it was used after a moment. The list of images to keep lacks runs that began since then."""
        noted_at = self._probes.used_at(image["Id"])
        return (float(image["Created"]) if noted_at is None else noted_at) > before

    def _removed(self, image: dict[str, Any]) -> RemovedRecord:
        """Return the record of a removed image. Its size is counted without its base image."""
        below = 0
        with contextlib.suppress(EngineError), self._engine.translated_errors():
            below = int(self._engine.api.inspect_image(image["Labels"].get("spell.base", ""))["Size"])
        name = next(iter(image["RepoTags"] or ()), image["Id"])
        return RemovedRecord(f"image {name}", max(0, int(image["Size"]) - below), "image")

    def _remove(self, image: dict[str, Any]) -> bool:
        """Remove an image and its intermediate images. Returns False when a container uses it."""
        steps = self._steps(image)
        try:
            with self._engine.translated_errors():
                for name in image["RepoTags"] or [image["Id"]]:
                    # Pruning would also remove a base that has no name, only an ID that a user may know.
                    self._engine.api.remove_image(name, noprune=True)
        except EngineError as error:
            if error.status not in (404, 409):
                raise
            return False
        for step in steps:
            with contextlib.suppress(EngineError), self._engine.translated_errors():  # another image may use it
                self._engine.api.remove_image(step, noprune=True)
        self._probes.forget(image["Id"])
        return True

    def _steps(self, image: dict[str, Any]) -> list[str]:
        """Return the images between this one and its base, the uppermost first. BuildKit makes none."""
        found: list[str] = []
        above, base = image["Id"], image["Labels"].get("spell.base", "")
        with contextlib.suppress(EngineError), self._engine.translated_errors():
            while base and (above := self._engine.api.inspect_image(above).get("Parent")) and above != base:
                found.append(above)
        # We did not make a chain that does not end at the base.
        return found if above == base else []


# Opens a watch; the argument is the sentence with which a failure begins.
_Watching = Callable[[str], contextlib.AbstractContextManager[Watch]]


def _base(engine: Engine, image: str, python: str, contents: Contents) -> Base:
    runner = Container(engine, image, python) if python else Container(engine, image)
    return Base(runner, image, python, contents.path, contents.pythonpath, frozenset(contents.variables))
