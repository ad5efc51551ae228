"""Builds one image: by BuildKit where the docker CLI has it, else by the engine's classic builder.

Only the CLI can hand over secrets (`--secret`), and only BuildKit knows them. The classic builder is asked through the
SDK and needs no CLI at all.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
import re
import secrets
import selectors
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.engine import Engine, EngineError
from orchestrator.environments.containers import is_alive, this_server
from orchestrator.environments.host import end_group
from orchestrator.environments.orphans import BUILDING
from orchestrator.environments.uv import LONGEST
from orchestrator.errors import BuildFailed, PhaseFailed
from orchestrator.images import steps
from orchestrator.images.stream import POLL_S, Watch, follow

REPOSITORY = "spell"  # of the tags of what we build
_ROOTS = (Path(__file__).parents[1], Path(__file__).parents[2])  # installed; a checkout
_LAST_WITH_BUILDKIT_INSIDE = 22  # later clients have it in a plugin: https://docs.docker.com/build/buildkit
_ASK_LIMIT_S = 10.0
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_CA_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_MOUNT = re.compile(r"(?m)^(RUN)(?:[ \t]+--mount=\S+)+")
_STEP = re.compile(r"(?:Step |#\d+ \[(?:\S+ )?)(\d+/\d+)(?:\] | : )(\w+)")
_OUTPUT = re.compile(r"#\d+ \d+\.\d+ (.*)")
# What builders say themselves, as against the programs of a step.
_OWN = re.compile(r"#\d+ |Step \d|\s*---> |Removing intermediate container |-{3,}$| > \[|executor failed|The command '")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONG = 240  # of a step's whole script, which builders repeat
_EXIT_CODE = re.compile(r"exit code|non-zero code|did not complete successfully")
_SCRIPT = re.compile(r"executor failed running \[.*\]: |The command '.*' (?=returned)|process \".*\" (?=did not)")
_KEPT_LINES = 400
_END_LIMIT_S = 2.0
_END_LINES = 8  # what a builder sums up at its end
_LAYER = re.compile(r" ---> ([0-9a-f]{12,64})$")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is made.

    Attributes:
        dockerfile: its text.
        tag: what the image will be called.
        args: build arguments; they stay in the image's history.
        labels: of the image.
        base: the ID of the image that it stands on; given to the Dockerfile as BASE.
        context: a tar archive, in pieces, of what the Dockerfile copies, itself included; None for a lone Dockerfile.
    """

    dockerfile: str
    tag: str
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    context: Iterable[bytes] | None = None


def dockerfile(name: str) -> str:
    """The text of `dockerfiles/NAME.Dockerfile`."""
    paths = [root / "dockerfiles" / f"{name}.Dockerfile" for root in _ROOTS]
    return next((path for path in paths if path.is_file()), paths[0]).read_text()


def build(engine: Engine, recipe: Recipe, watch: Watch, env: Mapping[str, str] = os.environ) -> None:
    """Build an image and tag it.

    Args:
        engine: builds it.
        recipe: how.
        watch: gets every line.
        env: the server's environment: where the CLI, the proxies and the CA certificates are.

    Raises:
        BuildFailed: with the step that failed and its last line.
        DiskFull, BuildCancelled: as they say. Nothing of the image is left in any case, except in BuildKit's cache.
    """
    command = None if recipe.context else buildkit(engine, env)
    if command is None:
        build_classic(engine, recipe, watch, env)
    else:
        _build_with_cli(engine, command, recipe, watch, env)


def buildkit(engine: Engine, env: Mapping[str, str]) -> list[str] | None:
    """The command that builds with BuildKit; None where there is none."""
    docker = shutil.which("docker", path=env.get("PATH", os.defpath))
    client = re.match(r"Docker version (\d+)", _said([docker, "--version"], env)) if docker else None
    if docker is None or client is None or _is_podman(engine):
        return None
    if _said([docker, "buildx", "version"], env):
        # The engine's own BuildKit, whichever the person uses otherwise: it sees the engine's images.
        return [docker, "buildx", "build", "--builder=default", "--load"]
    return [docker, "build"] if int(client[1]) <= _LAST_WITH_BUILDKIT_INSIDE else None


def _is_podman(engine: Engine) -> bool:
    with engine.translated_errors():
        parts = engine.api.version(api_version=False).get("Components") or ()
    return any("podman" in str(part.get("Name")).lower() for part in parts)


