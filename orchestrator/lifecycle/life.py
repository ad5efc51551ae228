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
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.content.files import remove_tree
from orchestrator.environments import Base, BuildCancelled, Environment
from orchestrator.errors import (
    BuildFailed,
    Conflict,
    ExecutorFailed,
    InvalidConfig,
    PhaseFailed,
    SaveFailed,
    SpellError,
    StaleFence,
    is_disk_full,
)
from orchestrator.executors.base import Handle, Session, Usage, Verdict
from orchestrator.lifecycle import retry, workdir
from orchestrator.lifecycle.context import Workshop
from orchestrator.lifecycle.outcome import as_phase, decide, facts_of, not_kept
from orchestrator.lifecycle.release import Release
from orchestrator.spec.run import RunSpec
from orchestrator.spec.validate import read_spec
from orchestrator.states import State, Wish
from orchestrator.store import RELEASED, ClaimedRun
from orchestrator.telemetry.metrics import ingest_metrics
from orchestrator.telemetry.samples import last_sample

_log = logging.getLogger(__name__)
_LOST = ("supervisor_lost", "container_lost")
_LOST_LIMIT_S = 30.0
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO)


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
        self._release: Release | None = None
        self._started = self._resumed = self._over = self._keep_work = self._freed = False

    @functools.cached_property
    def spec(self) -> RunSpec:
        """What was asked. Read when it is needed: a run that another version cast can be attended without."""
        return read_spec(self.run.spec)

    @functools.cached_property
    def work(self) -> workdir.WorkDir:
        """Where it works."""
        return workdir.WorkDir(self.shop, self.run, self.spec)

    # -- asked from other threads -------------------------------------------------------------------------------

    def wished(self) -> None:
        """A wish to stop or kill was recorded for this run: act on it."""
        self._wished.set()
        if self.handle:
            # in a thread of its own: who wished it does not wait for an executor that hangs
            threading.Thread(target=self._stop, name=f"stop-{self.run.number}", daemon=True).start()

    def _stop(self) -> None:
        def ask() -> None:
            if handle := self.handle:
                self.executor.stop(handle, kill=self._wish() == Wish.KILL)

        with contextlib.suppress(StaleFence):
            self.shop.patiently(self.run.number, "stopped", ask, lambda e: isinstance(e, OSError | SpellError))

    def usage(self) -> Usage | None:
        """What the run uses now; None when its command is not running."""
        handle = self.handle
        return self.executor.usage(handle) if handle else None

    def open_session(self, command: Sequence[str], term: str, *, terminal: bool) -> Session:
        """Start a command beside the run's own; `term` names the kind of terminal. Raises as the executor does."""
        env, cwd = self.shop.surroundings(self.run, self.spec)
        handle = self.handle
        if handle is None:
            raise Conflict(f"Run {self.run.number} is not running.")
        env |= {"TERM": term} if term else {}
        return self.executor.open_session(handle, command, env, cwd, terminal=terminal)

    # -- the thread of this run ---------------------------------------------------------------------------------

    def conduct(self) -> None:
        """Lead the run from its claim to its end."""
        self._safely(self._begin)

    def resume(self) -> None:
        """Lead a run of a dead server to its end, from where it is."""
        self._resumed = True
        self._safely(self._resume)

    def cancel(self) -> None:
        """End a run that was asked to end while it was in the queue."""
        self._safely(self._cancel)

    def give_back(self) -> None:
        """Give back the machine of a run that has ended under a dead server."""
        self._safely(lambda: self._begin_release(None))

    def _safely(self, steps: Callable[[], None]) -> None:
        try:
            try:
                steps()
            except BuildCancelled:
                self._cancel()
        except StaleFence:
            pass  # somebody else leads it now
        except PhaseFailed as error:
            self._give_up(error.reason, error.whole)
        except SpellError as error:
            self._give_up("internal_error", error.message)
        except Exception as error:  # whatever it was: no run stays active for ever
            _log.exception("run %d", self.run.number)
            self._give_up("disk_full" if is_disk_full(error) else "internal_error", f"{type(error).__name__}: {error}")
        finally:
            self._give_back()
            if self._over and not self._keep_work and not self.shop.closing.is_set():
                self._remove_work()

    def _cancel(self) -> None:
        """End a run of whose attempt nothing was started. What an attempt before it has left is kept."""
        reason, detail = "stop_requested", ""
        if self._wish() == Wish.KILL:
            reason = "kill_requested"
        elif self.shop.store.attempts.count(self.run.number):
            self._release_firmly()
            self._move(State.SAVING, reason=reason)
            self._save()
        elif self.run.state == State.MACHINE_REQUESTED:
            reason = "kill_requested"
        else:
            detail = "its command was not started, so there are no outputs"
        self._end(reason, detail)

    def _remove_work(self) -> None:
        try:
            workdir.remove(self.shop.home, self.run.number)
        except SaveFailed:
            _log.exception("run %d", self.run.number)

    def _give_up(self, reason: str, detail: str) -> None:
        self._keep_work = self._started or self._resumed  # what it left is still there: nothing is lost
        if self.handle or self._resumed:
            self._begin_release(self.handle)
        with contextlib.suppress(StaleFence):
            if not self._try_again(reason, detail, {}):
                self._end(reason, detail)

    def _try_again(self, reason: str, detail: str, facts: Mapping[str, Any]) -> bool:
        """Send the run back to the queue, where it asks for that and it may help. Returns whether it went there."""
        run, store = self.run, self.shop.store
        failed = self.shop.firmly(lambda: retry.failed(store, self.shop.home, run, reason, detail, facts))
        if failed is None:
            return False
        self._release_firmly()
        try:
            gone = self.shop.firmly(lambda: store.retry(run.number, run.fence, *failed))
        except StaleFence:
            raise
        except Conflict:  # it is being saved
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
        """Begin to give back the machine of an attempt that is over; without a handle, of what there may be of it."""
        self.handle = None
        if self._release is None:
            shop, number = self.shop, self.run.number
            self._release = Release(
                number,
                lambda: self._destroy(handle or self.executor.recover(self._attempt_folder())),
                lambda words: self.shop.firmly(lambda: shop.store.notice(number, words)),
                shop.closing,
            )

    def _destroy(self, handle: Handle | None) -> None:
        if handle:
            self.executor.destroy(handle)

    def _attempt_folder(self) -> Path:
        folder = self.shop.home.attempt_dir(self.run.number, self.run.attempt)
        folder.mkdir(parents=True, exist_ok=True)  # the claim may have been all that a dead server did
        return folder

    def _columns_if_free(self) -> Mapping[str, Any]:
        """What to write beside a state when the machine is free by then."""
        self._freed = self._release is None or self._release.is_done
        return RELEASED if self._freed else {}

    def _give_back(self) -> None:
        """Record that the machine is free, once it is."""
        if self._release:
            self._release.join()
            if self._release.is_done and not self._freed:
                with contextlib.suppress(StaleFence):
                    self.shop.firmly(lambda: self.shop.store.release(self.run.number, self.run.fence))
        self._on_free()

    def _begin(self) -> None:
        self._stop_if_wished()  # it came before anybody could tell us
        launch = self.shop.launch(self.run, self.spec, *self._build())
        if self.run.attempt > 1 and self.shop.store.attempts.count(self.run.number):
            retry.begin(launch.log, self.run.attempt)
        if self.spec.mounts:
            self._move(State.MOUNTING)
        self.executor.prepare(launch)
        self._stop_if_wished()
        try:
            handle = self.executor.start(launch, self._wished.is_set)
        except Conflict:
            raise  # whoever started it leads it
        except Exception:
            self._begin_release(None)
            raise
        self._attend(handle)

    def _resume(self) -> None:
        handle = self._recover()
        if handle:
            self._attend(handle)
        elif self.run.state in (State.BUILDING, State.MOUNTING):
            self._stop_if_wished()
            self._release_firmly()  # it starts again only when nothing of it is left
            self._move(State.MACHINE_REQUESTED, **RELEASED)  # nothing of it was started: it waits for its turn again
            self._freed = True
            self._on_free()
        elif self.run.state in (State.SAVING, State.PUSHING) and self.run.reason:  # see `_cancel`
            self._save()
            self._end(self.run.reason)
        else:
            self._end("supervisor_lost", "its records are gone")

    def _recover(self) -> Handle | None:
        """What there is of the attempt."""
        try:
            ask = functools.partial(self.executor.recover, self._attempt_folder())
            return self.shop.patiently(self.run.number, "found again", ask, lambda e: isinstance(e, OSError))
        except ExecutorFailed as error:
            _log.warning("run %d was not started, and leaves something: %s", self.run.number, error)
            self._begin_release(None)
            return None

    # -- steps --------------------------------------------------------------------------------------------------

    def _build(self) -> tuple[Environment, Base]:
        home, number = self.shop.home, self.run.number
        self.work.check_free()
        try:
            home.attempt_dir(number, self.run.attempt).mkdir(parents=True, exist_ok=True)
            self.work.make()
            home.metrics(number).touch()
            base = self.executor.base(self.spec, len(self.run.gpus), home.build_log(number), self._wished.is_set)
            environment = self.shop.environment(self.spec, base, home.build_log(number), self._wished.is_set)
        except OSError as error:
            raise as_phase(error) from error
        except InvalidConfig as error:  # what could not be seen when it was cast: a local wheel that is not there
            raise BuildFailed(error.message, error.cure) from error
        self.shop.store.update(
            number,
            self.run.fence,
            image=base.image or None,
            environment=environment.key,
            python=environment.python,
            packages=json.dumps(environment.packages),
        )
        self._stop_if_wished()
        return environment, base

    def _attend(self, handle: Handle) -> None:
        self.handle = handle
        self._started = True
        if self.run.state not in (State.RUNNING, State.SAVING, State.PUSHING):
            self._move(State.RUNNING, started_at=time.time())
        if self._wish():
            self.wished()  # it came while the command was being started
        ask = functools.partial(self.executor.wait, handle)
        verdict = self.shop.patiently(
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
        self.shop.firmly(lambda: ingest_metrics(self.shop.store, self.shop.home, self.run.number))
        if verdict.note:
            self.shop.firmly(lambda: self.shop.store.notice(self.run.number, verdict.note))
        retry.tell_of_cut(self.shop.store, self.shop.home, self.run.number)
        self._finish(verdict)

    def _is_gone(self) -> bool:
        """Whether nothing of an attempt is left that could write to its files; waits for that as long as one may."""
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
            self._move(State.SAVING, sample=sample, reason=reason, **self._columns_if_free(), **facts)
        if self._freed:
            self._on_free()
        self._save()
        if self._wish() == Wish.KILL:
            remove_tree(self.shop.home.run_dir(self.run.number))
            self.shop.firmly(lambda: self.shop.store.set_artifacts(self.run.number, []))
            reason = "kill_requested"
        self._end(reason, detail, **facts)

    def _reason(self, verdict: Verdict) -> tuple[str, str]:
        """The end reason of what this verdict says and somebody may have wished by now, and its words."""
        wished = self.shop.store.wished(self.run.number)
        reason = self.run.reason or decide(verdict, wished.wish, wished.reason)
        return reason, verdict.detail if reason == verdict.reason else wished.detail

    def _save(self) -> None:
        number = self.run.number
        found = self.work.save()
        if self.run.state != State.PUSHING:
            self._move(State.PUSHING)
        self.shop.firmly(lambda: self.shop.store.set_artifacts(number, found))
        if any(not item.note for item in found):
            self.shop.hasher.wake()
        if lost := not_kept(found):
            self.shop.firmly(lambda: self.shop.store.notice(number, lost))

    # -- small things -------------------------------------------------------------------------------------------

    def _wish(self) -> Wish | None:
        return self.shop.store.wished(self.run.number).wish

    def _stop_if_wished(self) -> None:
        if self._wish():
            raise BuildCancelled("stopped before its command was started")

    def _move(self, to: State, **columns: Any) -> None:
        self.shop.firmly(lambda: self.shop.store.move(self.run.number, self.run.fence, to, **columns))

    def _end(self, reason: str, detail: str = "", **columns: Any) -> None:
        try:
            columns = {**columns, **self._columns_if_free()}
            self.shop.firmly(lambda: self.shop.store.end(self.run.number, self.run.fence, reason, detail, **columns))
        except StaleFence:
            _log.info("run %d was ended by somebody else", self.run.number)
        else:
            self._over = True
