"""Names, parameters and labels of other trackers as those of a spec, which allows fewer characters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orchestrator.formats.records import TrackedRun, as_text
from orchestrator.spec.run import MAX_LABELS, RunSpec, to_wire

_LONGEST = 63
_LONGEST_VALUE = 2_000
_MOST_COMMAND = 60_000
_MOST_DESCRIPTION = 2_000


def spec_of(
    tracker: str, run: TrackedRun, *, program: str = "", description: str = "", labels: Iterable[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return the spec of an imported run as JSON values, and sentences about what was left out.

    Its command is a comment of the shell, which names the program and the parameters.

    Raises:
        InvalidConfig: a spec does not allow it.
    """
    command = f"# {tracker}: {_plain(program or run.project or run.name)}"
    params, notices = dict[str, str](), list[str]()
    size = len(command)
    for name, value in _named(run.parameters):
        size += 2 * len(name) + 4 + len(value.encode())
        if size > _MOST_COMMAND:
            count = len(run.parameters) - len(params)
            notices.append(f"It has too many parameters: the last {count} were left out")
            break
        command += f" {name}=:{name}:"
        params[name] = value
    found = {label: None for text in labels if (label := label_of(text))}
    spec = RunSpec(
        command=command,
        params=params,
        name=name_of(run.name),
        description=_clean(description)[:_MOST_DESCRIPTION],
        labels=tuple(found)[:MAX_LABELS],
        machine_type="",
    )
    return to_wire(spec), notices


def name_of(text: str) -> str:
    """Return the name of a run as spell allows it; "" if nothing of it can be kept."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")
    if not re.search("[A-Za-z]", name):
        return ""
    return (name if name[0].isalpha() and name != "latest" else f"run-{name}")[:_LONGEST]


def label_of(text: str) -> str:
    """Return a label as spell allows it; "" if nothing of it can be kept."""
    label = re.sub(r"[^\w .:/@+-]+", "_", text).lstrip(" .:/@+-")
    return label[:_LONGEST]


def flattened(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return parameters whose value is an object of JSON as one parameter for each of its values: `model.layers`."""
    found: dict[str, str] = {}
    todo: list[tuple[str, Any]] = [(name, _parsed(value)) for name, value in reversed(list(parameters.items()))]
    while todo:  # no recursion, as a configuration may nest very deep
        name, value = todo.pop()
        if isinstance(value, dict) and value:
            todo += [(f"{name}.{key}", item) for key, item in reversed(list(value.items()))]
        else:
            found[name] = as_text(value)
    return found


def _parsed(text: str) -> Any:
    if not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _named(parameters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the parameters with names that a placeholder can have, each once."""
    seen: set[str] = set()
    for name, value in parameters.items():
        parts = [re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in re.split(r"[./]+", name) if part] or ["_"]
        plain = ".".join(parts)
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
        number, base = 2, plain
        while plain in seen:
            plain, number = f"{base}_{number}", number + 1
        seen.add(plain)
        text = _clean(value)
        yield plain, text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _clean(text: str) -> str:
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _plain(text: str) -> str:
    return _clean(" ".join(text.split()))[:200].replace(":", "_") or "a run"
