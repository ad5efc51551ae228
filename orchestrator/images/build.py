"""Builds one image: by BuildKit if the docker CLI has it, else by the engine's classic builder.

Only the CLI can pass secrets (`--secret`), and only BuildKit accepts them. The classic builder is called through the SDK
and needs no CLI.
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
from orchestrator.environments.host import end_group, note
from orchestrator.environments.orphans import BUILDING, PROCESS_FILE
from orchestrator.environments.uv import LONGEST
from orchestrator.errors import BuildFailed, PhaseFailed
from orchestrator.images import intermediate
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
# Lines of the builders themselves, not of the programs of a step.
_OWN = re.compile(r"#\d+ |Step \d|\s*---> |Removing intermediate container |-{3,}$| > \[|executor failed|The command '")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONG = 240  # builders repeat the whole script of a step in one line
_EXIT_CODE = re.compile(r"exit code|non-zero code|did not complete successfully")
_SCRIPT = re.compile(r"executor failed running \[.*\]: |The command '.*' (?=returned)|process \".*\" (?=did not)")
_KEPT_LINES = 400
_END_LIMIT_S = 2.0
_END_LINES = 8  # a builder sums up a failure in so many lines
_LAYER = re.compile(r" ---> ([0-9a-f]{12,64})$")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is made.

    Attributes:
        dockerfile: its text.
        tag: the name of the image.
        args: build arguments; they stay in the image's history.
        labels: the labels of the image.
        base: the ID of the image that it is built on; the Dockerfile gets it as BASE.
        context: a tar archive, in pieces, of the Dockerfile and the files that it copies; None for a Dockerfile alone.
    """

    dockerfile: str
    tag: str
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    context: Iterable[bytes] | None = None


def dockerfile(name: str) -> str:
    """Return the text of `dockerfiles/NAME.Dockerfile`."""
    paths = [root / "dockerfiles" / f"{name}.Dockerfile" for root in _ROOTS]
    return next((path for path in paths if path.is_file()), paths[0]).read_text()


def build(engine: Engine, recipe: Recipe, watch: Watch, env: Mapping[str, str] = os.environ) -> None:
    """Build an image and tag it.

    Args:
        engine: builds it.
        recipe: what to build.
        watch: gets every line.
        env: the server's environment variables, which name the CLI, the proxies and the CA certificates.

    Raises:
        BuildFailed: names the failed step and its last line.
        DiskFull, BuildCancelled: see there. Nothing of the image is left, except in BuildKit's cache.
    """
    command = None if recipe.context else buildkit(engine, env)
    if command is None:
        build_classic(engine, recipe, watch, env)
    else:
        _build_with_cli(engine, command, recipe, watch, env)


