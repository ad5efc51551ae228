"""Finds variables and Pythons of an image, once, in a short container, and stores them in a file beside the environments.

The modification time of that file is the time when the image was last used.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.engine import Engine, EngineError
from orchestrator.environments.containers import labels, new_name
from orchestrator.errors import BuildFailed, PhaseFailed
from orchestrator.images.stream import Watch, follow

OLDEST = (3, 6)  # the reaper needs it
_FORMAT = 2
_IDLE_LIMIT_S = 60.0
_SAID_AT_MOST = 1 << 16
_PIDS, _MEMORY_BYTES = 256, 1 << 30
_END = "end"
# The imports are modules that incomplete Pythons lack, such as Debian's python3-minimal.
_SCRIPT = r"""
printf 'path %s\n' "$PATH"
IFS=:
for folder in $PATH; do
    for python in "$folder"/python3 "$folder"/python "$folder"/python3.[0-9] "$folder"/python3.[0-9][0-9]; do
        case $python in /*) ;; *) continue ;; esac
        [ -x "$python" ] || continue
        version=$("$python" -c 'import json, sys, sysconfig; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) &&
            printf 'python %s %s\n' "$version" "$python"
    done
done
while IFS=: read -r name _ number _ _ home _; do
    case $SPELL_IMAGE_USER in "$name" | "$number") ;; *) continue ;; esac
    for folder in "$home"/.local/lib/python3.*/site-packages; do
        [ -x "$folder" ] && printf 'user %s\n' "$folder"
    done
done 2>/dev/null </etc/passwd
printf 'end\n'
"""


@dataclass(frozen=True, slots=True)
class Python:
    """A Python in an image: its path and full version."""

    path: str
    version: str

    @property
    def parts(self) -> tuple[int, ...]:
        """The version as numbers."""
        return tuple(int(part) for part in self.version.split("."))


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of an image.

    Attributes:
        path: its PATH.
        pythons: all Pythons on it that are new enough, the one that `python3` means first.
        pythonpath: its PYTHONPATH, and the folder in which its USER has installed packages, which another user's Python does
            not look for.
        variables: the names of all variables that it sets; their values may be secret.
    """

    path: str
    pythons: tuple[Python, ...]
    pythonpath: str = ""
    variables: tuple[str, ...] = ()

    def python(self, wanted: str) -> Python | None:
        """Return the first one with the wanted version ("3.11"); "" accepts any version."""
        parts = tuple(int(part) for part in re.findall(r"\d+", wanted.partition("pypy")[0]))
        if wanted and not parts:
            return None
        return next((python for python in self.pythons if python.parts[: len(parts)] == parts), None)


def choose(contents: Contents, wanted: str, reference: str) -> Python:
    """Return the Python of the wanted version.

    Raises:
        BuildFailed: when the image has no such Python.
    """
    found = contents.python(wanted)
    if found is not None:
        return found
    if not contents.pythons:
        oldest = ".".join(map(str, OLDEST))
        raise BuildFailed(
            f"The image {reference} has no Python of {oldest} or later, and none could be installed.",
            "Choose an image that has it, for example --from python:3.12-slim.",
        )
    versions = ", ".join(dict.fromkeys(python.version for python in contents.pythons))
    raise BuildFailed(
        f"The image {reference} has Python {versions}, not {wanted}.",
        f"Choose an image that has it (for example --from python:{wanted}-slim), or another version.",
    )


