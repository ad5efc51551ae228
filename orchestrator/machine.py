"""The capacity of this machine: cores, memory and GPUs, and how much of it is free."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil
import pynvml

from orchestrator.records.machines import MachineType


@dataclass(frozen=True, slots=True)
class Capacity:
    """Cores, bytes of memory, and indices of GPUs."""

    cpus: float
    memory_bytes: int
    gpus: tuple[int, ...]

    def fits(self, cpus: float, memory_bytes: int, gpus: int) -> bool:
        """Whether a request for this much fits."""
        return cpus <= self.cpus + 1e-9 and memory_bytes <= self.memory_bytes and gpus <= len(self.gpus)

    def without(self, cpus: float, memory_bytes: int, gpus: Iterable[int]) -> Capacity:
        """Return the capacity that is left when this much is taken."""
        taken = set(gpus)
        left = tuple(index for index in self.gpus if index not in taken)
        return Capacity(self.cpus - cpus, self.memory_bytes - memory_bytes, left)


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
    return ""


def detect() -> Capacity:
    """Return the capacity of this machine that this process may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Capacity(float(cpus), psutil.virtual_memory().total, tuple(range(_gpu_count())))


def _gpu_count() -> int:
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


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
