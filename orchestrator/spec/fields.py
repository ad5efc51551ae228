"""The table of a spec's fields: how each is written, joined, compared and shown.

Whatever goes through all fields of a `RunSpec` reads it: options, job files, reruns, `--reuse`, diffs and exports. A new
field needs an attribute of `RunSpec`, a row here, its option's help in `cli/input/options.py`, and a line in
docs/job-files.md and docs/json.md; tests hold them to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.errors import InvalidConfig
from orchestrator.spec.mounts import Mount, normal_path, parse_mount
from orchestrator.spec.redaction import masked, redacted
from orchestrator.spec.sizes import size_bytes, size_text

if TYPE_CHECKING:  # not needed to make a spec; every `spell run` loads this
    from pathlib import Path


# -- how values are written -------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """How the values of a field are written.

    Attributes:
        shape: in a job file: `text`, `number`, `minutes`, `list` or `mapping`.
        read: the value of what is written in a folder.
        write: the reverse.
    """

    shape: str
    read: Callable[[Any, Path], Any] = lambda written, _folder: written
    write: Callable[[Any], Any] = lambda value: value


class FileName(NamedTuple):
    """The name of a file: a path relative to a folder or to the run's code, or a URL.

    Attributes:
        is_typed: whether it was typed, and so is first looked for in the run's code. That of a job file is beside it.
    """

    written: str
    folder: Path
    is_typed: bool = False


def located(line: str, folder: Path) -> str:
    """A requirement; if it is a path (`./x.whl`), absolute: the server has another working directory."""
    return str((folder / line).absolute()) if line.startswith(("./", "../")) else line


def _count(written: float, _folder: Path) -> int:
    if written != written // 1:
        raise InvalidConfig(f"A run can be tried again a whole number of times, not {written:g} times.")
    return int(written)


def _gpus(written: float, _folder: Path) -> int:
    if written != written // 1:
        raise InvalidConfig(f"A run gets whole GPUs, not {written:g}.")
    return int(written)


def _secrets(texts: Sequence[str], _folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, variable = text.partition("=")
        if not name or (equals and not variable):
            raise InvalidConfig(f"--secret {text!r} is not of the form NAME or NAME=VARIABLE.")
        variable = variable or name
        if found.get(variable, name) != name:
            raise InvalidConfig(f"--secret: variable {variable} cannot hold both {found[variable]} and {name}.")
        found[variable] = name
    return found


TEXT = Kind("text")
LIST = Kind("list", lambda texts, _folder: tuple(texts), list)
MAPPING = Kind("mapping", lambda pairs, _folder: dict(pairs), dict)
COUNT = Kind("number", _count)
CORES = Kind("number")
GPUS = Kind("number", _gpus)
SIZE = Kind("text", lambda text, _folder: size_bytes(text) if text else None, size_text)
GPU_SIZE = Kind(
    "text", lambda text, _folder: size_bytes(text, 1000) if text else None, lambda size: size_text(size, 1000)
)
MINUTES = Kind("minutes", lambda minutes, _folder: minutes * 60, lambda seconds: seconds / 60)
MOUNTS = Kind(
    "list",
    lambda texts, _folder: tuple(parse_mount(text) for text in texts),
    lambda mounts: [f"{mount.resource}:{mount.path}" for mount in mounts],
)
PACKAGES = Kind("list", lambda lines, folder: tuple(located(line, folder) for line in lines), list)
FILES = Kind("list", lambda names, folder: tuple(FileName(name, folder) for name in names))
"""Names of files, until the client reads them. Not written back: code that writes a job file writes these files."""
SECRETS = Kind("list", _secrets, lambda secrets: [f"{name}={variable}" for variable, name in secrets.items()])
CODE = Kind("")
"""Captured or found, not written."""


# -- how two values are joined, the later one over the earlier --------------------------------------------------------


def replaced(_earlier: Any, later: Any) -> Any:
    """The later value."""
    return later


def added(earlier: Any, later: Any) -> Any:
    """Both lists. Accepts values of a wrong type, as the other functions here do: reading the spec refuses them."""
    return type(later)([*earlier, *later]) if isinstance(later, list | tuple) else later


def updated(earlier: Any, later: Any) -> Any:
    """Both mappings; the later one wins."""
    return {**earlier, **later} if isinstance(later, Mapping) else later


def mounted(earlier: Any, later: Any) -> Any:
    """Both lists of mounts, where a later one takes the place of one at the same path."""
    if not isinstance(later, list | tuple):
        return later
    taken = {_path(item) for item in later}
    return added([item for item in earlier if _path(item) not in taken], later)


def _path(mount: Any) -> str:
    path = mount.path if isinstance(mount, Mount) else mount.get("path") if isinstance(mount, Mapping) else None
    return normal_path(str(path))


# -- the table --------------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """One field of a spec.

    Attributes:
        name: of the attribute of `RunSpec`.
        kind: how its values are written.
        key: in job files; "" where it is not in them.
        options: of `spell run`.
        join: joins an earlier value and a later one.
        hides: returns the text to show instead of a text; None to show all.
        is_fixed: whether a rerun keeps it.
        is_environment: whether it says which packages a run gets, and in what image.
        is_compared: whether `--reuse` tells two runs apart by it.
    """

    name: str
    kind: Kind
    key: str = ""
    options: tuple[str, ...] = ()
    join: Callable[[Any, Any], Any] = replaced
    hides: Callable[[str], str] | None = None
    is_fixed: bool = False
    is_environment: bool = False
    is_compared: bool = False

    def shown(self, value: Any) -> Any:
        """A value, in whatever form, as people may see it."""
        return value if self.hides is None else _each_text(value, self.hides)


CODE_KEYS = ("github_url", "github_ref", "no_project", "group", "extra")
"""The keys of a job file that say which code to capture, and what of its project to install. The spec has no such fields."""
PROJECT_OPTIONS = ("--no-project", "--group", "--extra")
_CODE_OPTIONS = (
    "--github-url",
    "--github-ref",
    "--commit-ref",
    "--include-untracked",
    "--submodules",
    "--no-code",
    "--whole-folder",
)

FIELDS = (
    Field("command", TEXT, "command", is_fixed=True, is_compared=True),
    Field("machine_type", TEXT, "machine_type", ("-t", "--machine-type")),
    Field("cpus", CORES, "cpus", ("--cpus",)),
    Field("memory_bytes", SIZE, "memory", ("--memory",)),
    Field("gpus", GPUS, "gpus", ("--gpus",), is_compared=True),
    Field("gpu_type", TEXT, "gpu_type", ("--gpu-type",), is_compared=True),
    Field("gpu_memory_bytes", GPU_SIZE, "gpu_memory", ("--gpu-memory",), is_compared=True),
    Field("executor", TEXT, "executor", ("--executor",), is_compared=True),
    Field("mounts", MOUNTS, "mounts", ("-m", "--mount"), mounted, is_compared=True),
    Field("pip", PACKAGES, "pip", ("--pip",), added, redacted, is_environment=True, is_compared=True),
    Field("requirements", FILES, "pip_req", ("--pip-req",), added, redacted, is_environment=True, is_compared=True),
    Field("python", TEXT, "python", ("--python",), is_environment=True, is_compared=True),
    Field("editables", LIST, "editable", ("--editable",), added, is_environment=True, is_compared=True),
    Field("frameworks", LIST, "framework", ("--framework",), is_environment=True, is_compared=True),
    Field("image", TEXT, "image", ("--from", "--docker-image"), is_environment=True, is_compared=True),
    Field("apt", LIST, "apt", ("--apt",), added, is_environment=True, is_compared=True),
    Field("network", TEXT, "network", ("--network",), is_compared=True),
    Field("env", MAPPING, "env", ("-e", "--env"), updated, masked, is_compared=True),
    Field("code", CODE, "", _CODE_OPTIONS, hides=redacted, is_fixed=True, is_compared=True),
    Field("source", CODE, "", PROJECT_OPTIONS, is_fixed=True),
    Field("description", TEXT, "description", ("-d", "--description")),
    Field("name", TEXT, "name", ("--name",)),
    Field("labels", LIST, "labels", ("--label",), added),
    Field("params", MAPPING, "params", ("--param",), updated, is_compared=True),
    Field("timeout_s", MINUTES, "timeout_min", ("--timeout",)),
    Field("ignore", LIST, "ignore", ("--ignore",), added, is_compared=True),
    Field("retries", COUNT, "retries", ("--retries",)),
    Field("project", TEXT, "project", ("-p", "--project")),
    Field("stop_conditions", LIST, "stop_conditions", ("--stop-condition",), added),
    Field("no_output_timeout_s", MINUTES, "no_output_timeout_min", ("--no-output-timeout",)),
    Field("notify", LIST, "notify", ("--notify",), added, masked),
    Field("secrets", SECRETS, "secrets", ("--secret",), updated, is_compared=True),
    Field("caches", TEXT, "caches", ("--caches",)),
    Field("resume", TEXT, "resume", ("--resume",), is_compared=True),
    Field("checkpoints", TEXT, "checkpoints", ("--checkpoints",), is_compared=True),
)
BY_NAME = {field.name: field for field in FIELDS}
BY_KEY = {field.key: field for field in FIELDS if field.key}


def joined(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """The values of two sources for one spec, joined; each maps names of fields to values."""
    found = dict(earlier)
    for name, value in later.items():
        found[name] = BY_NAME[name].join(found[name], value) if name in found and name in BY_NAME else value
    return found


def redacted_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON values of a spec as people may see them: without values of variables, webhooks, and credentials in URLs."""
    return {name: BY_NAME[name].shown(value) if name in BY_NAME else value for name, value in spec.items()}


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(item, change) for item in value]
    return value
