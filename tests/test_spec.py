"""What a spec may say, and what it may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InvalidConfig
from orchestrator.spec.filters import Filter
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import Code, RequirementFile, RunSpec, check_digest, to_wire
from orchestrator.spec.validate import read_spec

TREE = "0" * 64
FULL = RunSpec(
    command="train :LR: :N:",
    machine_type="gpu",
    executor="process",
    mounts=(Mount("runs/2/data.txt", "data.txt"), Mount("uploads/x", "/abs/x")),
    pip=("six", "torch==2.9"),
    requirements=(RequirementFile("r.txt", "six\n"),),
    python="3.12",
    frameworks=("pytorch",),
    env={"A": "b=c"},
    code=Code(TREE, "sub/dir", "repo", "c" * 40, dirty=True, diff="f" * 64, url="https://x", ref="main"),
    description="ü 🎉",
    name="a-name_1.0",
    labels=("one", "two words"),
    params={"LR": "0.1", "N": ""},
    timeout_s=60.0,
    ignore=("*.tmp",),
)


def test_round_trip_through_json() -> None:
    assert read_spec(json.loads(json.dumps(to_wire(FULL)))) == FULL
    assert read_spec({"command": "true"}) == RunSpec("true")


GOOD: dict[str, list[Any]] = {
    "command": ["true", " x ", "a\nb", "ü 🎉", "x" * 100_000, ":NAME:", "\t\\"],
    "python": ["", "3", "3.12", "3.12.1", "pypy3.10", "cpython-3.12"],
    "name": ["", "a", "A-b_c.d", "x" * 63, "Latest"],
    "labels": [(), ("a",), ("1",), ("ü",), ("a b/c:d@e+f-g.h",), ("x" * 63,)],
    "pip": [(), ("six",), (" six ",), ("a @ https://x/y.whl",), ('x; python_version > "3"',)],
    "env": [{}, {"A": ""}, {"_a1": "x\ny"}, {"PATH": "/bin"}, {"SPELLING": "x"}],
    "timeout_s": [None, 0.001, 1, 999_999_999],
    "description": ["", "x" * 10_000, "a\nb"],
    "cpus": [None, 0.01, 1, 2.5, 9999],
    "memory_bytes": [None, 6 << 20, 1 << 40],
    "gpus": [None, 0, 1, 10_000],
    "gpu_type": ["", "a100", "A100-80GB, h100", "rtx 4090"],
    "gpu_memory_bytes": [None, 40_000_000_000],
}
BAD: dict[str, list[Any]] = {
    "command": ["", " ", "\n\t", "a\0b", "x" * 100_001, "\ud800"],
    "python": ["three", "3.12.1.2", "3.x", "3.12; rm", " 3.12", "3.12\n", "-3"],
    "name": ["1", "42", "-a", ".a", "a/b", "a b", "latest", "x" * 64, "ü", "a\n", "latest~1", "../a"],
    "labels": [("",), (" a",), ("a\n",), ("a;b",), ("x" * 64,), ("a\tb",), ("-a",)],
    "pip": [("",), (" ",), ("-r x",), ("--index-url x",), ("a\nb",), ("a\0",), ("a\rb",)],
    "env": [{"": "x"}, {"1a": "x"}, {"a b": "x"}, {"a=b": "x"}, {"A\n": "x"}, {"A": "x\0"}, {"SPELL_HOME": "x"}],
    "timeout_s": [0, -1, float("nan"), float("inf"), 1e9],
    "description": ["\udcff"],
    "cpus": [0, -1, 0.001, 10_000, float("nan"), float("inf")],
    "memory_bytes": [0, -1, 32, 1 << 50],
    "gpus": [-1, 10_001],
    "gpu_type": ["-", " ", "x" * 101],
    "gpu_memory_bytes": [0, -1, 40],
    "params": [{"1": "x"}, {"A B": "x"}, {"": "x"}, {"X": "not in the command"}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in GOOD.items() for value in values])
def test_good_values_here_and_over_the_wire(field: str, value: Any) -> None:
    fields = {"command": "true", field: value}
    assert read_spec(to_wire(fields)) == RunSpec(**fields)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_bad_values_here_and_over_the_wire(field: str, value: Any) -> None:
    fields = {"command": "true", field: value}
    with pytest.raises(InvalidConfig):
        RunSpec(**fields)
    with pytest.raises(InvalidConfig):
        read_spec(to_wire(fields))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "command"),
        ({"command": None}, "command"),
        ({"command": 7}, "command"),
        ({"command": "x", "pip": "six"}, "pip"),
        ({"command": "x", "pip": [1]}, "pip.0"),
        ({"command": "x", "mounts": [{"resource": "runs/1/x"}]}, "mounts.0.path"),
        ({"command": "x", "env": {"A": [1]}}, "env.A"),
        ({"command": "x", "timeout_s": "soon"}, "timeout_s"),
        ({"command": "x", "code": {"tree": "short"}}, "A digest must be a SHA-256"),
        ({"command": "x", "colour": "red"}, "A spec has no field 'colour'."),
    ],
)
def test_untrusted_bodies(body: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        read_spec(body)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RunSpec(["true"]), "RunSpec: command must be text, not list."),
        (lambda: RunSpec("true", python=3.12), "RunSpec: python must be text, not float."),
        (lambda: RunSpec("true", name=None), "RunSpec: name must be text, not NoneType."),
        (lambda: RunSpec("true", pip="six"), "RunSpec: pip must be a list or tuple, not str."),
        (lambda: RunSpec("true", labels={"a"}), "RunSpec: labels must be a list or tuple, not set."),
        (lambda: RunSpec("true", labels=["a", 1]), "Each item of RunSpec: labels must be text, not int."),
        (lambda: RunSpec("true", mounts=["runs/1/x"]), "Each item of RunSpec: mounts must be a Mount, not str."),
        (lambda: RunSpec("true", mounts=Mount("runs/1/x", "x")), "RunSpec: mounts must be a list or tuple, not Mount."),
        (lambda: RunSpec("true", requirements=["r.txt"]), "Each item of RunSpec: requirements must be a Requirement"),
        (lambda: RunSpec("true", env={"A": 1}), "RunSpec: env: the value of 'A' must be text, not int."),
        (lambda: RunSpec("true", env={1: "A"}), "Each key of RunSpec: env must be text, not int."),
        (lambda: RunSpec("true", env=["A=1"]), "RunSpec: env must be a mapping, not list."),
        (lambda: RunSpec("true", params={"A": 0.1}), "RunSpec: params: the value of 'A' must be text, not float."),
        (lambda: RunSpec("true", secrets=["A"]), "RunSpec: secrets must be a mapping, not list."),
        (lambda: RunSpec("true", timeout_s="60"), "RunSpec: timeout_s must be a number, not str."),
        (lambda: RunSpec("true", retries=1.5), "RunSpec: retries must be a whole number, not float."),
        (lambda: RunSpec("true", code=TREE), "RunSpec: code must be a Code, not str."),
        (lambda: RunSpec("true", notify="https://x/secret"), "RunSpec: notify must be a list or tuple, not str."),
        (lambda: Mount(1, "x"), "Mount: resource must be text, not int."),
        (lambda: Mount("runs/1/x", Path("x")), "Mount: path must be text, not PosixPath."),
        (lambda: Filter(labels="demo"), "Filter: labels must be a list or tuple, not str."),
        (lambda: Filter(metrics="loss < 1"), "Filter: metrics must be a list or tuple, not str."),
    ],
)
def test_values_of_another_type(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        make()
    assert caught.value.message.startswith(said)
    assert "secret" not in caught.value.whole.replace("secrets", "")


def test_lists_and_whole_numbers_are_as_good() -> None:
    spec = RunSpec("true", pip=["six"], mounts=[Mount("runs/1/x", "x")], timeout_s=60, frameworks=[])
    assert read_spec(to_wire(spec)) == RunSpec(
        "true", pip=("six",), mounts=(Mount("runs/1/x", "x"),), timeout_s=60.0, frameworks=()
    )


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "../" + "0" * 61])
def test_bad_digests(digest: str) -> None:
    with pytest.raises(InvalidConfig):
        check_digest(digest)
    with pytest.raises(InvalidConfig):
        Code(digest)


# -- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "params", "filled"),
    [
        ("train --lr :LR:", {"LR": "0.1"}, "train --lr 0.1"),
        (":A::B:", {}, ":A::B:"),
        (":A: :B: :A:", {"A": "1", "B": ":A:"}, "1 :A: 1"),  # what is filled in is not filled again
        ("f=:A:,:A:;':A:'", {"A": "x y"}, "f=x y,x y;'x y'"),
        ("curl http://h:80/:A:", {"A": "p"}, "curl http://h:80/p"),
        ("a:b:c :A-1_x:", {"A-1_x": r"\1 \g<0>"}, r"a:b:c \1 \g<0>"),
        ("no parameters :HERE:", {}, "no parameters :HERE:"),
        (":A:", {"A": ""}, ""),
    ],
)
def test_parameters_are_filled_in(command: str, params: dict[str, str], filled: str) -> None:
    assert RunSpec(command, params=params).filled_command == filled


@pytest.mark.parametrize(
    ("command", "params", "said"),
    [
        ("true", {"A": "1"}, "The command has no ':A:' for parameter 'A'."),
        ("f :A: :B:", {"A": "1"}, "The command's ':B:' has no value."),
        ("f a:A:b", {"A": "1"}, "The command has no ':A:'"),
    ],
)
def test_parameters_that_do_not_fit(command: str, params: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        RunSpec(command, params=params)


def test_values_of_variables_are_not_shown() -> None:
    assert "b=c" not in repr(FULL)
