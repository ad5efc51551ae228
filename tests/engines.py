"""The Docker engine of the tests: a real one. See `tests/engine/up`."""

from __future__ import annotations

import functools
import os
from typing import Any, NoReturn

import docker
import kinds
import pytest

from orchestrator.config import DockerConfig
from orchestrator.engine import Engine, find
from orchestrator.executors.docker.executor import DockerExecutor
from orchestrator.home import Home
from orchestrator.images.images import Images

TEST_IMAGE = "spell-test-base:bookworm"
CONFIG = f"[docker]\nbase_image = '{TEST_IMAGE}'\ngpu_base_image = '{TEST_IMAGE}'\n"


def engine_api() -> Any:
    """The engine itself, over docker's SDK."""
    kinds.allow("engine")
    return _api()


@functools.cache
def _api() -> Any:
    return docker.APIClient(base_url=find.find_host("", os.environ)[0], version="auto")


@functools.cache
def _lack() -> str:
    host = find.find_host("", os.environ)[0]
    if not host or not find.answers(host):
        return "no Docker engine answers here; tests/engine/up starts one"
    if not _api().images(TEST_IMAGE):
        return f"the engine does not have {TEST_IMAGE}; tests/engine/up makes it"
    return ""


def docker_executor(home: Home) -> DockerExecutor:
    """A docker executor for a home, whose containers are of the test image."""
    engine, config = Engine(home), DockerConfig(base_image=TEST_IMAGE, gpu_base_image=TEST_IMAGE)
    return DockerExecutor(engine, Images(engine, config), config)


def need_engine() -> None:
    """Skip a test that needs a Docker engine where there is none; where one must be, fail it."""
    kinds.allow("engine")
    if lack := _lack():
        go_without(lack)


def go_without(lack: str) -> NoReturn:
    """Skip a test for want of what `tests/engine/up` brings; where that must be there, fail it."""
    if os.environ.get("SPELL_TEST_ENGINE") == "required":
        pytest.fail(lack)
    pytest.skip(lack)


def containers_of(home: Home, **filters: str) -> list[dict[str, Any]]:
    """All containers of a home, running or not."""
    wanted = {"label": [f"spell.home={home.root}"], **filters}
    return list(engine_api().containers(all=True, filters=wanted))
