"""The capacity of this machine: cores, memory and GPUs, and how much of it is free."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import psutil
import pynvml

from orchestrator.records.machines import MachineType

_LATELY_S = 1.0
_USABLE = 0.98
_TICKS = os.sysconf("SC_CLK_TCK")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of this machine: its index, its maker's name ("NVIDIA A100-SXM4-40GB"), and its memory in bytes."""

    index: int
    name: str
    memory_bytes: int

    def fits(self, names: str, memory_bytes: int) -> bool:
        """Whether it has one of these names (with commas between them; "" for any) and this much memory.

        A name is made of whole words of the maker's: `a10` is no A100, `rtx4090` and `RTX 4090` are the same. Makers round
        the memory up, and drivers keep a part of it.
        """
        words = re.findall(r"[a-z0-9]+", self.name.lower())
        ours = {"".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1)}
        asked = [re.findall(r"[a-z0-9]+", name.lower()) for name in names.split(",") if name.strip()]
        named = not asked or any(ours.issuperset(parts) for parts in asked)
        return named and self.memory_bytes >= memory_bytes * _USABLE


@dataclass(frozen=True, slots=True)
class Capacity:
    """The number of cores, bytes of memory, and indices of GPUs; `cores` are the indices of the cores, empty where the
    kernel holds no process to some of them (macOS). `kinds` are the GPUs as far as the driver tells them, free or not."""

    cpus: float
    memory_bytes: int
    gpus: tuple[int, ...]
    cores: tuple[int, ...] = ()
    kinds: tuple[Gpu, ...] = ()

    def suitable(self, gpu_type: str, gpu_memory_bytes: int) -> tuple[int, ...]:
        """Return the GPUs that such a request can have; the smallest first, so that the big ones are left for others."""
        known = {gpu.index: gpu for gpu in self.kinds}
        if not gpu_type and not gpu_memory_bytes:
            fitting: Iterable[int] = self.gpus
        else:
            fitting = (at for at in self.gpus if at in known and known[at].fits(gpu_type, gpu_memory_bytes))
        return tuple(sorted(fitting, key=lambda at: (known[at].memory_bytes if at in known else 0, at)))

    def fits(self, cpus: float, memory_bytes: int, gpus: int) -> bool:
        """Whether a request for this much fits."""
        return cpus <= self.cpus + 1e-9 and memory_bytes <= self.memory_bytes and gpus <= len(self.gpus)

    def without(self, cpus: float, memory_bytes: int, gpus: Iterable[int]) -> Capacity:
        """Return the capacity that is left when this much is taken."""
        taken = set(gpus)
        left = tuple(index for index in self.gpus if index not in taken)
        return replace(self, cpus=self.cpus - cpus, memory_bytes=self.memory_bytes - memory_bytes, gpus=left)


class CoreLoad:
    """How much of each core is given to runs, so that the next run gets those that are used least.

    Args:
        cores: indices of all cores that runs may have.
        busy_s: for how long each was busy lately, which decides between equal ones: another server gives its runs
            cores of the same machine, and other programs use them, too.
    """

    def __init__(self, cores: Iterable[int], busy_s: Mapping[int, float] = MappingProxyType({})) -> None:
        self._load = dict.fromkeys(cores, 0.0)
        self._busy_s = busy_s

    def give(self, cpus: float, cores: Sequence[int]) -> None:
        """Count `cpus` cores as given to a run that is held to these."""
        for core in self._load.keys() & set(cores):
            self._load[core] += cpus / len(cores)

    def least_used(self, cpus: float) -> tuple[int, ...]:
        """Return cores for a run that asks for this many; all when there are not more. A part of a core is a core."""
        order = sorted(self._load, key=lambda core: (self._load[core], self._busy_s.get(core, 0.0), core))
        return tuple(sorted(order[: whole_cores(cpus)]))


class CoreUse:
    """For how long each core was busy lately, with whatever."""

    def __init__(self) -> None:
        self._older = self._newer = (time.monotonic(), _busy_s())

    def lately(self) -> dict[int, float]:
        """Return the seconds that each core was busy since one of the last calls, at least a second ago if there was one."""
        now = (time.monotonic(), _busy_s())
        if now[0] - self._newer[0] > _LATELY_S:
            self._older, self._newer = self._newer, now
        return {core: busy_s - self._older[1].get(core, 0.0) for core, busy_s in now[1].items()}


def _busy_s() -> dict[int, float]:
    """Return for how long each core was busy since the machine was started; nothing but on Linux. Format: proc_stat(5)."""
    found = {}
    for line in _text(Path("/proc/stat")).splitlines():
        name, *ticks = line.split()
        if name[:3] == "cpu" and name[3:]:
            user, nice, system, _idle, _io_wait, *others = map(int, ticks[:8])  # what follows is part of user and nice
            found[int(name[3:])] = (user + nice + system + sum(others)) / _TICKS
    return found


