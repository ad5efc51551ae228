"""Which kind a test is, and which tests must run in one process: both come from the fixtures that a test uses.

A kind is what a test needs. Each may use what those before it use:

    unit     this process and those that it starts; no server
    server   a spell server
    engine   a Docker engine
    torch    a Python with torch and transformers (slow)

A mark says it where no fixture does. A test that uses more than its kind fails (`allow`), so marks cannot lie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

import pytest

KINDS = ("unit", "server", "engine", "torch")
_RANKS = {name: rank for rank, name in enumerate(KINDS)}
_FIXTURES = {"make_spell": "server", "make_shared": "server", "docker_spell": "engine", "engine": "engine"}
_running: list[str] = []


def kind_of(marks: Iterable[str], fixtures: Iterable[str]) -> str:
    """The kind of a test with these marks and fixtures.

    Raises:
        pytest.UsageError: it is marked as two kinds.
    """
    marked = set(marks) & set(KINDS)
    if len(marked) > 1:
        raise pytest.UsageError(f"a test has one kind, not {' and '.join(sorted(marked))}")
    used = {_FIXTURES[name] for name in fixtures if name in _FIXTURES}
    return max(marked or used or {"unit"}, key=_RANKS.__getitem__)


def allow(kind: str) -> None:
    """Fail the running test if it is of a lesser kind than what it is about to use."""
    if _running and _RANKS[_running[-1]] < _RANKS[kind]:
        pytest.fail(f"a test marked as {_running[-1]} uses what only tests of kind {kind} may use: mark it as {kind}")


def mark_all(items: list[pytest.Item]) -> None:
    """Give each test its kind and its group; put the slow kinds first, so that no worker is left with one at the end."""
    groups = defaultdict(list)
    for item in items:
        kind = kind_of((mark.name for mark in item.iter_markers()), getattr(item, "fixturenames", ()))
        item.add_marker(kind)
        group = _group_of(item)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
        groups[group or item.nodeid].append((_RANKS[kind], item))
    ordered = sorted(groups.values(), key=lambda members: (-max(rank for rank, _ in members), -len(members)))
    items[:] = [item for _, item in chain.from_iterable(ordered)]


def _group_of(item: pytest.Item) -> str:
    """The tests of a file that share a fixture run one after the other in one process; others run anywhere."""
    named = next((mark.args[0] for mark in item.iter_markers("xdist_group")), "")
    known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    shared = [name for name, found in known.items() if found[-1].baseid and found[-1].scope != "function"]
    if named or not shared:
        return named
    params = getattr(item, "callspec", None)
    variant = [str(params.indices[name]) for name in sorted(shared) if params and name in params.indices]
    return "-".join([item.path.stem, *variant])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before `-m` selects."""
    mark_all(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> object:
    """Remember which kind of test runs."""
    _running.append(next(mark.name for mark in item.iter_markers() if mark.name in KINDS))
    try:
        return (yield)
    finally:
        _running.pop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> object:
    """Allow everything: fixtures of a module or session end with whichever test is the last."""
    _running.append(KINDS[-1])
    try:
        return (yield)
    finally:
        _running.pop()
