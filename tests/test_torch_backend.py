"""Which build of torch an environment gets, without a byte of torch: what uv asks for, at a proxy of the test's own."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheels import make_index, make_wheel

from orchestrator import config as configuration
from orchestrator.environments import EnvironmentRequest, Environments
from orchestrator.environments.request import read
from orchestrator.environments.torch_backend import backend_of, chosen
from orchestrator.errors import BuildFailed, InvalidConfig
from orchestrator.home import Home
from orchestrator.spec.run import RequirementFile


def request(*lines: str, text: str = "") -> EnvironmentRequest:
    return EnvironmentRequest("", lines, (RequirementFile("r.txt", text),) if text else ())


@pytest.mark.parametrize(
    ("lines", "text", "backend"),
    [
        (("torch",), "", "cpu"),
        (("transformers",), "", "cpu"),  # it may need torch
        (("torch==2.9.0+cu126",), "", "cu126"),
        (("torch==2.9.0+ours",), "", ""),
        (("torch @ https://example.org/torch-2.9.0-py3-none-any.whl",), "", ""),
        ((), f"torch==2.9.0 --hash=sha256:{'0' * 64}\n", ""),  # as a lock has it
        ((), "--require-hashes\n", ""),
        ((), "torchvision\n", "cpu"),
    ],
)
def test_who_says_which_torch_gets_it(lines: tuple[str, ...], text: str, backend: str) -> None:
    assert backend_of(read(request(*lines, text=text)), "cpu") == backend
    assert backend_of(read(request(*lines, text=text)), "") == ""


def test_the_backend_of_a_machine_and_of_a_configuration(tmp_path: Path) -> None:
    assert re.fullmatch(r"cpu|cu1[123]\d|", chosen("auto"))
    assert (chosen("none"), chosen("cu128")) == ("", "cu128")
    (tmp_path / "config.toml").write_text('torch_backend = "cuda"\n')
    with pytest.raises(InvalidConfig, match="torch_backend"):
        configuration.load(tmp_path / "config.toml")


@pytest.fixture
def proxy() -> Iterator[tuple[str, set[str]]]:
    """A proxy on loopback that opens no connection; the hosts that it was asked for."""
    asked: set[str] = set()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.add(connection.recv(4096).split(b" ")[1].split(b":")[0].decode())
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_torch_comes_from_the_index_of_its_build(tmp_path: Path, proxy: tuple[str, set[str]]) -> None:
    """Its key differs, a way out is named, and an index or find-links of the person's own win."""
    url, asked = proxy
    home = Home(tmp_path / "home")
    home.create()
    kept = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)}
    person = kept | {"HTTPS_PROXY": url, "HTTP_PROXY": url, "UV_HTTP_RETRIES": "0"}

    def environments(backend: str, **more: str) -> Environments:
        return Environments(home, {**person, **more}, torch_backend=backend)

    with pytest.raises(BuildFailed) as caught:
        environments("cpu").ensure(request("torch"), tmp_path / "log", lambda: False)
    assert "download.pytorch.org" in asked
    assert 'torch_backend = "none"' in caught.value.cure
    keys = {environments(backend).key(request("torch")) for backend in ("cpu", "cu128", "none")}
    assert len(keys) == 3

    asked.clear()
    wheel = make_wheel(tmp_path / "wheels", "torch", "2.9.0+cu126")
    for more in (
        {"PIP_FIND_LINKS": str(wheel.parent), "PIP_NO_INDEX": "1"},
        {"PIP_INDEX_URL": make_index(tmp_path, wheel).as_uri()},
    ):
        environment = environments("cpu", **more).ensure(request("torch"), tmp_path / "log", lambda: False)
        assert environment.packages == ("torch==2.9.0+cu126",)
    assert asked == set()