def whole_cores(cpus: float) -> int:
    """Return on how many cores a run of `cpus` cores (may be a fraction) runs at the same time: at least one."""
    return max(1, math.ceil(cpus - 1e-9))


def lacks(total: Capacity, wanted: MachineType) -> str:
    """Return why a machine type can never fit into a machine; "" when it can."""
    if wanted.cpus > total.cpus + 1e-9:
        return f"it asks for {wanted.cpus:g} core{'s' * (wanted.cpus != 1)}; this machine has {total.cpus:g}"
    if (wanted.memory_bytes or 0) > total.memory_bytes:
        gib = 1 << 30
        has = f"{total.memory_bytes / gib:.1f}"
        return f"it asks for {(wanted.memory_bytes or 0) / gib:.1f} GiB of memory; this machine has {has} GiB"
    if wanted.gpus > len(total.gpus):
        return f"it asks for {wanted.gpus} GPU{'s' * (wanted.gpus > 1)}; this machine has {len(total.gpus) or 'none'}"
    if wanted.gpus > len(total.suitable(wanted.gpu_type, wanted.gpu_memory_bytes)):
        has = ", ".join(f"{gpu.name} ({_gpu_size(gpu.memory_bytes)})" for gpu in total.kinds)
        asked = gpu_words(wanted.gpus, wanted.gpu_type, wanted.gpu_memory_bytes)
        return f"it asks for {asked}; this machine has {has or 'GPUs whose names the driver does not tell'}"
    return ""


def gpu_words(count: int, gpu_type: str, gpu_memory_bytes: int) -> str:
    """Return a number of GPUs in words: "2 GPUs of type a100 with 40G"."""
    kind = f" of type {' or '.join(name.strip() for name in gpu_type.split(','))}" if gpu_type else ""
    return f"{count} GPU{'s' * (count != 1)}{kind}" + (f" with {_gpu_size(gpu_memory_bytes)}" * bool(gpu_memory_bytes))


def _gpu_size(memory_bytes: int) -> str:
    """The memory of a GPU as its maker would: `40G`."""
    return f"{memory_bytes / 1e9:.3g}G"


def detect() -> Capacity:
    """Return the capacity of this machine that this process may use."""
    return Capacity(usable_cpus(), psutil.virtual_memory().total, tuple(range(gpu_count())), _cores(), gpu_kinds())


def usable_cpus() -> float:
    """Return how many cores this process may use: those that it may run on, or less by the quota of its control groups."""
    return min(float(len(_cores()) or os.cpu_count() or 1), _quota())


def _cores() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def _quota() -> float:
    """Return the cores that the control groups of this process allow; infinite without a limit. Format: cgroups(7)."""
    limits = [math.inf]
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)  # version 2 has no names of controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / "cpu" if controllers else _CGROUPS
        folder = root / path.lstrip("/")  # in a container it may be the path outside: then only its root exists
        limits += [_limit(place) for place in (folder, *folder.parents) if place.is_relative_to(root)]
    return min(limits)


def _limit(folder: Path) -> float:
    words = _text(folder / "cpu.max") or f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
    try:
        quota, period = map(float, words.split())
    except ValueError:  # "max", or there are no such files
        return math.inf
    return quota / period if quota > 0 else math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@functools.cache  # a GPU that is added needs a restart
def gpu_count() -> int:
    """Return how many GPUs this machine has."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


@functools.cache
def cuda_version() -> int:
    """Return the version of CUDA that the driver of this machine can run, as 128 for 12.8; 0 without a driver."""
    try:
        pynvml.nvmlInit()
        version = int(pynvml.nvmlSystemGetCudaDriverVersion())  # 12080 for 12.8
        return version // 1000 * 10 + version % 1000 // 10
    except pynvml.NVMLError:
        return 0


def gpu_kinds() -> tuple[Gpu, ...]:
    """Return the GPUs of this machine, without those of which the driver tells no name or memory."""
    found = []
    for index in range(gpu_count()):
        with contextlib.suppress(pynvml.NVMLError):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(device)
            text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)  # bytes in old releases
            found.append(Gpu(index, text, int(pynvml.nvmlDeviceGetMemoryInfo(device).total)))
    return tuple(found)


def gpu_samples(indices: Sequence[int]) -> list[dict[str, float]]:
    """Return the current usage of these GPUs: index, utilisation in percent, memory used and total in bytes, power in watts,
    temperature in °C. Values that a GPU does not report are left out."""
    found = []
    for index in indices:
        sample: dict[str, float] = {"index": index}
        with contextlib.suppress(pynvml.NVMLError):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            sample |= {"memory_used_bytes": memory.used, "memory_total_bytes": memory.total}
            sample["utilization_percent"] = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
            sample["temperature_c"] = pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU)
            sample["power_w"] = pynvml.nvmlDeviceGetPowerUsage(device) / 1000
        found.append(sample)
    return found
