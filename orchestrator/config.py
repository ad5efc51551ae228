"""`$SPELL_HOME/config.toml`, read once when spelld starts, and checked by pydantic.

executor = "process"               # for runs that name none; "" takes docker if an engine answers
include_untracked = true           # send untracked files that git does not ignore, without asking
submodules = true                  # send submodules, too, and fetch those that are not here
default_frameworks = ["pytorch"]   # for runs that name no framework
ignore = ["*.tmp"]                 # outputs that are never kept
pass_env = ["WANDB_*"]             # further variables of the server that runs get
grace_s = 10                       # between TERM and KILL when a run is stopped
sample_interval_s = 5              # how often CPU, memory and GPU use of a run is recorded
readable_by = "owner"              # who may read outputs and uploads: "owner", "group" (of the home) or "everyone"
torch_backend = "auto"             # which build of torch: for this machine's GPU driver; or cpu, cu128, …; "none" for the index's

[frameworks]
pytorch = ["torch"]

[machine_types.big]
cpus = 8
memory_gb = 32
gpus = 1
pids = 4096                        # processes of a container
shm_gb = 8                         # /dev/shm of a container

[limits]
log_mb = 1024                      # of each run; the middle of a longer log is dropped
free_gb = 0                        # no run is cast while the home's disk has less
environments_gb = 0                # above it, the least recently used environments are removed; 0 for no limit
home_gb = 0                        # no run is cast and nothing is uploaded while the home takes more; 0 for no limit

[caches]
enabled = true                     # what tools in a run download is kept for later runs; see data/caches.py
limit_gb = 0                       # above it, what was not used for longest is removed; 0 for no limit

[caches.folders]                   # variables that name a cache to a tool: a folder in the shared one, or on this machine
HF_HOME = "/data/huggingface"

[docker]
host = ""                          # the engine's socket, unix:///…; "" finds it
base_image = "python:{version}-slim"
gpu_base_image = "python:{version}-slim"
network = "bridge"                 # or "none"
idle_limit_s = 600                 # a build or pull without output for this long is given up

[docker.options]                   # further fields of the engine's HostConfig, by the names of docker's SDK
dns = ["10.0.0.53"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, ConfigDict, StringConstraints, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails

from orchestrator import machine
from orchestrator.errors import HomeUnusable, InvalidConfig, UsageError
from orchestrator.records.machines import MachineType
from orchestrator.spec.run import LEAST_CPUS, LEAST_MEMORY_BYTES, MOST_CPUS, MOST_GPUS, MOST_MEMORY_BYTES, RunSpec
from orchestrator.spec.variables import MADE

_MIB, _GIB = 1 << 20, 1 << 30
_REACH = ("dns", "dns_opt", "dns_search", "extra_hosts")
_LEAST_MEMORY_GB, _MOST_MEMORY_GB = LEAST_MEMORY_BYTES / _GIB, MOST_MEMORY_BYTES / _GIB
_MOST_PIDS = 1 << 22  # that Linux numbers
_WEEK_S = 7 * 86400.0
_STRICT = ConfigDict(extra="forbid")
DEFAULT_FRAMEWORKS = {
    "pytorch": ("torch",),
    "transformers": ("torch", "transformers"),
}


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class MachineTypeConfig:
    """`[machine_types.NAME]`: cores (may be a fraction), memory in GiB, number of GPUs; processes and shared memory."""

    cpus: Annotated[float, Ge(LEAST_CPUS), Lt(MOST_CPUS)] = 1
    memory_gb: Annotated[float, Ge(_LEAST_MEMORY_GB), Lt(_MOST_MEMORY_GB)] | None = None
    gpus: Annotated[int, Ge(0), Le(MOST_GPUS)] = 0
    pids: Annotated[int, Ge(16), Le(_MOST_PIDS)] = 4096
    shm_gb: Annotated[float, Gt(0), Lt(_MOST_MEMORY_GB)] | None = None


def _check_placeholders(image: str) -> str:
    unknown = re.search(r"[{}][^{}]*}?", image.replace("{version}", ""))
    if unknown:
        raise ValueError(f"there is no {unknown[0]}; there is: {{version}}")
    return image


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class DockerConfig:
    """`[docker]`; see the module's docstring."""

    host: str = ""
    base_image: Annotated[str, AfterValidator(_check_placeholders)] = "python:{version}-slim"
    gpu_base_image: Annotated[str, AfterValidator(_check_placeholders)] = "python:{version}-slim"
    network: Literal["bridge", "none"] = "bridge"
    idle_limit_s: Annotated[float, Gt(0), Le(_WEEK_S)] = 600.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def reach(self) -> dict[str, Any]:
        """The options for the network, which also apply to containers that build."""
        return {name: value for name, value in self.options.items() if name in _REACH}


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """`[limits]`: how much disk space things may take. See the module's docstring."""

    log_mb: Annotated[float, Ge(0.0625), Lt(1 << 40)] = 1024.0
    free_gb: Annotated[float, Ge(0), Lt(1 << 30)] = 0.0
    environments_gb: Annotated[float, Ge(0), Lt(1 << 30)] = 0.0
    home_gb: Annotated[float, Ge(0), Lt(1 << 30)] = 0.0

    @property
    def log_bytes(self) -> int:
        """The most disk space that the log of one run may take."""
        return int(self.log_mb * _MIB)

    @property
    def free_bytes(self) -> int:
        """The free disk space of the home that is required to cast a run."""
        return int(self.free_gb * _GIB)

    @property
    def environments_bytes(self) -> int:
        """The most disk space that environments may take; 0 for no limit."""
        return int(self.environments_gb * _GIB)

    @property
    def home_bytes(self) -> int:
        """The most disk space that the home may take when a run is cast; 0 for no limit."""
        return int(self.home_gb * _GIB)


