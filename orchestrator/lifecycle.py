"""The life of one run, from the moment a machine is found for it to its final state; one thread for each active run.

    build   its code unpacked, its environment ready
    mount   mount points made ready
    start   the executor starts the command
    attend  wait for the verdict
    save    outputs moved to runs/N
    push    artifacts recorded
    end     verdict → end reason → final state

Every step can be interrupted by a killed server. `resume` goes on where the run's state and the attempt's folder say it is.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator import outputs, runenv, telemetry
from orchestrator.config import Config
from orchestrator.environments import BuildCancelled, Environment, EnvironmentRequest, Environments
from orchestrator.errors import (
    BuildFailed,
    DiskFull,
    InvalidConfig,
    PhaseFailed,
    SaveFailed,
    SpellError,
    StaleFence,
    StoreBusy,
)
from orchestrator.executors.base import Bind, Executor, Handle, Launch, Usage, Verdict
from orchestrator.home import Home
from orchestrator.manifest import Manifest
from orchestrator.spec import RunSpec
from orchestrator.states import State, Wish
from orchestrator.store import ClaimedRun, Store
from orchestrator.store.blobs import BlobStore
from orchestrator.wire import read_spec

_log = logging.getLogger(__name__)
_FULL_DISK_RETRY_S = 0.5
_NO_CODE = Manifest(())
_TOLD = 5


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every life needs: the store, the home, and the tools. `closing` is set when the server ends."""

    store: Store
    home: Home
    config: Config
    blobs: BlobStore
    environments: Environments
    executors: Mapping[str, Executor]
    hasher: telemetry.Hasher
    server_env: Mapping[str, str]
    closing: threading.Event


