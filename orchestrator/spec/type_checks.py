"""Checks the types of values that a program gives, so that a wrong one is refused in words where it is given.

What comes as JSON has been checked by pydantic before (`spec.validate`), which the command line does not load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from orchestrator.errors import InvalidConfig

T = TypeVar("T")
_WORDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "True or False"}
_SEVERAL = "Put it into a list: […]"


def several(name: str, values: Iterable[T]) -> list[T]:
    """`values` as a list. A single text is refused, although it is a sequence of its letters.

    Args:
        name: the subject of messages.

    Raises:
        InvalidConfig: it is a text.
    """
    if isinstance(values, str | bytes):
        raise InvalidConfig(f"{name} must be a list, not one text.", _SEVERAL)
    return list(values)


def check_types(found: Any) -> None:
    """Check the fields of a dataclass against its annotations, which must be those of the forms below.

    Raises:
        InvalidConfig: a value has another type. Values are not shown: they may be secret.
    """
    for item in dataclasses.fields(found):
        value, (wanted, optional, _) = getattr(found, item.name), str(item.type).partition(" | None")
        if value is None and optional:
            continue
        name = f"{type(found).__name__}: {item.name}"
        if wanted.startswith(("tuple[", "Sequence[")):
            _check_items(name, value, wanted.partition("[")[2].rstrip("].").removesuffix(", "))
        elif wanted == "Mapping[str, str]":
            _check_texts(name, value)
        elif not _is(value, wanted):
            _refuse(f"{name} must be {_words(wanted)}", value)


def _check_items(name: str, values: Any, wanted: str) -> None:
    words = _words(wanted)
    if not isinstance(values, list | tuple):
        _refuse(f"{name} must be a list or tuple", values, _SEVERAL if _is(values, wanted) else "")
    for value in values:
        if not _is(value, wanted):
            _refuse(f"Each item of {name} must be {words}", value)


def _check_texts(name: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        _refuse(f"{name} must be a mapping", values)
    for key, value in values.items():
        if not isinstance(key, str):
            _refuse(f"Each key of {name} must be text", key)
        if not isinstance(value, str):
            _refuse(f"{name}: the value of {key!r} must be text", value)


def _is(value: Any, wanted: str) -> bool:
    """Whether a value is of the class with this name; a whole number is a number."""
    names = {kind.__name__ for kind in type(value).__mro__}
    return wanted in names or (wanted == "float" and "int" in names)


def _words(wanted: str) -> str:
    return _WORDS.get(wanted, f"a {wanted}")


def _refuse(words: str, value: Any, cure: str = "") -> NoReturn:
    raise InvalidConfig(f"{words}, not {type(value).__name__}.", cure)
