"""Checks, before the command of a run starts, that the run sees the GPUs that it was given.

An engine may drop the request for them without a word (podman 4.3.1 at its Docker-compatible socket), and a GPU may fail
while the server runs. A command that finds no GPU often takes the CPU, a hundred times slower, and says nothing.

NVML is asked (https://docs.nvidia.com/deploy/nvml-api/), in a process of its own: a driver may hang or crash who asks.
"""

from __future__ import annotations

import ctypes
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Mapping, Sequence
else:
    import _signal as signal

_NVML = "libnvidia-ml.so.1"
_LIMIT_S = 60.0


def lacking(asked: Sequence[int], env: Mapping[str, str], limit_s: float = _LIMIT_S) -> str:
    """Return in words that fewer GPUs are seen than were asked for; "" when all are there. SIGCHLD must be blocked.

    Args:
        asked: their indices, as the run sees them.
        env: the variables of the run, which may name the folder of NVIDIA's libraries.
        limit_s: how long the driver may take to answer.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(min(_seen(asked, env), 254))
        finally:
            os._exit(255)
    status, deadline = None, time.monotonic() + limit_s
    while status is None and time.monotonic() < deadline:
        signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic()))
        found, code = os.waitpid(pid, os.WNOHANG)
        status = code if found else None
    wanted = f"{len(asked)} GPU{'s' * (len(asked) > 1)} asked for"
    if status is None:
        os.kill(pid, signal.SIGKILL)  # not waited for: a process in a hung driver may never end
        return f"{wanted}, but the NVIDIA driver did not answer within {limit_s:g} s"
    seen = os.WEXITSTATUS(status) if os.WIFEXITED(status) and os.WEXITSTATUS(status) < 255 else 0
    return "" if seen >= len(asked) else f"{wanted}, but {seen or 'none'} seen where the command would start"


def _seen(asked: Sequence[int], env: Mapping[str, str]) -> int:
    """Count those of the GPUs that a program would find here."""
    nvml = next(_libraries(env), None)
    if nvml is None:  # a container may have the GPUs without the library
        return sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev"))
    if nvml.nvmlInit_v2() != 0:
        return 0
    device = ctypes.c_void_p()
    return sum(nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0 for index in asked)


def _libraries(env: Mapping[str, str]) -> Iterator[ctypes.CDLL]:
    folders = filter(None, env.get("LD_LIBRARY_PATH", "").split(":"))
    for name in (_NVML, *(f"{folder}/{_NVML}" for folder in folders)):
        try:
            yield ctypes.CDLL(name)
        except OSError:
            continue