class Life:
    """Leads one claimed run to its end.

    Args:
        workshop: the tools.
        run: the run, claimed or taken over.
        on_free: called when the run no longer occupies its machine.
    """

    def __init__(self, workshop: Workshop, run: ClaimedRun, on_free: Callable[[], None]) -> None:
        self.shop, self.run, self._on_free = workshop, run, on_free
        self.executor = workshop.executors[run.executor]
        self.handle: Handle | None = None
        self._wished = threading.Event()
        self._started = self._over = self._keep_work = self._freed = False

    @functools.cached_property
    def spec(self) -> RunSpec:
        """What was asked. Read when it is needed: a run that another version cast can be attended without."""
        return read_spec(self.run.spec)

    # -- asked from other threads -------------------------------------------------------------------------------

    def wished(self) -> None:
        """A wish to stop or kill was recorded for this run: act on it."""
        self._wished.set()
        if handle := self.handle:
            self.executor.stop(handle, kill=self._wish() == Wish.KILL)

    def usage(self) -> Usage | None:
        """What the run uses now; None when its command is not running."""
        handle = self.handle
        return self.executor.usage(handle) if handle else None

    # -- the thread of this run ---------------------------------------------------------------------------------

    def conduct(self) -> None:
        """Lead the run from its claim to its end."""
        self._safely(self._begin)

    def resume(self) -> None:
        """Lead a run of a dead server to its end, from where it is."""
        self._safely(self._resume)

    def _safely(self, steps: Callable[[], None]) -> None:
        try:
            steps()
        except StaleFence:
            pass  # somebody else leads it now
        except BuildCancelled:
            self._end("kill_requested" if self._wish() == Wish.KILL else "stop_requested")
        except PhaseFailed as error:
            self._give_up(error.reason, error.message)
        except SpellError as error:
            self._give_up("internal_error", error.message)
        except Exception as error:  # whatever it was: no run stays active for ever
            _log.exception("run %d", self.run.number)
            self._give_up("disk_full" if _is_disk_full(error) else "internal_error", f"{type(error).__name__}: {error}")
        finally:
            self._free()
            if self._over and not self._keep_work and not self.shop.closing.is_set():
                self._remove_work()

    def _remove_work(self) -> None:
        try:
            outputs.remove_tree(self.shop.home.work_dir(self.run.number))
        except SaveFailed:
            _log.exception("run %d", self.run.number)

    def _give_up(self, reason: str, detail: str) -> None:
        self._keep_work = self._started  # what it left is still there: nothing is lost
        if self.handle:
            self.executor.destroy(self.handle)
        self._end(reason, detail)

    def _begin(self) -> None:
        self._stop_if_wished()  # it came before anybody could tell us
        environment = self._build()
        launch = self._launch(environment)
        if self.spec.mounts:
            self._move(State.MOUNTING)
        self.executor.prepare(launch)
        self._stop_if_wished()
        self._attend(self.executor.start(launch))

    def _resume(self) -> None:
        folder = self.shop.home.attempt_dir(self.run.number, self.run.attempt)
        folder.mkdir(parents=True, exist_ok=True)  # the claim may have been all that the dead server did
        handle = self.executor.recover(folder)
        if handle:
            self._attend(handle)
        elif self.run.state in (State.BUILDING, State.MOUNTING):
            self._stop_if_wished()
            self._move(State.MACHINE_REQUESTED, gpus="[]")  # nothing of it was started: it waits for its turn again
        else:
            self._end("supervisor_lost", "its records are gone")

    # -- steps --------------------------------------------------------------------------------------------------

    def _build(self) -> Environment:
        home, number = self.shop.home, self.run.number
        work, code = home.work_dir(number), self.spec.code
        if home.run_dir(number).exists():  # of a store that was lost; what this run saves must not be taken for it
            raise SaveFailed(f"{home.run_dir(number)} was there before it. Move it away, and cast again.")
        try:
            outputs.remove_tree(work)  # of an attempt that was cut off
            (work / "code").mkdir(parents=True)
            home.attempt_dir(number, self.run.attempt).mkdir(parents=True, exist_ok=True)
            if code:
                self.shop.blobs.unpack(self._manifest(), work / "code", self._mtime_ns)
                (work / "code" / code.subdir).mkdir(parents=True, exist_ok=True)
            home.metrics(number).touch()
            environment = self._environment()
        except OSError as error:
            raise _phase(error) from error
        except InvalidConfig as error:  # what could not be seen when it was cast: a local wheel that is not there
            raise BuildFailed(error.message, error.cure) from error
        self.shop.store.update(
            number,
            self.run.fence,
            environment=environment.key,
            python=environment.python,
            packages=json.dumps(environment.packages),
        )
        self._stop_if_wished()
        return environment

    def _environment(self) -> Environment:
        config, spec = self.shop.config, self.spec
        frameworks = config.default_frameworks if spec.frameworks is None else spec.frameworks
        lines = [line for name in frameworks for line in config.framework(name)]
        request = EnvironmentRequest(spec.python, (*lines, *spec.pip), spec.requirements)
        log = self.shop.home.build_log(self.run.number)
        return self.shop.environments.ensure(request, log, self._wished.is_set)

    def _launch(self, environment: Environment) -> Launch:
        home, number, spec = self.shop.home, self.run.number, self.spec
        code = home.work_dir(number) / "code"
        subdir = spec.code.subdir if spec.code else ""
        bytecode = self.shop.environments.bytecode_until_compiled(environment)
        env = runenv.compose(
            home,
            number,
            code=code,
            environment=environment.path,
            bytecode=bytecode,
            gpus=self.run.gpus,
            asked=spec.env,
            inherited=self.shop.server_env,
        )
        return Launch(
            number=number,
            attempt=self.run.attempt,
            command=spec.filled_command,
            code=code,
            subdir=subdir,
            env=env,
            binds=tuple(
                Bind(home.root / outputs.actual(mount.resource), _target(subdir, mount.path)) for mount in spec.mounts
            ),
            environment=environment.path,
            log=home.log(number),
            folder=home.attempt_dir(number, self.run.attempt),
            protected=tuple(path for path in (home.runs, home.uploads, home.store, home.config) if path.exists()),
            writable=(code, home.metrics(number), *([bytecode] if bytecode else [])),
            gpus=self.run.gpus,
            timeout_s=spec.timeout_s,
            grace_s=self.shop.config.grace_s,
        )

    def _attend(self, handle: Handle) -> None:
        self.handle = handle
        self._started = True
        if self.run.state not in (State.RUNNING, State.SAVING, State.PUSHING):
            self._move(State.RUNNING)
        if self._wish():
            self.wished()  # it came while the command was being started
        verdict = self.executor.wait(handle)
        assert verdict is not None  # waited without a limit
        self.executor.destroy(handle)
        self.handle = None
        self._firmly(lambda: telemetry.ingest_metrics(self.shop.store, self.shop.home, self.run.number))
        self._finish(verdict)

    def _finish(self, verdict: Verdict) -> None:
        facts: dict[str, float | None] = {
            "exit_code": verdict.exit_code,
            "signal": verdict.signal,
        }
        if verdict.ended_at:  # else nobody knows
            facts |= {
                "started_at": verdict.started_at,
                "ended_at": verdict.ended_at,  # of the command: nobody may have listened for hours
                "duration_s": max(0.0, verdict.duration_s),
                "cpu_time_s": verdict.cpu_time_s,
                "max_rss_bytes": verdict.max_rss_bytes,
            }
        reason = self.run.reason or decide(verdict, self._wish())
        if reason in ("kill_requested", "mount_failed", "executor_failed"):
            self._end(reason, verdict.detail, **facts)
            return
        if self.run.state not in (State.SAVING, State.PUSHING):
            self._move(State.SAVING, reason=reason, gpus="[]", **facts)
            with contextlib.suppress(
                DiskFull, StoreBusy
            ):  # a run that has filled the disk is worth more than its last sample
                telemetry.last_sample(self.shop.store, self.run.number, verdict)
        self._free()
        self._save()
        if self._wish() == Wish.KILL:
            outputs.remove_tree(self.shop.home.run_dir(self.run.number))
            self._firmly(lambda: self.shop.store.set_artifacts(self.run.number, []))
            reason = "kill_requested"
        self._end(reason, verdict.detail, **facts)

    def _save(self) -> None:
        home, number = self.shop.home, self.run.number
        code = self.spec.code
        subdir = code.subdir if code else ""
        workspace = outputs.Workspace(
            code=home.work_dir(number) / "code",
            manifest=self._manifest(),
            mtime_ns=self._mtime_ns,
            mounted=frozenset(_target(subdir, mount.path) for mount in self.spec.mounts),
            ignore=(*self.shop.config.ignore, *self.spec.ignore),
        )
        found = outputs.save(number, workspace, home.work_dir(number) / "outputs", home.run_dir(number))
        if self.run.state != State.PUSHING:
            self._move(State.PUSHING)
        self._firmly(lambda: self.shop.store.set_artifacts(number, found))
        if any(not item.note for item in found):
            self.shop.hasher.wake()
        if lost := [f"{item.path} ({item.note})" for item in found if item.note]:
            more = f" and {len(lost) - _TOLD} more" if len(lost) > _TOLD else ""
            self._firmly(lambda: self.shop.store.notice(number, f"Not kept: {', '.join(lost[:_TOLD])}{more}"))

    # -- small things -------------------------------------------------------------------------------------------

    @property
    def _mtime_ns(self) -> int:
        return int(self.run.created_at) * 1_000_000_000

    def _free(self) -> None:
        if not self._freed:
            self._freed = True
            self._on_free()

    def _manifest(self) -> Manifest:
        return self.shop.blobs.tree(self.spec.code.tree) if self.spec.code else _NO_CODE

    def _wish(self) -> Wish | None:
        return self.shop.store.claimed(self.run.number).wish

    def _stop_if_wished(self) -> None:
        if self._wish():
            raise BuildCancelled("stopped before its command was started")

    def _move(self, to: State, **columns: Any) -> None:
        self._firmly(lambda: self.shop.store.move(self.run.number, self.run.fence, to, **columns))

    def _end(self, reason: str, detail: str = "", **columns: Any) -> None:
        try:
            self._firmly(lambda: self.shop.store.end(self.run.number, self.run.fence, reason, detail, **columns))
        except StaleFence:
            _log.info("run %d was ended by somebody else", self.run.number)
        else:
            self._over = True

    def _firmly(self, write: Callable[[], None]) -> None:
        """Write to the store, however long the disk stays full or another program holds the file."""
        while True:
            try:
                write()
            except (DiskFull, StoreBusy) as error:
                _log.warning("run %d waits: %s", self.run.number, error)
                if self.shop.closing.wait(_FULL_DISK_RETRY_S):
                    raise StaleFence("the server ends") from None
            else:
                return


def decide(verdict: Verdict, wish: Wish | None) -> str:
    """The end reason of a run whose command has ended, in `states.ENDS`."""
    if wish == Wish.KILL:
        return "kill_requested"
    if verdict.reason and not (wish and verdict.reason in ("disk_full", "out_of_memory")):
        return verdict.reason
    if wish == Wish.STOP:
        return "stop_requested"
    if verdict.signal is not None:
        return "signalled"
    return "exited_nonzero" if verdict.exit_code else "exited_zero"


def _target(subdir: str, path: str) -> str:
    if path.startswith("/"):
        return path
    return "/".join(part for part in f"{subdir}/{path}".split("/") if part not in ("", "."))


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _phase(error: OSError) -> PhaseFailed:
    if _is_disk_full(error):
        return DiskFull(f"{error.filename}: {error.strerror}")
    return BuildFailed(f"{error.filename}: {error.strerror}")
