"""Conditions on metrics, as pure text and values."""

from __future__ import annotations

import pytest

from orchestrator.errors import InvalidConfig
from orchestrator.spec.conditions import Part, Watch, check, parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("loss < 0.1", (Part("loss", "<", 0.1),)),
        ("loss<=1e-3:100", (Part("loss", "<=", 0.001, 100),)),
        ("keras/val acc >= -2 : 7 ", (Part("keras/val acc", ">=", -2.0, 7),)),
        ("a > 1 && b<2:3", (Part("a", ">", 1.0), Part("b", "<", 2.0, 3))),
    ],
)
def test_what_is_read(text: str, parts: tuple[Part, ...]) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "loss",
        "loss <",
        "< 1",
        "loss = 1",
        "loss == 1",
        "loss < x",
        "loss < nan",
        "loss < inf",
        "a<1:b",
        "a<1:-1",
        "a<1 &&",
        "a<1 & b<2",
        "a<1<2",
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(InvalidConfig, match="is not a condition"):
        parse(text)


def test_there_can_be_five() -> None:
    check(["a<1"] * 5)
    with pytest.raises(InvalidConfig, match="at most 5 stop conditions"):
        check(["a<1"] * 6)


def test_any_condition_is_enough_and_all_of_its_parts_must_hold() -> None:
    watch = Watch(["loss > 10", "loss < 1 && acc > 0.9"])
    assert watch.met("loss", 0, 5.0) == ""
    assert watch.met("loss", 1, 0.5) == ""
    assert watch.met("acc", 1, 0.8) == ""
    assert watch.met("loss", 2, 2.0) == ""  # the latest value counts: it was below 1, and is not any more
    assert watch.met("acc", 2, 0.95) == ""
    assert watch.met("loss", 3, 0.9) == "loss < 1 && acc > 0.9 (loss is 0.9, acc is 0.95)"
    assert Watch(["loss > 10", "acc > 1"]).met("loss", 0, 11.0) == "loss > 10 (loss is 11)"


def test_values_before_the_index_do_not_count() -> None:
    watch = Watch(["loss > 10:100", "loss > 1000"])
    assert watch.met("loss", 99, 50.0) == ""
    assert watch.met("other", 100, 50.0) == ""
    assert watch.met("loss", 99, 5000.0) == "loss > 1000 (loss is 5000)"
    assert watch.met("loss", 100, 50.0) == "loss > 10:100 (loss is 50)"
