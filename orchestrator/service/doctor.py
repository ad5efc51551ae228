"""Checks of the server: itself, its executors, GPUs, disk. Each part has a time limit."""

from __future__ import annotations

import logging
import shlex
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pynvml

import orchestrator
from orchestrator.config import Config
from orchestrator.errors import SpellError
from orchestrator.executors.base import Executor
from orchestrator.home import Home
from orchestrator.lifecycle.context import Context
from orchestrator.machine import detect
from orchestrator.records import API_VERSION
from orchestrator.records.machines import CheckRecord
from orchestrator.service.access import Who
from orchestrator.service.executors import Executors
from orchestrator.service.quota import Quota
from orchestrator.service.server import Server

_log = logging.getLogger(__name__)
_LIMIT_S = 8.0


class Doctor:
    """Examines one home.

    Args:
        context: store, home and tools.
        executors: chooses the executor of a run.
        quota: checks the space that the home takes.
        server: knows whether its configuration is old.
    """

    def __init__(self, context: Context, executors: Executors, quota: Quota, server: Server) -> None:
        self._context, self._executors, self._quota, self._server = context, executors, quota, server

    def examine(self, who: Who) -> list[CheckRecord]:
        """The results of all checks."""
        found = examine(self._context, self._executors.default, more=[("caches", self._quota.check_caches)])
        return [*found, *_config(self._server), *modes(self._context.home, self._context.config), *self._quota.checks()]


def examine(
    context: Context,
    default: str,
    limit_s: float = _LIMIT_S,
    more: Iterable[tuple[str, Callable[[], Iterable[CheckRecord]]]] = (),
) -> list[CheckRecord]:
    """Run all checks at the same time.

    Args:
        default: the executor of specs that name none.
        limit_s: the time limit of each part.
        more: further parts, by name.
    """
    gpus = len(detect().gpus)
    parts: list[tuple[str, Callable[[], Iterable[CheckRecord]]]] = [
        ("server", lambda: _server(context)),
        ("executor", lambda: _default(context.executors[default])),
        *((name, lambda executor=executor: executor.checks(gpus)) for name, executor in context.executors.items()),
        ("gpu", _gpus),
        *more,
    ]
    waiting = [_Part(name, look) for name, look in parts]
    deadline = time.monotonic() + limit_s
    return [found for part in waiting for found in part.result(max(0.0, deadline - time.monotonic()), limit_s)]


class _Part:
    """One part of the checks, in a thread."""

    def __init__(self, name: str, look: Callable[[], Iterable[CheckRecord]]) -> None:
        self._name, self._look = name, look
        self._found: list[CheckRecord] = []
        self._thread = threading.Thread(target=self._run, name=f"doctor-{name}", daemon=True)
        self._thread.start()

    def result(self, left_s: float, limit_s: float) -> list[CheckRecord]:
        """Its results so far; waits for at most `left_s` seconds."""
        self._thread.join(left_s)
        late = [
            CheckRecord(
                self._name, "warn", f"did not answer within {limit_s:g} s", "Try again; the machine may be overloaded."
            )
        ]
        return [*self._found, *(late if self._thread.is_alive() else [])]

    def _run(self) -> None:
        try:
            for record in self._look():
                self._found.append(record)
        except SpellError as error:
            self._found.append(CheckRecord(self._name, "warn", error.message, error.cure))
        except Exception as error:
            _log.exception("the check of %s failed", self._name)
            words = f"the check failed: {type(error).__name__}: {error}"
            self._found.append(CheckRecord(self._name, "warn", words, "See: spell server logs"))


def _server(context: Context) -> Iterator[CheckRecord]:
    words = f"spelld {orchestrator.__version__} (API {API_VERSION}) serves {context.home.root}"
    yield CheckRecord("server", "ok", f"{words}, {context.store.active_count()} active runs")


def _config(server: Server) -> Iterator[CheckRecord]:
    if server.has_old_config():
        words = "config.toml was changed since the server started, and is not used yet"
        yield CheckRecord("config", "warn", words, "To use it: spell server stop")


def modes(home: Home, config: Config) -> Iterator[CheckRecord]:
    """Check that other users of this machine can reach no more of the home than its configuration says."""
    allowed = config.home_mode & ~stat.S_IRWXU
    checked = [(home.store, 0o700), (home.secrets_key, 0o600), (home.webhook_key, 0o600)]
    checked += (
        [(home.root, config.home_mode)] if any(_others(path) & ~allowed for path in (home.runs, home.uploads)) else []
    )
    checked += [(home.config, 0o644)] if _others(home.root) else []
    wrong = [(path, mode) for path, mode in checked if _others(path) & ~mode]
    for path, mode in wrong:
        words = f"other users of this machine can reach {path}, whose mode is {stat.S_IMODE(path.stat().st_mode):o}"
        yield CheckRecord("modes", "fail", words, f"chmod {mode:o} {shlex.quote(str(path))}")
    if not wrong:
        readers = "" if config.readable_by == "owner" else f", outputs and uploads by {config.readable_by}, too"
        yield CheckRecord("modes", "ok", f"the home can be read by you only{readers}")


def _others(path: Path) -> int:
    """The bits of a mode that are not for the owner; 0 if nothing lies there."""
    try:
        return path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except OSError:
        return 0


def _default(executor: Executor) -> Iterator[CheckRecord]:
    if lack := executor.lacks():
        cure = "See below; or set executor in config.toml to another one, then: spell server stop"
        yield CheckRecord(
            "executor", "fail", f"runs go to the {executor.name} executor, which cannot run: {lack}", cure
        )
        return
    yield CheckRecord("executor", "ok", f"runs without --executor go to the {executor.name} executor")


def _gpus() -> Iterator[CheckRecord]:
    try:
        pynvml.nvmlInit()
        names = [_text(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(_count())]
    except pynvml.NVMLError_LibraryNotFound:
        yield CheckRecord("gpu", "ok", "none: there is no NVIDIA driver")
        return
    except pynvml.NVMLError as error:
        cure = "Is the driver loaded? Look with: nvidia-smi"
        yield CheckRecord("gpu", "warn", f"the NVIDIA driver does not list its GPUs: {error}", cure)
        return
    kinds = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    yield CheckRecord("gpu", "ok", kinds or "none")


def _count() -> int:
    return int(pynvml.nvmlDeviceGetCount())


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
