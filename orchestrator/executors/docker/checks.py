"""The checks of `spell doctor` for the Docker engine."""

from __future__ import annotations

import contextlib
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
    """Check the engine.

    Args:
        gpus: how many this machine has.
        env: the server's environment variables.
    """
    lack = engine.lacks()
    if lack:
        yield CheckRecord("docker", "warn", lack, _start_it(engine))
        return
    with engine.translated_errors():
        info, version = engine.api.info(), engine.api.version()  # as it is now; `engine.info` may be hours old
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
        return CheckRecord("limits", "ok", f"{words}: the engine limits memory, cores and number of processes of a run")
    return CheckRecord(
        "limits",
        "warn",
        f"{words}: the engine cannot limit {' and '.join(lacking)} of a run",
        "A rootless engine needs cgroup version 2 and delegated controllers: "
        "https://rootlesscontaine.rs/getting-started/common/cgroup2/",
    )


def _storage(info: Mapping[str, Any]) -> CheckRecord:
    driver = str(info.get("Driver", "?"))
    root = str(info.get("DockerRootDir", "?"))
    words = f"{driver} in {root}"
    with contextlib.suppress(OSError):  # not readable for us, or on another machine
        words += f", {shutil.disk_usage(root).free / (1 << 30):.1f} GiB free"
    if driver == "vfs":
        return CheckRecord("storage", "warn", f"{words}: each container copies its image", "Use overlay2.")
    return CheckRecord("storage", "ok", words)


def _buildkit(engine: Engine, env: Mapping[str, str]) -> CheckRecord:
    command = buildkit(engine, env)
    if command:
        return CheckRecord("buildkit", "ok", f"images are built by {' '.join(command[:2])}")
    return CheckRecord(
        "buildkit",
        "warn",
        "no client with BuildKit was found: the engine's classic builder builds images, without your certificates",
        "Install docker-buildx; its name may differ in your distribution.",
    )


def _base_image(engine: Engine, config: DockerConfig) -> CheckRecord:
    name = _base_name(config)
    try:
        with engine.translated_errors():
            engine.api.inspect_image(name)
    except EngineError as error:
        if error.status == 404:
            return CheckRecord(
                "image",
                "warn",
                f"{name} is not on this machine; the first run pulls it",
                f"To pull it now: docker pull {name}",
            )
        return CheckRecord("image", "warn", f"{name}: {error.message}", "See base_image in [docker] of config.toml.")
    return CheckRecord("image", "ok", f"{name} is on this machine")


def _base_name(config: DockerConfig) -> str:
    return config.base_image.replace("{version}", "{}.{}".format(*sys.version_info))


def _options(engine: Engine, config: DockerConfig) -> Iterator[CheckRecord]:
    """Yield a failure if the SDK refuses the configured options; the engine checks them only when it makes a container."""
    try:
        if config.options:
            engine.api.create_host_config(**config.options)
    except refusals() as error:
        cure = "Correct it in config.toml, then: spell server stop"
        yield CheckRecord("options", "fail", f"[docker.options]: {error}", cure)


def _container(engine: Engine, config: DockerConfig) -> CheckRecord:
    """Start a container as runs do."""
    name, began = new_name(), time.monotonic()
    cure = "Look at the output of: docker run --rm IMAGE true. If a network is missing, restart the engine."
    if config.options:
        cure = f"Check [docker.options] in config.toml. {cure}"
    try:
        with engine.translated_errors():
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
        return CheckRecord("container", "fail", f"no container can be started: {error.message}", cure)
    finally:
        with contextlib.suppress(EngineError):
            engine.remove(name)
    if code:
        return CheckRecord("container", "fail", f"the shell of a container ended with exit code {code}", cure)
    return CheckRecord("container", "ok", f"a container started and ended in {time.monotonic() - began:.1f} s")


def refusals() -> tuple[type[Exception], ...]:
    """What the SDK raises for options that it refuses."""
    from docker.errors import DockerException  # 117 ms: requests; a server without an engine never needs it

    return TypeError, ValueError, AttributeError, DockerException


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