class Probes:
    """The contents of images by their IDs.

    Args:
        engine: has the images.
        folder: where the contents are stored.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder

    def contents(self, image: str, watch: Callable[[], contextlib.AbstractContextManager[Watch]]) -> Contents:
        """Return the contents of the image with this ID, and record that it is used now.

        Args:
            image: `sha256:…`.
            watch: opened when a container must be started.

        Raises:
            BuildFailed, DiskFull, BuildCancelled: when the image cannot be examined.
        """
        found = self._read(image)
        if found is None:
            with watch() as opened:
                found = probe(self._engine, image, opened)
            self._write(image, found)
        else:
            self.used(image)
        return found

    def known(self, image: str) -> Contents:
        """Return the contents of an image that was examined before; empty when they are no longer known."""
        return self.found(image) or Contents("", ())

    def found(self, image: str) -> Contents | None:
        """Return the contents of an image that was examined before; None for any other."""
        return self._read(image)

    def used(self, image: str) -> None:
        """Record that the image with this ID is used now."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._file(image))

    def used_at(self, image: str) -> float | None:
        """Return when it was last used, in seconds since the epoch; None when unknown."""
        try:
            return self._file(image).stat().st_mtime
        except FileNotFoundError:
            return None

    def forget(self, image: str) -> None:
        """Remove the stored contents of an image that was removed."""
        self._file(image).unlink(missing_ok=True)

    def _file(self, image: str) -> Path:
        return self._folder / f"{image.removeprefix('sha256:')}.json"

    def _read(self, image: str) -> Contents | None:
        try:
            stored: dict[str, Any] = json.loads(self._file(image).read_bytes())
            if stored["format"] != _FORMAT:
                return None
            pythons = tuple(Python(**python) for python in stored["pythons"])
            return Contents(str(stored["path"]), pythons, str(stored["pythonpath"]), tuple(stored["variables"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, image: str, contents: Contents) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._file(image).with_suffix(f".{os.urandom(4).hex()}")
        aside.write_text(json.dumps({"format": _FORMAT, **asdict(contents)}))
        os.replace(aside, self._file(image))


def probe(engine: Engine, image: str, watch: Watch) -> Contents:
    """Examine an image in a container.

    Raises:
        BuildFailed: when the container gives no answer, for example because the image has no shell.
        DiskFull, BuildCancelled: see there.
    """
    with engine.translated_errors():
        config: dict[str, Any] = engine.api.inspect_image(image)["Config"] or {}
    env = dict(pair.partition("=")[::2] for pair in config.get("Env") or ())
    said = bytearray()

    def take(chunk: bytes) -> None:
        said.extend(chunk)
        if len(said) > _SAID_AT_MOST:  # the output may be endless
            raise watch.failure("the output of its shell does not end")

    with _container(engine, image, (config.get("User") or "root").partition(":")[0], watch) as container:

        def call(client: Any, _put: Callable[[Any], None]) -> Any:
            stream = client.attach(container, stdout=True, stderr=True, stream=True, logs=True)
            client.start(container)
            return stream

        follow(engine, call, replace(watch, idle_limit_s=min(watch.idle_limit_s, _IDLE_LIMIT_S)), take)
    lines = bytes(said).decode(errors="replace").splitlines()
    path = next((line for line in lines if line.startswith("path ")), "")  # a loader may have printed warnings before
    if _END not in lines or not path:
        for line in lines:
            watch.log.say(line)
        raise watch.failure(lines[-1] if lines else "its shell printed nothing")
    pythons = tuple(_pythons(lines))
    places = [env.get("PYTHONPATH", ""), *_of_user(lines, pythons)]
    return Contents(path.removeprefix("path "), pythons, ":".join(filter(None, places)), tuple(sorted(env)))


def _pythons(lines: list[str]) -> Iterator[Python]:
    for line in lines:
        word, _, rest = line.partition(" ")
        version, _, path = rest.partition(" ")
        if word == "python" and re.fullmatch(r"\d+\.\d+\.\d+", version):
            python = Python(path, version)
            if python.parts >= OLDEST:
                yield python


def _of_user(lines: list[str], pythons: tuple[Python, ...]) -> Iterator[str]:
    """Yield the folder in which the image's USER has installed packages for the first Python, if there is one."""
    for python in pythons[:1]:
        wanted = "/python{}.{}/site-packages".format(*python.parts)
        found = (line.removeprefix("user ") for line in lines if line.startswith("user /"))
        yield from (folder for folder in found if folder.endswith(wanted) and ":" not in folder)


@contextlib.contextmanager
def _container(engine: Engine, image: str, user: str, watch: Watch) -> Iterator[str]:
    """Make a container that runs the script, and remove it; the engine removes it if this server is killed meanwhile."""
    try:
        with engine.translated_errors():
            container: str = engine.api.create_container(
                image,
                entrypoint=["/bin/sh", "-c", _SCRIPT],
                command=[],
                user=engine.user,
                environment={"SPELL_IMAGE_USER": user},
                labels=labels(engine),
                network_disabled=True,
                name=new_name(),
                healthcheck={"Test": ["NONE"]},
                host_config=engine.api.create_host_config(
                    auto_remove=True,
                    network_mode="none",
                    mem_limit=_MEMORY_BYTES,
                    **engine.confinement(_PIDS),
                ),
            )["Id"]
    except PhaseFailed as error:
        raise watch.failure(error.message) from error
    try:
        yield container
    finally:
        with contextlib.suppress(EngineError):  # we have its answer; a later sweep removes it
            engine.remove(container)