def _check_cache_folders(folders: dict[str, str]) -> dict[str, str]:
    for name, folder in folders.items():
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("SPELL_") or name in MADE:
            raise ValueError(f"{name!r} cannot be the name of a variable for a cache")
        if not folder.startswith(("/", "~")) and {"..", "."}.intersection(folder.split("/")):
            raise ValueError(f"{name}: {folder!r} is neither a path of this machine nor a name in the shared folder")
    return folders


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class CachesConfig:
    """`[caches]`: what runs keep for later runs. See the module's docstring."""

    enabled: bool = True
    limit_gb: Annotated[float, Ge(0), Lt(1 << 30)] = 0.0
    folders: Annotated[dict[str, str], AfterValidator(_check_cache_folders)] = field(default_factory=dict)

    def is_on(self, asked: str) -> bool:
        """Whether a run has caches; `asked` is the field of its spec."""
        return asked in ("on", "read-only") or (not asked and self.enabled)

    @property
    def limit_bytes(self) -> int:
        """The most disk space that caches may take while nothing of them is in use; 0 for no limit."""
        return int(self.limit_gb * _GIB)


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; see the module's docstring."""

    executor: str = ""
    include_untracked: bool = False
    submodules: bool = False
    default_frameworks: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    grace_s: Annotated[float, Ge(0), Le(_WEEK_S)] = 10.0
    sample_interval_s: Annotated[float, Ge(0.01), Le(_WEEK_S)] = 5.0
    readable_by: Literal["owner", "group", "everyone"] = "owner"
    torch_backend: Annotated[str, StringConstraints(pattern=r"^(auto|none|cpu|cu\d{2,3}|rocm\d[\d.]*|xpu)$")] = "auto"
    frameworks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    machine_types: dict[str, MachineTypeConfig] = field(default_factory=dict)
    docker: DockerConfig = field(default_factory=DockerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    caches: CachesConfig = field(default_factory=CachesConfig)

    @property
    def home_mode(self) -> int:
        """The mode of the home's root."""
        return {"owner": 0o700, "group": 0o750, "everyone": 0o755}[self.readable_by]

    def types(self) -> dict[str, MachineType]:
        """All machine types by name: the built-in `cpu` and `gpu`, and those of the file."""
        half = max(1, int(machine.usable_cpus() // 2))
        share = max(1, half // max(1, machine.gpu_count()))
        found = {"cpu": MachineType("cpu", half), "gpu": MachineType("gpu", share, gpus=1)}
        for name, item in self.machine_types.items():
            memory = int(item.memory_gb * _GIB) if item.memory_gb else None
            shm = int(item.shm_gb * _GIB) if item.shm_gb else None
            found[name.lower()] = MachineType(name.lower(), item.cpus, memory, item.gpus, item.pids, shm)
        return found

    def machine_type(self, name: str) -> MachineType:
        """Return the machine type of this name, upper or lower case. Raises UsageError when it does not exist."""
        types = self.types()
        if found := types.get(name.lower()):
            return found
        raise UsageError(f"There is no machine type {name!r}.", f"There are: {', '.join(types)}.")

    def machine_for(self, spec: RunSpec) -> MachineType:
        """Return the machine type of a spec, with what the spec asks for by word instead of what the type has.

        Whoever asks for GPUs and names no machine type gets the type `gpu`. A type with GPUs gives its cores for each.

        Raises:
            UsageError: when the type does not exist.
        """
        asks = bool(spec.gpus or spec.gpu_type or spec.gpu_memory_bytes)
        base = self.machine_type("gpu" if asks and spec.machine_type.lower() == "cpu" else spec.machine_type)
        gpus = (max(base.gpus, 1) if asks else base.gpus) if spec.gpus is None else spec.gpus
        share = base.cpus * gpus / base.gpus if base.gpus and gpus else base.cpus
        return replace(
            base,
            cpus=spec.cpus or max(base.cpus, min(share, machine.usable_cpus())),
            memory_bytes=spec.memory_bytes or base.memory_bytes,
            gpus=gpus,
            gpu_type=spec.gpu_type,
            gpu_memory_bytes=spec.gpu_memory_bytes or 0,
        )

    def framework_names(self) -> list[str]:
        """All sets of packages: the built-in ones, and those of the file."""
        return sorted(DEFAULT_FRAMEWORKS | self.frameworks)

    def framework(self, text: str) -> tuple[str, ...]:
        """Return the requirement lines of `NAME` or `NAME==VERSION`; the version is that of the set's first package.

        Raises:
            InvalidConfig: when no set has this name.
        """
        name, _, version = text.partition("==")
        sets = DEFAULT_FRAMEWORKS | self.frameworks
        if name not in sets or not sets[name] or text.endswith("=="):
            raise InvalidConfig(f"There is no framework {name!r}.", f"There are: {', '.join(self.framework_names())}.")
        first, *others = sets[name]
        return (f"{first.partition('==')[0]}=={version}" if version else first, *others)


def load(path: Path) -> Config:
    """Return the configuration in this file; the defaults when the file does not exist.

    Raises:
        InvalidConfig: names file, field and problem.
        HomeUnusable: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise HomeUnusable(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidConfig(f"{path}: {error}") from error
    try:
        config = TypeAdapter(Config).validate_python(raw)
        for name in config.default_frameworks:
            config.framework(name)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidConfig(f"{path}: {where}: {_words(first)}") from error
    return config


def _words(problem: ErrorDetails) -> str:
    if problem["type"] != "unexpected_keyword_argument":
        return problem["msg"].removeprefix("Value error, ")
    names = ", ".join(item.name for item in fields(_table(problem["loc"])))
    return f"there is no such field; there are: {names}"


def _table(place: Sequence[int | str]) -> type[Config | CachesConfig | DockerConfig | LimitsConfig | MachineTypeConfig]:
    """Return the class of the table that a field is in."""
    if len(place) == 1:
        return Config
    tables: dict[str, type[CachesConfig | DockerConfig | LimitsConfig | MachineTypeConfig]] = {
        "docker": DockerConfig, "limits": LimitsConfig, "caches": CachesConfig,
    }  # fmt: skip
    return tables.get(str(place[0]), MachineTypeConfig)
