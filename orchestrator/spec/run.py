"""The spec of a run: `RunSpec` and its parts, frozen and checked.

Plain dataclasses, so that the command line does not load pydantic. The server gives the same classes to pydantic
(`spec.validate`), which checks types and refuses unknown fields. Values are checked here, in `__post_init__`, for both.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import InvalidConfig
from orchestrator.spec.conditions import check as check_conditions
from orchestrator.spec.fields import redacted_spec
from orchestrator.spec.mounts import Mount, check_distinct, relative_parts
from orchestrator.spec.names import check_label, check_project, check_run_name, check_secret_name
from orchestrator.spec.redaction import redacted
from orchestrator.spec.type_checks import check_types
from orchestrator.spec.variables import MADE

# Patterns that few specs need are not compiled here: every `spell run` loads this module.
_ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*\Z"
_PYTHON = r"(\d+(\.\d+){0,2}|(cpython|pypy)[\w.@-]*)\Z"
_PARAM_NAME = r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\Z"
PLACEHOLDER = re.compile(r"(?<![\w:]):([A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*):(?![\w:])")
_IMAGE = r"(?i)[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?\Z"
_LONGEST = 500  # of an image's name
_APT = r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9][\w.+:~-]*)?\Z"
NETWORKS = ("bridge", "none")
CACHES = ("on", "read-only", "off")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
MAX_RETRIES = 100
MAX_LABELS = 100
LEAST_CPUS, MOST_CPUS, MOST_GPUS = 0.01, 10_000, 10_000  # the smallest share of the kernel
LEAST_MEMORY_BYTES, MOST_MEMORY_BYTES = 6 << 20, 1 << 50  # the least of an engine
MAX_COMMAND_BYTES = 100_000  # the kernel takes 128 KiB in one argument


def _reject(message: str, cure: str = "") -> None:
    raise InvalidConfig(message, cure)


def check_digest(digest: str) -> str:
    """`digest`, if it is a SHA-256 of 64 hex digits; it becomes a part of a path.

    Raises:
        InvalidConfig: it is not.
    """
    if not _DIGEST.match(digest):
        _reject("A digest must be a SHA-256 of 64 hex digits.")
    return digest


@dataclass(frozen=True, slots=True)
class RequirementFile:
    """A requirements file, by value: its name, which those of a spec have in a folder of their own, and its text."""

    name: str
    text: str = field(repr=False)  # it may hold credentials


@dataclass(frozen=True, slots=True)
class Submodule:
    """A submodule whose files are in a snapshot: its path, its URL without credentials, and its recorded commit."""

    path: str
    url: str
    commit: str


@dataclass(frozen=True, slots=True)
class Code:
    """The snapshot of a run's code, and its origin.

    Attributes:
        tree: SHA-256 of the manifest (64 hex digits); see `manifest.Manifest.tree`.
        subdir: the caller's directory, relative to the root of the code; "" for the root.
        repository: base name of the repository.
        commit: the commit that was checked out.
        dirty: whether the code differs from that commit.
        diff: SHA-256 of the blob with the difference to that commit as a git patch; "" when clean.
        url, ref: the git URL and the ref that the code was fetched from; "" otherwise.
        submodules: those whose files are in it.
    """

    tree: str
    subdir: str = ""
    repository: str = ""
    commit: str = ""
    dirty: bool = False
    diff: str = ""
    url: str = ""
    ref: str = ""
    submodules: tuple[Submodule, ...] = ()

    def __post_init__(self) -> None:
        check_digest(self.tree)
        if self.diff:
            check_digest(self.diff)
        if self.subdir:
            relative_parts(self.subdir, "The code's subdir")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the environment of a run was found.

    Attributes:
        file: its path in the code.
        groups, extras: what was chosen of it.
    """

    file: str
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class RunSpec:
    """A request for one run. The table of `spec.fields` has the other properties of each field.

    Attributes:
        command: a line for the shell.
        machine_type: the name of a request for resources, see `[machine_types]` in the configuration.
        cpus, memory_bytes, gpus: what the run asks for beside its machine type, and instead of what that has; None for that.
        gpu_type, gpu_memory_bytes: each of its GPUs has one of these names (`a100`, several with commas) and at least this much.
        executor: the name of the executor; "" for the configured one.
        mounts: resources of earlier runs, read-only.
        pip, requirements: requirement lines and requirement files (by value).
        python: the version of Python ("3.12"); "" for the server's own.
        editables: projects of the code to install editable: folders from its root, with extras (".", "libs/a[gpu]").
        frameworks: named sets of pip packages; None for the configured default.
        image: the base image of its container; "" for the configured one.
        apt: packages of the image's distribution, `NAME` or `NAME=VERSION`.
        network: `bridge` or `none`; "" for the configured one.
        env: environment variables.
        code: the snapshot; None for a run without code.
        source: the file of the code that said packages, Python and editable projects; None if they were typed.
        params: fill `:NAME:` in the command.
        timeout_s: stop the run after this many seconds of running time; None for never.
        ignore: gitignore patterns of outputs that are not kept.
        retries: the number of times that a failed attempt is tried again.
        project: the name of the project that the run belongs to; "" for none.
        stop_conditions: any of these stops the run, `METRIC OP VALUE[:MIN_INDEX]`, joined by `&&` where all must hold.
        no_output_timeout_s: stop the run when it has been idle for this many seconds; None for never.
        notify: webhooks to call when it ends. A webhook's URL is its key, so it is hidden like values of variables.
        secrets: environment variables, and the names of the secrets whose values they get.
        caches: `on`, `read-only` or `off`: what it has of the caches that runs share; "" for the configured one.
        resume: a run, or a folder of its outputs (`runs/7/checkpoints`), whose files it begins with, as its own checkpoints.
        checkpoints: the folder of its checkpoints, relative to the caller's directory; "" for the usual one.
    """

    command: str
    machine_type: str = "cpu"
    cpus: float | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    gpu_type: str = ""
    gpu_memory_bytes: int | None = None
    executor: str = ""
    mounts: tuple[Mount, ...] = ()
    pip: tuple[str, ...] = ()
    requirements: tuple[RequirementFile, ...] = ()
    python: str = ""
    editables: tuple[str, ...] = ()
    frameworks: tuple[str, ...] | None = None
    image: str = ""
    apt: tuple[str, ...] = ()
    network: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    code: Code | None = None
    source: Source | None = None
    description: str = ""
    name: str = ""
    labels: tuple[str, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    ignore: tuple[str, ...] = ()
    retries: int = 0
    project: str = ""
    stop_conditions: tuple[str, ...] = ()
    no_output_timeout_s: float | None = None
    notify: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    caches: str = ""
    resume: str = ""
    checkpoints: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.command.strip() or "\0" in self.command:
            _reject("The command is empty or contains a NUL character.")
        if not self.command.lstrip()[0].isascii():
            from orchestrator.spec.pasted import check_pasted  # 0.2 ms; few commands begin so

            check_pasted(self.command)
        for text in (self.command, self.description, *self.ignore, *self.params.values()):
            _check_unicode(text)
        _check_resources(self)
        if self.python and not re.match(_PYTHON, self.python):
            _reject(f"Python version {self.python!r} is not like '3.12'.")
        if self.name:
            check_run_name(self.name)
        _check_labels(self.labels)
        if self.timeout_s is not None and not 0 < self.timeout_s < 1e9:
            _reject("The time limit must be more than 0, and less than 16 million minutes.")
        if not 0 <= self.retries <= MAX_RETRIES:
            _reject(f"A run can be tried again up to {MAX_RETRIES} times, not {self.retries} times.")
        check_conditions(self.stop_conditions)
        if self.no_output_timeout_s is not None and not 0 < self.no_output_timeout_s < 1e9:
            _reject("The time without output must be more than 0, and less than 16 million minutes.")
        for url in self.notify:
            _check_webhook(url)
        if self.project:
            check_project(self.project)
        _check_container(self.image, self.apt, self.network)
        _check_choice("caches", self.caches, CACHES)
        _check_env(self.env)
        _check_secrets(self.secrets, self.env)
        _check_requirements(self.pip, self.editables)
        check_distinct(self.mounts)
        _check_checkpoints(self.resume, self.checkpoints)
        self._check_params()
        if len(self.filled_command.encode("utf-8", "replace")) > MAX_COMMAND_BYTES:
            _reject(f"The command is longer than {MAX_COMMAND_BYTES} bytes.", "Put it into a script.")

    def __repr__(self) -> str:
        return f"RunSpec({', '.join(f'{name}={value!r}' for name, value in self.redacted().items())})"

    def redacted(self) -> dict[str, Any]:
        """The spec as JSON values, with hidden values replaced: the only form that people and logs may see."""
        return redacted_spec(to_wire(self))

    def _check_params(self) -> None:
        for name, value in self.params.items():
            if not re.match(_PARAM_NAME, name):
                _reject(f"Parameter name {name!r} is not a word of letters, digits, '_', '-' and dots between them.")
            if "\0" in value:
                _reject(f"The value of parameter {name!r} contains a NUL character.")
        if self.params:
            wanted = set(PLACEHOLDER.findall(self.command))
            there = ", ".join(f"':{name}:'" for name in sorted(wanted - set(self.params)))
            for name in sorted(set(self.params) - wanted):
                cure = f"It has {there}." if there else "Write it where the value belongs."
                _reject(f"The command has no ':{name}:' for parameter {name!r}.", cure)
            for name in sorted(wanted - set(self.params)):
                _reject(f"The command's ':{name}:' has no value.", f"Give it with --param {name}=VALUE.")

    @property
    def filled_command(self) -> str:
        """The command with every `:NAME:` replaced by its parameter."""
        return PLACEHOLDER.sub(lambda found: self.params.get(found[1], found[0]), self.command)


def _check_resources(spec: RunSpec) -> None:
    if spec.cpus is not None and not LEAST_CPUS <= spec.cpus < MOST_CPUS:
        _reject(f"A run can ask for {LEAST_CPUS} to {MOST_CPUS - 1} cores, not {spec.cpus:g}.")
    if spec.memory_bytes is not None and not LEAST_MEMORY_BYTES <= spec.memory_bytes < MOST_MEMORY_BYTES:
        _reject("A run can ask for 6M of memory or more, less than 1024T.", "Give a unit: --memory 32G")
    if spec.gpus is not None and not 0 <= spec.gpus <= MOST_GPUS:
        _reject(f"A run can ask for 0 to {MOST_GPUS} GPUs, not {spec.gpus}.")
    if spec.gpu_memory_bytes is not None and not 1_000_000 <= spec.gpu_memory_bytes < MOST_MEMORY_BYTES:
        _reject("A run can ask for 1M of GPU memory or more, less than 1024T.", "Give a unit: --gpu-memory 40G")
    if spec.gpu_type and (not re.search(r"[A-Za-z0-9]", spec.gpu_type) or len(spec.gpu_type) > 100):
        _reject(f"GPU type {spec.gpu_type!r} is not like 'a100' or 'rtx 4090'.")
    if spec.gpus == 0 and (spec.gpu_type or spec.gpu_memory_bytes):
        _reject("A run without GPUs cannot ask for a type or memory of them.", "Leave out --gpus 0.")


def _check_labels(labels: tuple[str, ...]) -> None:
    if len(labels) > MAX_LABELS:
        _reject(f"A run can have at most {MAX_LABELS} labels.")
    for label in labels:
        check_label(label)


def _check_container(image: str, apt: tuple[str, ...], network: str) -> None:
    if image and (
        not re.match(_IMAGE, image) or {"", ".", ".."}.intersection(image.split("/")) or len(image) > _LONGEST
    ):
        _reject(f"Image {image!r} is not like 'python:3.12-slim'.")
    for package in apt:
        if not re.match(_APT, package):
            _reject(f"{package!r} is not an apt package.", "Write it as NAME or NAME=VERSION.")
    _check_choice("network", network, NETWORKS)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value and value not in choices:
        _reject(f"Unknown {name} {value!r}.", f"Choose one of: {', '.join(choices)}.")


def split_editable(text: str) -> tuple[str, str]:
    """Split `FOLDER[EXTRA,…]`. Returns the folder in its normal form, and the extras ("gpu,dev").

    Raises:
        InvalidConfig: it has another form.
    """
    folder, bracket, extras = text.partition("[")
    if not folder or "\n" in text or "\0" in text or (bracket and not re.match(r"[\w\s.,-]*\]\Z", extras)):
        _reject(f"{text!r} is not of the form FOLDER or FOLDER[EXTRA].")
    return posixpath.normpath(folder), extras.removesuffix("]")


def _check_checkpoints(resume: str, folder: str) -> None:
    if resume:
        relative_parts(resume, "The run to resume", "Give a run, or a folder of its outputs: runs/7/output")
    if folder:
        relative_parts(folder, "The folder of checkpoints", "Give a folder below the working directory.")


def _check_webhook(url: str) -> None:
    scheme, colon, rest = url.partition("://")
    if (
        not colon
        or scheme.lower() not in ("http", "https")
        or not rest.strip("/")
        or re.search(r"[\x00-\x20\x7f]", url)
    ):
        _reject("A webhook must be an http:// or https:// URL.")
    if not _is_unicode(url):
        _reject("The URL of a webhook is not text in UTF-8.")


def _check_env(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not re.match(_ENV_NAME, name):
            from orchestrator.spec.pasted import kind_of  # 0.2 ms; few names are refused

            cure = "The quotes are typographic, which are none to a shell: write -e NAME=VALUE, or with plain quotes."
            _reject(
                f"Environment variable name {name!r} is not allowed.",
                cure if kind_of(name) == "quote" else "Write it as NAME=VALUE.",
            )
        if name.startswith("SPELL_"):
            _reject(f"Environment variable {name!r} is set by spell itself.")
        if "\0" in value:
            _reject(f"The value of environment variable {name!r} contains a NUL character.")
        if not _is_unicode(value):
            _reject(f"The value of environment variable {name!r} is not text in UTF-8.")


def _check_secrets(secrets: Mapping[str, str], env: Mapping[str, str]) -> None:
    for variable, name in secrets.items():
        check_secret_name(name)
        if not re.match(_ENV_NAME, variable):
            _reject(
                f"Environment variable name {variable!r} is not allowed.",
                f"Choose another one: --secret {name}=VARIABLE",
            )
        if variable.startswith("SPELL_") or variable in MADE:
            _reject(f"Environment variable {variable!r} is set by spell itself.")
        if variable in env:
            _reject(f"Environment variable {variable!r} is given twice: with --env and with --secret.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.end + 20]
        _reject(f"{near!r} is not text in UTF-8.")


def _check_requirements(lines: tuple[str, ...], editables: tuple[str, ...]) -> None:
    for text in editables:
        split_editable(text)
    for line in lines:
        if not line.strip() or line.strip().startswith("-") or any(char in line for char in "\n\r\0"):
            is_file = line.lstrip().startswith(("-r", "--requirement"))
            cure = "Give the file with: --pip-req FILE" if is_file else "Write it as NAME or NAME==VERSION."
            _reject(f"{redacted(line)!r} is not a pip requirement.", cure)


def to_wire(value: Any) -> Any:
    """A spec or record (or a tuple or mapping of them) as plain JSON values."""
    if value is None or isinstance(value, str | int | float):  # first, as most values are of these types
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_wire(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_wire(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_wire(item) for item in value]
    return value
