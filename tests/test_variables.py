"""Values of variables are used, or refused in words; docs/usage.md says whose value counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell

from orchestrator.errors import InvalidConfig
from orchestrator.executors.paths import RunPaths
from orchestrator.home import Home
from orchestrator.lifecycle.variables import compose
from orchestrator.spec.variables import capabilities, check_given

REFUSED = [
    ({"CUDA_VISIBLE_DEVICES": "0"}, True, "spell sets it to the GPUs that the run gets"),
    ({"CUDA_VISIBLE_DEVICES": "0"}, False, "spell sets it to the GPUs that the run gets"),
    ({"NVIDIA_VISIBLE_DEVICES": "all"}, False, "spell sets it to the GPUs that the run gets"),
    ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, True, "the run would take those of others"),
    ({"NVIDIA_DRIVER_CAPABILITIES": "compute,flying"}, False, "has no 'flying'"),
]
USED = [
    ({"CUDA_VISIBLE_DEVICES": ""}, True),
    ({"CUDA_VISIBLE_DEVICES": "-1"}, False),
    ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, True),
    ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, False),
    ({"NVIDIA_DRIVER_CAPABILITIES": "all", "VIRTUAL_ENV": "/x", "PATH": "/x", "ANY": "thing"}, False),
]
GIVEN = {
    "VIRTUAL_ENV": "/given",
    "PYTHONPYCACHEPREFIX": "/tmp/given",
    "HOME": "/given",
    "USER": "given",
    "TMPDIR": "/given",
    "LANG": "given",
    "PYTHONUNBUFFERED": "",
    "SSL_CERT_FILE": "/given",
    "CUDA_VISIBLE_DEVICES": "-1",
}


@pytest.mark.parametrize(("env", "is_host", "why"), REFUSED)
def test_values_that_cannot_be_used_are_refused(env: dict[str, str], is_host: bool, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why) as raised:
        check_given(env, is_host=is_host)
    assert next(iter(env)) in raised.value.message and raised.value.cure


@pytest.mark.parametrize(("env", "is_host"), USED)
def test_other_values_are_taken(env: dict[str, str], is_host: bool) -> None:
    check_given(env, is_host=is_host)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("", ("compute", "utility")),
        ("video", ("video", "utility")),
        ("compute,video,compute", ("compute", "video", "utility")),
        ("all", ("compute", "compat32", "display", "graphics", "utility", "video")),
    ],
)
def test_capabilities_of_the_driver(given: str, asked: tuple[str, ...]) -> None:
    assert capabilities(given) == asked


@pytest.mark.parametrize("kind", ["process", pytest.param("docker", marks=pytest.mark.engine)])
def test_what_is_given_counts(make_spell: Callable[..., Spell], kind: str) -> None:
    """And a container on no network knows its own name."""
    spell = make_spell(docker=kind == "docker")
    code = "import json, os, socket; print(json.dumps([socket.gethostbyname(socket.gethostname()), dict(os.environ)]))"
    network = "none" if kind == "docker" else ""
    run = spell.run(f"python -c '{code}'", env=GIVEN, network=network)
    assert run.state == "complete", spell.log(run.number)
    address, found = json.loads(spell.log(run.number))
    assert address.startswith("127.") or kind == "process"
    assert {name: found[name] for name in GIVEN} == GIVEN
    refused = spell("run", "--executor", kind, "-e", "CUDA_VISIBLE_DEVICES=0", "--", "true")
    assert refused.code == 3 and "CUDA_VISIBLE_DEVICES=0 cannot be given" in refused.err


def test_who_sets_what_in_a_container(tmp_path: Path) -> None:
    """The image before spell and the server, but for what is of this machine."""
    image = frozenset({"LANG", "TZ", "USER", "CUDA_DEVICE_ORDER", "https_proxy", "WANDB_MODE", "VIRTUAL_ENV"})
    paths = RunPaths(
        code="/spell",
        environment="/env",
        layer="/layer",
        runtime="/runtime",
        metrics="/metrics",
        bytecode="",
        path="/bin",
        pythonpath="/lib",
        variables=image,
        is_host=False,
    )
    inherited = {"LANG": "C", "TZ": "UTC", "LC_ALL": "C", "https_proxy": "http://p", "WANDB_MODE": "offline"}

    def composed(asked: dict[str, str], *, bare: bool) -> dict[str, str]:
        return compose(
            Home(tmp_path),
            7,
            paths,
            attempt=1,
            gpus=(4, 5),
            asked=asked,
            inherited=inherited,
            bare=bare,
            site="/layer/lib",
            checkpoints="checkpoints",
        )

    found = composed({}, bare=True)
    assert not {"LANG", "TZ", "USER", "CUDA_DEVICE_ORDER", "VIRTUAL_ENV"} & found.keys()
    assert [found[name] for name in ("LC_ALL", "https_proxy", "WANDB_MODE")] == ["C", "http://p", "offline"]
    assert found["PATH"] == "/runtime/as_is/bin:/bin:/layer/bin"
    assert found["PYTHONPATH"] == "/spell:/lib:/runtime/modules:/runtime/as_is/modules:/layer/lib"
    assert found["CUDA_VISIBLE_DEVICES"] == "0,1"
    found = composed({"LANG": "given", "PATH": "/p", "PYTHONPATH": "/q"}, bare=False)
    assert (found["PATH"], found["PYTHONPATH"]) == ("/layer/bin:/p", "/spell:/q:/lib:/runtime/modules")
    assert (found["LANG"], found["VIRTUAL_ENV"]) == ("given", "/layer")