def _said(command: Sequence[str], env: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


class Transcript:
    """What a builder says, in lines, and what of that tells why it failed.

    Attributes:
        layers: the intermediate images that the classic builder made, in order.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._rest = ""
        self._step = self._last = ""
        self._is_buildkit = False
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self.layers: list[str] = []

    def take(self, text: str) -> None:
        """More of its output; ends anywhere."""
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LONGEST:  # to look for its end anew with each piece would take for ever
            at = self._rest.rfind(" ") + 1 or len(self._rest)  # not in a URL, which may hold a password
            lines, self._rest = [*lines, self._rest[:at]], self._rest[at:]
        for line in lines:
            self._line(_COLOUR.sub("", line.rstrip("\r").rpartition("\r")[2]))

    def take_message(self, message: dict[str, Any]) -> None:
        """A message of the classic builder.

        Raises:
            BuildFailed, DiskFull: when it tells of a failure.
        """
        if "error" in message:
            self.take(f"\n{message['error']}\n")
            raise self.failure(str(message["error"]))
        self.take(str(message.get("stream") or ""))

    def failure(self, words: str) -> PhaseFailed:
        """Why the build failed.

        Args:
            words: what the builder says about it; of a program that failed no more than its exit code.
        """
        end = [*self._said][-_END_LINES:]
        is_program = self._last and any(map(_EXIT_CODE.search, (*end, words)))
        told = self._last if is_program else _SCRIPT.sub("", words)
        return self._watch.failure(f"{self._step}: {told}" if self._step else told, self._said)

    def end(self) -> str:
        """No more output. Returns the last line of all."""
        self.take("\n")
        return self._said[-1] if self._said else "the docker command says nothing"

    def _line(self, line: str) -> None:
        if not line.strip():
            return
        output = _OUTPUT.match(line)
        is_long = len(line) > _LONG and not output and _OWN.match(line)
        self._watch.log.say(f"{line[: _LONG // 2]} … {line[-_LONG // 4 :]}" if is_long else line)
        self._said.append(line)
        self._is_buildkit = self._is_buildkit or line.startswith("#1 ")
        if step := _STEP.match(line):
            self._step, self._last = f"step {step[1]} ({step[2]})", ""
        elif layer := _LAYER.match(line):
            self.layers.append(layer[1])
        elif output:
            self._last = output[1].strip() or self._last
        elif not self._is_buildkit and not _OWN.match(line):
            self._last = line.strip()


# -- the classic builder ----------------------------------------------------------------------------------------------


def build_classic(engine: Engine, recipe: Recipe, watch: Watch, env: Mapping[str, str]) -> None:
    """Build with the engine's own builder.

    Raises:
        BuildFailed, DiskFull, BuildCancelled: as `build`.
    """
    if _MOUNT.search(recipe.dockerfile) and (ca := _ca_file(env)):
        watch.log.say(f"The classic builder takes no secrets: the build does not know the certificates of {ca}")
    # It knows no --mount, and fails on it.
    text = steps.marked(_MOUNT.sub(r"\1", recipe.dockerfile), engine)  # a context brings its own
    said = Transcript(watch)

    def call(client: Any, put: Any) -> Any:
        options = {
            "tag": recipe.tag,
            "buildargs": {**_proxies(env), **recipe.args, **({"BASE": recipe.base} if recipe.base else {})},
            "labels": {**recipe.labels, steps.LABEL: ""},
            "rm": True,
            "forcerm": True,
            "decode": True,
        }
        if recipe.context is None:
            return client.build(fileobj=io.BytesIO(text.encode()), **options)
        return client.build(fileobj=_heard(recipe.context, put), custom_context=True, **options)

    try:
        follow(engine, call, watch, said.take_message)
        _require(engine, recipe, watch)
    except BaseException:
        _remove_layers(engine, said.layers, recipe.base)
        raise


def _heard(context: Iterable[bytes], put: Any) -> Iterator[bytes]:
    """The context, with a word to those who listen for each piece that was taken."""
    try:
        for piece in context:
            put({})
            yield piece
    except OSError as error:  # on our side: not to be taken for an engine that went away
        raise BuildFailed(f"What goes into the image cannot be read: {error}.") from error


def _remove_layers(engine: Engine, layers: list[str], base: str) -> None:
    """Remove the images that a failed build made of its first steps; the engine would keep them for ever."""
    until = time.monotonic() + _END_LIMIT_S
    for layer in reversed(layers):
        while not base.removeprefix("sha256:").startswith(layer):
            try:
                with engine.translated_errors():
                    engine.api.remove_image(layer, noprune=True)
            except EngineError as error:
                # The engine is still ending the container of the last step; or another build needs the image, too.
                if error.status == 409 and "container" in error.message and time.monotonic() < until:
                    time.sleep(POLL_S)
                    continue
            break


def _require(engine: Engine, recipe: Recipe, watch: Watch) -> None:
    try:
        with engine.translated_errors():
            engine.api.inspect_image(recipe.tag)
    except EngineError as error:
        raise watch.failure("the engine stopped in the middle of it") from error


# -- BuildKit ---------------------------------------------------------------------------------------------------------


def _build_with_cli(
    engine: Engine, command: Sequence[str], recipe: Recipe, watch: Watch, env: Mapping[str, str]
) -> None:
    said = Transcript(watch)
    # A docker command that is ended leaves a copy of the Dockerfile in its temporary folder. Named so, the folder is
    # removed at the next start when this server is killed, unless the image is built again at that time.
    prefix = f"{BUILDING}image-{recipe.tag.rpartition(':')[2]}-"
    folder = tempfile.TemporaryDirectory(prefix=prefix, dir=engine.home.environments, ignore_cleanup_errors=True)
    with folder as temporary, _named(engine, recipe.base) as base:
        arguments = ["--progress=plain", f"--tag={recipe.tag}", f"--build-arg=BASE={base}"]
        arguments += [f"--build-arg={name}={value}" for name, value in recipe.args.items()]
        # By name only: a proxy's password is not for the list of processes.
        arguments += [f"--build-arg={name}" for name in _proxies(env)]
        arguments += [f"--label={name}={value}" for name, value in recipe.labels.items()]
        if ca := _ca_file(env):
            arguments.append(f"--secret=id=ca,src={ca}")
        code = _run(
            [*command, *arguments, "-"],
            {**env, **_proxies(env), "DOCKER_HOST": engine.host, "DOCKER_BUILDKIT": "1", "TMPDIR": temporary},
            recipe.dockerfile,
            said,
            watch,
        )
    if code != 0:
        raise said.failure(said.end())
    _require(engine, recipe, watch)


def _run(command: Sequence[str], env: Mapping[str, str], text: str, said: Transcript, watch: Watch) -> int:
    try:
        process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise BuildFailed(f"{watch.what}: {command[0]}: {error.strerror}.") from error
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(text.encode())
        with process.stdout as pipe:
            _read(pipe.fileno(), process, said, watch)
        return process.wait()
    finally:
        end_group(process)


def _read(descriptor: int, process: subprocess.Popen[bytes], said: Transcript, watch: Watch) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    heard_at = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            watch.check(heard_at)
            ready = selector.select(POLL_S)
            chunk = os.read(descriptor, 1 << 16) if ready else b""
            if chunk:
                heard_at = time.monotonic()
                said.take(decoder.decode(chunk))
            elif ready or process.poll() is not None:
                return


@contextlib.contextmanager
def _named(engine: Engine, image: str) -> Iterator[str]:
    """A name for an image: BuildKit takes what looks like an ID for a name on the Docker Hub."""
    with engine.translated_errors():
        found = engine.api.inspect_image(image)
        has_others = bool(found.get("RepoTags") or found.get("RepoDigests"))
        # An image loses its last name only together with its life. Then it keeps ours, always the same.
        tag = f"{_names(engine)}{this_server().replace(':', '-')}-{secrets.token_hex(8)}"
        tag = tag if has_others else f"from-{image.removeprefix('sha256:')[:32]}"
        engine.api.tag(image, REPOSITORY, tag)
    try:
        yield f"{REPOSITORY}:{tag}"
    finally:
        if has_others:
            with contextlib.suppress(EngineError), engine.translated_errors():
                engine.api.remove_image(f"{REPOSITORY}:{tag}", noprune=True)


def remove_abandoned_names(engine: Engine) -> None:
    """Take back the names that servers of this home gave to images (`_named`) before they died.

    Raises:
        EngineError: when that cannot be.
    """
    ours = re.compile(rf"{REPOSITORY}:{_names(engine)}(\d+-[\d.]+)-[0-9a-f]{{16}}\Z")
    with engine.translated_errors():
        images: list[dict[str, Any]] = engine.api.images()
    for image in images:
        tags = image["RepoTags"] or ()
        left = [tag for tag in tags if (found := ours.match(tag)) and not is_alive(found[1].replace("-", ":"))]
        if image["RepoDigests"] or len(left) < len(tags):  # with its last name the image would go
            for tag in left:
                with engine.translated_errors():
                    engine.api.remove_image(tag, noprune=True)


def _names(engine: Engine) -> str:
    """What the names begin with that images have for as long as a build of this home lasts."""
    return f"from-{hashlib.sha256(os.fsencode(engine.home.root)).hexdigest()[:16]}-"


# -- what a build is given of the server's environment ----------------------------------------------------------------


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    names = [name for lower in _PROXIES for name in (lower, lower.upper())]
    return {name: env[name] for name in names if env.get(name)}


def _ca_file(env: Mapping[str, str]) -> str:
    return next((env[name] for name in _CA_FILES if env.get(name) and Path(env[name]).is_file()), "")