def buildkit(engine: Engine, env: Mapping[str, str]) -> list[str] | None:
    """Return the command that builds with BuildKit; None if none is installed."""
    docker = shutil.which("docker", path=env.get("PATH", os.defpath))
    client = re.match(r"Docker version (\d+)", _said([docker, "--version"], env)) if docker else None
    if docker is None or client is None or _is_podman(engine):
        return None
    if _said([docker, "buildx", "version"], env):
        # The engine's own BuildKit, whichever the user has chosen, because it sees the engine's images.
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
    """The output of a builder, in lines, and the reason of its failure found in it.

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
        """Take the next piece of output, which may end anywhere."""
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LONGEST:  # searching all of it for a line end with each piece would be too slow
            at = self._rest.rfind(" ") + 1 or len(self._rest)  # not in a URL, which may hold a password
            lines, self._rest = [*lines, self._rest[:at]], self._rest[at:]
        for line in lines:
            self._line(_COLOUR.sub("", line.rstrip("\r").rpartition("\r")[2]))

    def take_message(self, message: dict[str, Any]) -> None:
        """Take a message of the classic builder.

        Raises:
            BuildFailed, DiskFull: when the message reports a failure.
        """
        if "error" in message:
            self.take(f"\n{message['error']}\n")
            raise self.failure(str(message["error"]))
        self.take(str(message.get("stream") or ""))

    def failure(self, words: str) -> PhaseFailed:
        """Return the error of the failed build.

        Args:
            words: the builder's message; for a failed program, it names only the exit code.
        """
        end = [*self._said][-_END_LINES:]
        is_program = self._last and any(map(_EXIT_CODE.search, (*end, words)))
        reason = self._last if is_program else _SCRIPT.sub("", words)
        return self._watch.failure(f"{self._step}: {reason}" if self._step else reason, self._said)

    def end(self) -> str:
        """End the output. Returns its last line."""
        self.take("\n")
        return self._said[-1] if self._said else "the docker command printed nothing"

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
        watch.log.say(f"The classic builder cannot pass secrets, so the build does not have the certificates of {ca}")
    # It fails on --mount.
    text = intermediate.marked(_MOUNT.sub(r"\1", recipe.dockerfile), engine)  # a context brings its own Dockerfile
    said = Transcript(watch)

    def call(client: Any, put: Any) -> Any:
        options = {
            "tag": recipe.tag,
            "buildargs": {**_proxies(env), **recipe.args, **({"BASE": recipe.base} if recipe.base else {})},
            "labels": {**recipe.labels, intermediate.LABEL: ""},
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
    """Yield the context, and report each piece that was taken to the listener."""
    try:
        for piece in context:
            put({})
            yield piece
    except OSError as error:  # our files: not to be mistaken for a lost engine
        raise BuildFailed(f"A file for the image cannot be read: {error}.") from error


def _remove_layers(engine: Engine, layers: list[str], base: str) -> None:
    """Remove the intermediate images of a failed build, which the engine would keep for ever."""
    until = time.monotonic() + _END_LIMIT_S
    for layer in reversed(layers):
        while not base.removeprefix("sha256:").startswith(layer):
            try:
                with engine.translated_errors():
                    engine.api.remove_image(layer, noprune=True)
            except EngineError as error:
                # The engine is still ending the container of the last step, or another build uses the image.
                if error.status == 409 and "container" in error.message and time.monotonic() < until:
                    time.sleep(POLL_S)
                    continue
            break


def _require(engine: Engine, recipe: Recipe, watch: Watch) -> None:
    try:
        with engine.translated_errors():
            engine.api.inspect_image(recipe.tag)
    except EngineError as error:
        raise watch.failure("the engine stopped during the build") from error


# -- BuildKit ---------------------------------------------------------------------------------------------------------


def _build_with_cli(
    engine: Engine, command: Sequence[str], recipe: Recipe, watch: Watch, env: Mapping[str, str]
) -> None:
    said = Transcript(watch)
    # A killed docker command leaves a copy of the Dockerfile in its temporary folder. By this name, the next start
    # ends the command and removes the folder if this server is killed, unless the image is being built then.
    prefix = f"{BUILDING}image-{recipe.tag.rpartition(':')[2]}-"
    folder = tempfile.TemporaryDirectory(prefix=prefix, dir=engine.home.environments, ignore_cleanup_errors=True)
    with folder as temporary, _named(engine, recipe.base) as base:
        arguments = ["--progress=plain", f"--tag={recipe.tag}", f"--build-arg=BASE={base}"]
        arguments += [f"--build-arg={name}={value}" for name, value in recipe.args.items()]
        # By name only, so that the list of processes shows no proxy password.
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
            Path(temporary, PROCESS_FILE),
        )
    if code != 0:
        raise said.failure(said.end())
    _require(engine, recipe, watch)


def _run(
    command: Sequence[str], env: Mapping[str, str], text: str, said: Transcript, watch: Watch, process_file: Path
) -> int:
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
        note(process.pid, process_file)
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
    """Give an image a name for the build: BuildKit takes an ID for a name on the Docker Hub."""
    with engine.translated_errors():
        found = engine.api.inspect_image(image)
        has_others = bool(found.get("RepoTags") or found.get("RepoDigests"))
        # Removing the last name of an image removes the image. Then it keeps our name, always the same.
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
    """Remove the names that dead servers of this home gave to images (`_named`).

    Raises:
        EngineError: when the engine refuses or does not answer.
    """
    ours = re.compile(rf"{REPOSITORY}:{_names(engine)}(\d+-[\d.]+)-[0-9a-f]{{16}}\Z")
    with engine.translated_errors():
        images: list[dict[str, Any]] = engine.api.images()
    for image in images:
        tags = image["RepoTags"] or ()
        left = [tag for tag in tags if (found := ours.match(tag)) and not is_alive(found[1].replace("-", ":"))]
        if image["RepoDigests"] or len(left) < len(tags):  # removing its last name would remove the image
            for tag in left:
                with engine.translated_errors():
                    engine.api.remove_image(tag, noprune=True)


def _names(engine: Engine) -> str:
    """Return the prefix of the names that `_named` gives for this home."""
    return f"from-{hashlib.sha256(os.fsencode(engine.key)).hexdigest()[:16]}-"


# -- the server's variables that a build gets -------------------------------------------------------------------------


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    names = [name for lower in _PROXIES for name in (lower, lower.upper())]
    return {name: env[name] for name in names if env.get(name)}


def _ca_file(env: Mapping[str, str]) -> str:
    return next((env[name] for name in _CA_FILES if env.get(name) and Path(env[name]).is_file()), "")
