"""The tree of errors: as it is drawn, over the wire and back."""

from __future__ import annotations

import inspect
import re

import pytest

from orchestrator import errors
from orchestrator.errors import BY_CODE, InvalidConfig, PhaseFailed, SpellError, from_wire, says_disk_full
from orchestrator.states import ENDS

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SpellError)]
EXIT_CODES = {0, 1, 2, 3, 5, 6}


def drawn() -> dict[str, str]:
    """Each class in the drawing of the docstring, and the class above it."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"[ │├└─]*(?=[A-Z])", line)
        if not found or not line.startswith("    "):
            continue
        depth = len(found[0])
        above = [item for item in above if item[0] < depth]
        names = re.match(r"\w+(, \w+)*", line[depth:])
        assert names
        for name in names[0].split(", "):
            parents[name] = above[-1][1] if above else ""
        above.append((depth, name))
    return parents


def test_the_drawing_is_the_tree() -> None:
    assert drawn() == {kind.__name__: "" if kind is SpellError else kind.__bases__[0].__name__ for kind in CLASSES}


def test_codes_are_unique_and_complete() -> None:
    assert set(BY_CODE.values()) == set(CLASSES)
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)
    for kind in CLASSES:
        assert kind.exit_code in EXIT_CODES - {0}
        assert 400 <= kind.http_status < 600
        assert kind.__doc__


def test_reasons_of_failed_phases_are_end_reasons() -> None:
    assert {kind.reason for kind in CLASSES if issubclass(kind, PhaseFailed)} <= set(ENDS)


@pytest.mark.parametrize("kind", CLASSES)
def test_round_trip(kind: type[SpellError]) -> None:
    error = kind("What is wrong: “ü” 🎉.", "What to do.")
    back = from_wire(error.to_wire(), error.http_status)
    assert (type(back), back.message, back.cure) == (kind, error.message, error.cure)
    assert (str(back), back.exit_code) == (error.message, error.exit_code)


@pytest.mark.parametrize(
    "body", [None, [], "text", 7, {}, {"error": None}, {"error": "text"}, {"detail": "x"}, {"error": ["code"]}]
)
def test_what_is_no_error_of_ours(body: object) -> None:
    error = from_wire(body, 502)
    assert (type(error), error.message) == (SpellError, "The server answered with HTTP status 502.")


def test_codes_and_fields_of_a_newer_server() -> None:
    error = from_wire({"error": {"code": "too_purple", "message": "It is too purple.", "shade": 7}}, 418)
    assert (type(error), error.message, error.cure) == (SpellError, "It is too purple.", "")
    error = from_wire({"error": {"code": "invalid_config", "message": "m", "cure": "c", "new": 1}}, 422)
    assert (type(error), error.message, error.cure) == (InvalidConfig, "m", "c")


@pytest.mark.parametrize(
    ("words", "is_full"),
    [
        ("error: failed to write\n  Caused by: No space left on device (os error 28)", True),  # uv
        ("Caused by: Disc quota exceeded (os error 122)", True),
        ("Error response from daemon: write /var/lib/docker/x: no space left on device", True),
        ("dpkg: error: cannot copy: Disk quota exceeded", True),
        ("Connection refused (os error 111), (os error 1220), (os error 2)", False),
        ("there is space left", False),
    ],
)
def test_what_programs_say_of_a_full_disk(words: str, is_full: bool) -> None:
    assert says_disk_full(words) == is_full
