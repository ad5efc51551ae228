"""The life of one run, from its claim to its final state. One thread leads each active run through these steps:

    build   unpack its code, get its environment
    mount   make its mount points
    start   let the executor start the command
    attend  wait for the verdict
    save    move its outputs to runs/N
    push    record its artifacts
    end     verdict → end reason → final state

The server may be killed during every step. `resume` goes on at the step that the run's state and the attempt's folder show.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.environments import Base, BuildCancelled, Environment, made_in
from orchestrator.errors import (
    BuildFailed,
    Conflict,
    ExecutorFailed,
    InvalidConfig,
    PhaseFailed,
    SpellError,
    StaleFence,
    is_disk_full,
)
from orchestrator.executors.base import Handle, Usage, Verdict
from orchestrator.executors.running_exec import RunningExec
from orchestrator.lifecycle import notices, retry, workdir
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.outcome import NEVER_STARTED, as_phase, as_requested, decide, facts_of, not_kept
from orchestrator.lifecycle.release import Release
from orchestrator.spec.run import RunSpec
from orchestrator.spec.validate import read_spec
from orchestrator.states import State, StopRequest
from orchestrator.store import RELEASED, ClaimedRun, Unheeded
from orchestrator.telemetry.samples import last_sample
from orchestrator.telemetry.trackers.there import note
from orchestrator.telemetry.trackers.watcher import take_rest

_log = logging.getLogger(__name__)
_LOST = ("supervisor_lost", "container_lost")
_LOST_LIMIT_S = 30.0
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO)


class Life:
    """Leads one claimed run to its end.

    Args:
        context: the tools.
        run: the run, claimed or taken over.
        on_free: called when the machine of the run is free.
    """

    def __init__(self, context: Context, run: ClaimedRun, on_free: Callable[[], None]) -> None:
        self.context, self.run, self._on_free = context, run, on_free
        self.executor = context.executors[run.executor]
        self.handle: Handle | None = None
        self._stop_requested = threading.Event()
        self._release: Release | None = None
        self._started = self._resumed = self._over = self._keep_work = self._freed = False

    @functools.cached_property
    def spec(self) -> RunSpec:
        """The spec. It is read on demand, because a run that another version cast can be attended without it."""
        return read_spec(self.run.spec)

    @functools.cached_property
    def work(self) -> workdir.WorkDir:
        """The work dir of the run."""
        return workdir.WorkDir(self.context, self.run, self.spec)

    # -- called by other threads --------------------------------------------------------------------------------

    def stop_requested(self) -> None:
        """Act on a request to stop or kill that was recorded for this run."""
        self._stop_requested.set()
        if self.handle:
            # in a separate thread: the caller must not wait for an executor that hangs
            threading.Thread(target=self._stop, name=f"stop-{self.run.number}", daemon=True).start()

    def _stop(self) -> None:
        def ask() -> None:
            if handle := self.handle:
                self.executor.stop(handle, kill=self._stop_request() == StopRequest.KILL)

        with contextlib.suppress(StaleFence):
            self.context.patiently(self.run.number, "stopped", ask, lambda e: isinstance(e, OSError | SpellError))

    def usage(self) -> Usage | None:
        """Return what the run uses now; None when its command is not running."""
        handle = self.handle
        return self.executor.usage(handle) if handle else None

    def open_exec(self, command: Sequence[str], term: str, *, terminal: bool) -> RunningExec:
        """Start a command beside the run's own; `term` names the kind of terminal. Raises as the executor does."""
        env, cwd = self.context.surroundings(self.run, self.spec)
        handle = self.handle
        if handle is None:
            raise Conflict(f"Run {self.run.number} is not running.")
        env |= {"TERM": term} if term else {}
        return self.executor.open_exec(handle, command, env, cwd, self.run.cores, terminal=terminal)

    # -- the thread of this run ---------------------------------------------------------------------------------

    def lead(self) -> None:
        """Lead the run from its claim to its end."""
        self._safely(self._begin)

    def resume(self) -> None:
        """Lead a run that a dead server has left to its end."""
        self._resumed = True
        self._safely(self._resume)

    def cancel(self) -> None:
        """End a run that a user ended while it was in the queue."""
        self._safely(self._cancel)

    def give_back(self) -> None:
        """Free the machine of a run that has ended under a dead server."""
        self._safely(lambda: self._begin_release(None))

    def _safely(self, steps: Callable[[], None]) -> None:
        try:
            try:
                steps()
            except BuildCancelled:
                self._cancel()
        except StaleFence:
            pass  # another worker leads it now
        except PhaseFailed as error:
            self._give_up(error.reason, error.whole)
        except SpellError as error:
            self._give_up("internal_error", error.message)
        except Exception as error:  # any error: no run may stay active for ever
            _log.exception("run %d", self.run.number)
            self._give_up("disk_full" if is_disk_full(error) else "internal_error", f"{type(error).__name__}: {error}")
        finally:
            self._give_back()
            if self._over and not self._keep_work and not self.context.closing.is_set():
                workdir.remove(self.context.home, self.run.number)

    def _cancel(self) -> None:
        """End a run whose attempt was not started. Outputs of an earlier attempt are kept."""
        reason, detail = "stop_requested", ""
        if self._stop_request() == StopRequest.KILL:
            reason = "kill_requested"
        elif self.context.store.attempts.count(self.run.number):
            self._release_firmly()
            with contextlib.suppress(Unheeded):  # a request to kill: `_end` sees it
                self._move(State.SAVING, reason=reason)
                self._save()
        elif self.run.state == State.MACHINE_REQUESTED:
            reason = "kill_requested"
        else:
            detail = NEVER_STARTED
        self._end(reason, detail)

    def _give_up(self, reason: str, detail: str) -> None:
        self._keep_work = self._started or self._resumed  # its files are still there, so nothing is lost
        if self.handle or self._resumed:
            self._begin_release(self.handle)
        with contextlib.suppress(StaleFence):
            if not self._try_again(reason, detail, {}):
                self._end(reason, detail)

    def _try_again(self, reason: str, detail: str, facts: Mapping[str, Any]) -> bool:
        """Send the run back to the queue, where it asks for that and it may help. Returns whether it went there."""
        run, store = self.run, self.context.store
        failed = self.context.firmly(lambda: retry.failed(store, self.context.home, run, reason, detail, facts))
        if failed is None:
            return False
        self._release_firmly()
        try:
            gone = self.context.firmly(lambda: store.retry(run.number, run.fence, *failed))
        except StaleFence:
            raise
        except Conflict:  # it is being saved already
            return False
        self._freed = self._freed or gone
        return gone

    def _release_firmly(self) -> None:
        """Wait until nothing of the attempt is left. Raises `StaleFence` when the server ends before."""
        if self._release:
            self._release.join()
            if not self._release.is_done:
                raise StaleFence("the server ends")

    def _begin_release(self, handle: Handle | None) -> None:
        """Begin to free the machine of an attempt that is over. Without a handle, what is left of it is looked for."""
        self.handle = None
        if self._release is None:
            context, number = self.context, self.run.number
            self._release = Release(
                number,
                lambda: self._destroy(handle or self.executor.recover(self._attempt_folder())),
                lambda words: self.context.firmly(lambda: context.store.notice(number, words)),
                context.closing,
            )

    def _destroy(self, handle: Handle | None) -> None:
        if handle:
            self.executor.destroy(handle)

    def _attempt_folder(self) -> Path:
        folder = self.context.home.attempt_dir(self.run.number, self.run.attempt)
        folder.mkdir(parents=True, exist_ok=True)  # a dead server may only have claimed the run
        return folder

    def _columns_if_free(self) -> Mapping[str, Any]:
        """Return the columns to write with a state if the machine is free by then."""
        self._freed = self._release is None or self._release.is_done
        return RELEASED if self._freed else {}

    def _give_back(self) -> None:
        """Record that the machine is free, when it is."""
        if self._release:
            self._release.join()
            if self._release.is_done and not self._freed:
                with contextlib.suppress(StaleFence):
                    self.context.firmly(lambda: self.context.store.release(self.run.number, self.run.fence))
        self._on_free()

    def _begin(self) -> None:
        self._stop_if_requested()  # the request may have come before this object existed
        launch = self.context.launch(self.run, self.spec, *self._build())
        if self.run.attempt > 1 and self.context.store.attempts.count(self.run.number):
            retry.begin(launch.log, self.run.attempt)
        if self.spec.mounts:
            self._move(State.MOUNTING)
        self.executor.prepare(launch)
        self._stop_if_requested()
        note(self.context.home, self.run.number, self.run.attempt)
        try:
            handle = self.executor.start(launch, self._stop_requested.is_set)
        except Conflict:
            raise  # the worker that started it leads it
        except Exception:
            self._begin_release(None)
            raise
        self._attend(handle)

    def _resume(self) -> None:
        handle = self._recover()
        if handle:
            self._attend(handle)
        elif self.run.state in (State.BUILDING, State.MOUNTING):
            self._stop_if_requested()
            self._release_firmly()  # it starts again only when nothing of it is left
            self._move(State.MACHINE_REQUESTED, **RELEASED)  # nothing of it was started: it waits for its turn again
            self._freed = True
            self._on_free()
        elif self.run.state in (State.SAVING, State.PUSHING) and self.run.reason:  # see `_cancel`
            self._save()
            self._end(self.run.reason)
        else:
            self._end("supervisor_lost", "the files of the attempt are gone")

    def _recover(self) -> Handle | None:
        """Return the handle of the attempt, if it was started."""
        try:
            ask = functools.partial(self.executor.recover, self._attempt_folder())
            return self.context.patiently(self.run.number, "found again", ask, lambda e: isinstance(e, OSError))
        except ExecutorFailed as error:
            _log.warning("run %d was not started, but something of it is left: %s", self.run.number, error)
            self._begin_release(None)
            return None

    # -- steps --------------------------------------------------------------------------------------------------

    def _build(self) -> tuple[Base, Environment, Environment | None]:
        home, number = self.context.home, self.run.number
        self.work.check_free()
        try:
            home.attempt_dir(number, self.run.attempt).mkdir(parents=True, exist_ok=True)
            log, cancelled = home.build_log(number), self._stop_requested.is_set
            self.work.make(cancelled)
            home.metrics(number).touch()
            base = self.executor.base(self.spec, len(self.run.gpus), log, cancelled)
            environment, projects = self.context.environments_of(self.spec, base, log, cancelled, self.run)
            if projects:
                self.work.add(made_in(projects.path))
        except OSError as error:
            raise as_phase(error) from error
        except InvalidConfig as error:  # not visible when it was cast: for example a missing local wheel
            raise BuildFailed(error.message, error.cure) from error
        self.context.store.update(
            number,
            self.run.fence,
            image=base.image or None,
            environment=environment.key,
            python=environment.python,
            packages=json.dumps(environment.packages),
        )
        self._stop_if_requested()
        return base, environment, projects

    def _attend(self, handle: Handle) -> None:
        self.handle = handle
        self._started = True
        if self.run.state not in (State.RUNNING, State.SAVING, State.PUSHING):
            self._move(State.RUNNING, started_at=time.time())
        if self._stop_request():
            self.stop_requested()  # it came while the command was being started
        ask = functools.partial(self.executor.wait, handle)
        verdict = self.context.patiently(
            self.run.number, "waited for", ask, lambda e: is_disk_full(e) or getattr(e, "errno", None) in _PASSING
        )
        assert verdict is not None  # waited without a limit
        self._begin_release(handle)
        if verdict.reason in _LOST and not self._is_gone():
            self._keep_work = True
            self._end(
                verdict.reason, f"{verdict.detail}; its outputs were not saved: its processes may still write them"
            )
            return
        self.context.firmly(lambda: take_rest(self.context.store, self.context.home, self.run.number, self.run.attempt))
        notices.tell(self.context, self.run.number, verdict)
        self._finish(verdict)

    def _is_gone(self) -> bool:
        """Whether no process of an attempt is left that could write to its files. Waits for that, within a limit."""
        if self._release:
            self._release.wait(_LOST_LIMIT_S)
        return self._release is None or self._release.is_done

    def _finish(self, verdict: Verdict) -> None:
        facts = facts_of(verdict)
        if self._try_again(*self._reason(verdict), facts):
            return
        reason, detail = self._reason(verdict)
        if reason in ("kill_requested", "mount_failed", "executor_failed"):
            self._end(reason, detail, **facts)
            return
        if self.run.state not in (State.SAVING, State.PUSHING):
            sample = last_sample(self.run.number, verdict)
            try:
                self._move(State.SAVING, sample=sample, reason=reason, **self._columns_if_free(), **facts)
            except Unheeded:  # a stop request was accepted since then
                self._finish(verdict)
                return
        if self._freed:
            self._on_free()
        self._save()
        self._end(reason, detail, **facts)

    def _reason(self, verdict: Verdict) -> tuple[str, str]:
        """Return the end reason and its detail, from this verdict and a stop request that may exist by now."""
        asked = self.context.store.stop_request(self.run.number)
        reason = self.run.reason or decide(verdict, asked.request, asked.reason)
        return reason, verdict.detail if reason == verdict.reason else asked.detail

    def _save(self) -> None:
        number = self.run.number
        found = self.context.with_room(self.work.save)
        if self.run.state != State.PUSHING:
            self._move(State.PUSHING)
        self.context.firmly(lambda: self.context.store.set_artifacts(number, found))
        if any(not item.note for item in found):
            self.context.hasher.wake()
        if lost := not_kept(found):
            self.context.firmly(lambda: self.context.store.notice(number, lost))

    # -- store --------------------------------------------------------------------------------------------------

    def _stop_request(self) -> StopRequest | None:
        return self.context.store.stop_request(self.run.number).request

    def _stop_if_requested(self) -> None:
        if self._stop_request():
            raise BuildCancelled("stopped before its command was started")

    def _move(self, to: State, **columns: Any) -> None:
        self.context.firmly(lambda: self.context.store.move(self.run.number, self.run.fence, to, **columns))

    def _end(self, reason: str, detail: str = "", **columns: Any) -> None:
        try:
            store, columns = self.context.store, {**columns, **self._columns_if_free()}
            self.context.firmly(lambda: store.end(self.run.number, self.run.fence, reason, detail, **columns))
        except StaleFence:
            _log.info("run %d was ended by another worker", self.run.number)
        except Unheeded:  # a stop request was accepted at the last moment
            if self._stop_request() == StopRequest.KILL:
                self.work.lose_outputs()
            self._end(*as_requested(store.stop_request(self.run.number), is_started=self._started), **columns)
        else:
            self._over = True
