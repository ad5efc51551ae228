"""Checks untrusted JSON and makes a `RunSpec`, `WorkflowSpec` or `SearchSpec` of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InvalidConfig
from orchestrator.spec.run import RunSpec
from orchestrator.spec.search import Choice, Range, SearchSpec
from orchestrator.spec.workflow import Step, WorkflowSpec


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_spec(body: Mapping[str, Any]) -> RunSpec:
    """A spec from JSON values.

    Raises:
        InvalidConfig: a field is unknown or wrong; the message names it.
    """
    spec: RunSpec = _read(RunSpec, "spec", body)
    return spec


def read_workflow(body: Mapping[str, Any]) -> WorkflowSpec:
    """A workflow from JSON values. Raises as `read_spec`."""
    found: WorkflowSpec = _read(WorkflowSpec, "workflow", body)
    for step in body["steps"]:
        _check_fields(Step, "step", step)
        _check_fields(RunSpec, "spec", step["spec"])
    return found


def read_search(body: Mapping[str, Any]) -> SearchSpec:
    """A search from JSON values. Raises as `read_spec`."""
    found: SearchSpec = _read(SearchSpec, "search", body)
    _check_fields(RunSpec, "spec", body["spec"])
    for values in body["space"].values():
        _check_fields(Choice if "values" in values else Range, "parameter", values)
    return found


def _check_fields(kind: type, what: str, body: Mapping[str, Any]) -> None:
    unknown = sorted(set(body) - {item.name for item in dataclasses.fields(kind)})
    if unknown:
        raise InvalidConfig(
            f"A {what} has no field {unknown[0]!r}.",
            "The server may be older than the client: restart it with spell server stop.",
        )


def _read(kind: Any, what: str, body: Mapping[str, Any]) -> Any:
    _check_fields(kind, what, body)
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidConfig(f"The {what} contains text that is not UTF-8.") from None
    try:
        return _adapter(kind).validate_python(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidConfig(f"{where}: {first['msg']}") from error
