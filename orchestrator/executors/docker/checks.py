"""What `spell doctor` says about the Docker engine."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.config import DockerConfig
from orchestrator.engine import Engine, EngineError
from orchestrator.environments.containers import labels, new_name
from orchestrator.images.build import buildkit
from orchestrator.records.machines import CheckRecord

_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "cores", "PidsLimit": "number of processes"}
_START_LIMIT_S = 5.0
_NVIDIA_HOOK = "nvidia-container-runtime-hook"


def checks(
    engine: Engine, config: DockerConfig, gpus: int, env: Mapping[str, str] = os.environ
) -> Iterator[CheckRecord]:
    """Look at the engine.

    Args:
        gpus: how many this machine has.
        env: the server's environment variables.
    """
    lack = engine.lacks()
    if lack:
        yield CheckRecord("docker", "warn", lack, _start_it(engine))
        return
    with engine.told():
        info, version = engine.api.info(), engine.api.version()  # as it is now; `engine.info` may be of hours ago
    yield CheckRecord("docker", "ok", _what_it_is(engine, info, version))
    yield _limits(info)
    yield _storage(info)
    yield _buildkit(engine, env)
    image = _base_image(engine, config)
    yield image
    options = list(_options(engine, config))
    yield from options
    if image.status == "ok" and not options:
        yield _container(engine, config)
    if gpus:
        yield _gpu_runtime(info)


def _start_it(engine: Engine) -> str:
    path = Path(engine.host.removeprefix("unix://"))
    if engine.host.startswith("unix://") and path.exists() and not os.access(path, os.W_OK):
        return f"You may not use {path}. Join its group, log in again, then: spell server stop"
    return "To run in containers, start or install one: https://docs.docker.com/engine/install"


def _what_it_is(engine: Engine, info: Mapping[str, Any], version: Mapping[str, Any]) -> str:
    parts = [str(part.get("Name", "")) for part in version.get("Components") or ()]
    name = "Podman" if any("podman" in part.lower() for part in parts) else "Docker"
    rootless = any("rootless" in option for option in info.get("SecurityOptions") or ())
    words = f"{name} {version.get('Version', '?')} (API {version.get('ApiVersion', '?')}) at {engine.host}"
    return f"{words}, rootless" if rootless else words


def _limits(info: Mapping[str, Any]) -> CheckRecord:
    words = f"cgroup version {info.get('CgroupVersion') or '1'}, driver {info.get('CgroupDriver') or '?'}"
    lacking = [name for key, name in _LIMITS.items() if not info.get(key, True)]
    if not lacking:
        return CheckRecord("limits", "ok", f"{words}: memory, cores and number of processes of a run are held")
    return CheckRecord(
        "limits",
        "warn",
        f"{words}: a run is not held to its {' and '.join(lacking)}",
        "A rootless engine needs cgroup version 2 and delegated controllers: "
        "https://rootlesscontaine.rs/getting-started/common/cgroup2/",
    )


def _storage(info: Mapping[str, Any]) -> CheckRecord:
    driver = str(info.get("Driver", "?"))
    root = str(info.get("DockerRootDir", "?"))
    words = f"{driver} in {root}"
    with contextlib.suppress(OSError):  # not for us to see, or of another machine
        words += f", {shutil.disk_usage(root).free / (1 << 30):.1f} GiB free"
    if driver == "vfs":
        return CheckRecord("storage", "warn", f"{words}: each container is a whole copy", "Prefer overlay2.")
    return CheckRecord("storage", "ok", words)


def _buildkit(engine: Engine, env: Mapping[str, str]) -> CheckRecord:
    command = buildkit(engine, env)
    if command:
        return CheckRecord("buildkit", "ok", f"images are built by {' '.join(command[:2])}")
    return CheckRecord(
        "buildkit",
        "warn",
        "no client with BuildKit: images are built by the engine's classic builder, without your certificates",
        "Install docker-buildx, or whatever your distribution calls it.",
    )


def _base_image(engine: Engine, config: DockerConfig) -> CheckRecord:
    name = _base_name(config)
    try:
        with engine.told():
            engine.api.inspect_image(name)
    except EngineError as error:
        if error.status == 404:
            return CheckRecord(
                "image", "warn", f"{name} is not here; the first run pulls it", f"To have it now: docker pull {name}"
            )
        return CheckRecord("image", "warn", f"{name}: {error.message}", "See base_image in [docker] of config.toml.")
    return CheckRecord("image", "ok", f"{name} is here")


def _base_name(config: DockerConfig) -> str:
    return config.base_image.replace("{version}", "{}.{}".format(*sys.version_info))


def _options(engine: Engine, config: DockerConfig) -> Iterator[CheckRecord]:
    """Those of the configuration, if the SDK refuses them; the engine has a look only when a container is made."""
    try:
        if config.options:
            engine.api.create_host_config(**config.options)
    except refusals() as error:
        cure = "Correct it in config.toml, then: spell server stop"
        yield CheckRecord("options", "fail", f"[docker.options]: {error}", cure)


def _container(engine: Engine, config: DockerConfig) -> CheckRecord:
    """Start one, as runs are."""
    name, began = new_name(), time.monotonic()
    cure = "See what this says: docker run --rm IMAGE true. A network that is not there comes back with the engine's restart."
    if config.options:
        cure = f"Look at [docker.options] in config.toml. {cure}"
    try:
        with engine.told():
            host = engine.confinement(options=config.options) | {"network_mode": config.network}
            engine.api.create_container(
                _base_name(config),
                [],
                entrypoint=["/bin/sh", "-c", ":"],
                name=name,
                labels=labels(engine),
                host_config=engine.api.create_host_config(**host),
            )
            engine.api.start(name)
            code = engine.api.wait(name, timeout=_START_LIMIT_S)["StatusCode"]
    except EngineError as error:
        return CheckRecord("container", "fail", f"none can be started: {error.message}", cure)
    finally:
        with contextlib.suppress(EngineError):
            engine.remove(name)
    if code:
        return CheckRecord("container", "fail", f"its shell ended with exit code {code}", cure)
    return CheckRecord("container", "ok", f"one was started and has ended: {time.monotonic() - began:.1f} s")


def refusals() -> tuple[type[Exception], ...]:
    """What the SDK raises for options that it refuses."""
    errors: Any = importlib.import_module("docker.errors")
    return TypeError, ValueError, AttributeError, errors.DockerException


def _gpu_runtime(info: Mapping[str, Any]) -> CheckRecord:
    devices = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or ()]
    if any(device.startswith("nvidia.com/gpu") for device in devices):
        return CheckRecord("gpu runtime", "ok", "the engine knows the GPUs by CDI")
    if "nvidia" in (info.get("Runtimes") or {}) or shutil.which(_NVIDIA_HOOK):
        return CheckRecord("gpu runtime", "ok", "the engine has NVIDIA's runtime")
    return CheckRecord(
        "gpu runtime",
        "warn",
        "the engine cannot give GPUs to containers",
        "Install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure && sudo systemctl restart docker",
    )
