"""Untrusted specs in, checked ones out: where JSON becomes a `RunSpec`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InvalidConfig
from orchestrator.spec import RunSpec


@cache
def _adapter() -> TypeAdapter[RunSpec]:
    return TypeAdapter(RunSpec)


def read_spec(body: Mapping[str, Any]) -> RunSpec:
    """A spec from JSON values.

    Raises:
        InvalidConfig: naming the field and what is wrong.
    """
    unknown = sorted(set(body) - {item.name for item in dataclasses.fields(RunSpec)})
    if unknown:
        raise InvalidConfig(f"A spec has no field {unknown[0]!r}.", "Is the server older than the client?")
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidConfig("The spec holds text that is not UTF-8.") from None
    try:
        return _adapter().validate_python(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidConfig(f"{where}: {first['msg']}") from error
