"""`$SPELL_HOME/config.toml`: read once when spelld starts, checked by pydantic.

executor = "process"               # which one runs what does not say otherwise
include_untracked = true           # send untracked files that git does not ignore without asking
default_frameworks = ["pytorch"]   # for runs that name no framework
ignore = ["*.tmp"]                 # outputs that are never kept
pass_env = ["WANDB_*"]             # variables of the server that runs may see, beside the usual ones
grace_s = 10                       # between TERM and KILL when a run is stopped
sample_interval_s = 5              # how often CPU, memory and GPU use of a run is recorded

[frameworks]
pytorch = ["torch"]

[machine_types.big]
cpus = 8
memory_gb = 32
gpus = 1
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from orchestrator.errors import HomeUnusable, InvalidConfig
from orchestrator.records import MachineType

_STRICT = ConfigDict(extra="forbid")
DEFAULT_FRAMEWORKS = {
    "pytorch": ("torch",),
    "transformers": ("torch", "transformers"),
}


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class MachineTypeConfig:
    """`[machine_types.NAME]`: cores (may be a fraction), memory in GiB, number of GPUs."""

    cpus: Annotated[float, Gt(0), Lt(10_000)] = 1
    memory_gb: Annotated[float, Gt(0)] | None = None
    gpus: Annotated[int, Ge(0)] = 0


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Config:
    """All of the configuration; see the module's docstring."""

    executor: str = ""
    include_untracked: bool = False
    default_frameworks: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    grace_s: Annotated[float, Ge(0)] = 10.0
    sample_interval_s: Annotated[float, Gt(0)] = 5.0
    frameworks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    machine_types: dict[str, MachineTypeConfig] = field(default_factory=dict)

    def types(self) -> dict[str, MachineType]:
        """All machine types by name: `cpu` and `gpu` by default, and those of the file."""
        half = max(1, (os.cpu_count() or 1) // 2)
        found = {"cpu": MachineType("cpu", half), "gpu": MachineType("gpu", 1, gpus=1)}
        for name, item in self.machine_types.items():
            memory = int(item.memory_gb * (1 << 30)) if item.memory_gb else None
            found[name.lower()] = MachineType(name.lower(), item.cpus, memory, item.gpus)
        return found

    def framework(self, text: str) -> tuple[str, ...]:
        """The requirement lines of `NAME` or `NAME==VERSION`; the version is that of the set's first package.

        Raises:
            InvalidConfig: when there is no set of that name.
        """
        name, _, version = text.partition("==")
        sets = DEFAULT_FRAMEWORKS | self.frameworks
        if name not in sets or not sets[name] or text.endswith("=="):
            raise InvalidConfig(f"There is no framework {name!r}.", f"There are: {', '.join(sorted(sets))}.")
        first, *others = sets[name]
        return (f"{first.partition('==')[0]}=={version}" if version else first, *others)


def load(path: Path) -> Config:
    """The configuration in this file; the defaults when there is none.

    Raises:
        InvalidConfig: naming file, field and what is wrong.
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
        raise InvalidConfig(f"{path}: {where}: {first['msg']}") from error
    return config
