"""The tools that read. Their docstrings are what an assistant is told about them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.to_thread

from orchestrator.assistants import answers
from orchestrator.client.client import Client
from orchestrator.errors import NotFound, UsageError
from orchestrator.spec.filters import Filter
from orchestrator.states import FINAL

_MOST_RUNS = 200
_MOST_LINES = 2_000
_MOST_POINTS = 500
_MOST_WAIT_S = 60.0
_LOOK_S = 0.5
_LONGEST_LINE = 2_000  # characters of one line that is found in a log
_SHOWN_OF_A_RUN = (
    "number name state wish command description labels project machine_type commit dirty created_at duration_s exit_code "
    "signal message waits_for"
).split()


class Reading:
    """The tools that read, on the Python API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def tools(self) -> Sequence[Callable[..., Any]]:
        """Return them all."""
        return (
            self.list_runs,
            self.run_info,
            self.wait_for_run,
            self.read_log,
            self.read_metrics,
            self.list_files,
            self.read_file,
            self.diff_runs,
            self.run_lineage,
            self.doctor,
        )

    def list_runs(
        self,
        states: list[str] | None = None,
        labels: list[str] | None = None,
        project: str = "",
        text: str = "",
        metric: str = "",
        sort: str = "",
        limit: int = 20,
    ) -> str:
        """List runs, the newest last.

        Args:
            states: only runs in one of these: machine_requested (queued), building, running, complete, failed, stopped, killed, …
            labels: only runs with any of these labels.
            project: only runs of this project.
            text: only runs with this in their command or description.
            metric: only runs whose latest value meets this condition, such as `loss < 0.5`.
            sort: number (default), duration or metric:NAME; with a '-' before it the smallest comes last.
            limit: the last so many, 200 at most.
        """
        wanted = Filter(
            states=states or (),
            labels=labels or (),
            project=project,
            text=(text,) if text else (),
            metrics=(metric,) if metric else (),
        )
        found = self._client.runs.list(wanted, sort, limit=min(max(limit, 1), _MOST_RUNS))
        shown = [
            {name: getattr(run, name) for name in _SHOWN_OF_A_RUN if getattr(run, name) not in ("", None, [])}
            for run in found
        ]
        return answers.listing("runs", shown, "Ask for fewer: limit, states, labels, project or text.")

    def run_info(self, run: str) -> str:
        """Return the whole record of a run: spec, state, why it ended, packages, mounts, attempts, usage.

        Args:
            run: its number, its name, latest or latest~1.
        """
        return answers.record(self._client.runs.get(run))

    async def wait_for_run(self, run: str, timeout_s: float = 30.0) -> str:
        """Wait until a run has ended, and return its state; or its state now, when the time is over.

        Args:
            run: its number, its name, latest or latest~1.
            timeout_s: how long to wait, 60 at most. Ask again to wait longer.
        """
        deadline = time.monotonic() + min(timeout_s, _MOST_WAIT_S)
        found = await anyio.to_thread.run_sync(self._client.runs.get, run)
        while found.state not in FINAL and time.monotonic() < deadline:
            await anyio.sleep(_LOOK_S)
            found = await anyio.to_thread.run_sync(self._client.runs.get, found.number)
        shown = {
            name: getattr(found, name)
            for name in ("number", "state", "exit_code", "message", "waits_for", "duration_s")
        }
        return answers.record({**shown, "has_ended": found.state in FINAL})

    def read_log(self, run: str, lines: int = 100, search: str = "") -> str:
        """Return the end of a run's log, or the last lines of it that match.

        Args:
            run: its number, its name, latest or latest~1.
            lines: how many, 2000 at most.
            search: only lines with this text, or that match a regular expression between slashes: /loss=[0-9]/, or /nan/i in
                upper or lower case.
        """
        lines = min(max(lines, 1), _MOST_LINES)
        if search:
            return self._matching(run, lines, search)
        log = self._client.logs.get(run, lines, answers.MOST_BYTES)
        data = log.read()
        shown = data.decode(errors="replace")
        if len(data) < answers.MOST_BYTES and data.count(b"\n") < lines:
            return shown or "[the log is empty]"
        return f"[cut: the last {len(data)} of {log.end} bytes; search finds lines before]\n{shown}"

    def _matching(self, run: str, most: int, search: str) -> str:
        kept, used, count = deque[str](), 0, 0
        for line in self._client.logs.search(run, search, last=most).lines:
            kept.append(f"{line.line}: {line.text[:_LONGEST_LINE]}")
            used, count = used + len(kept[-1].encode()) + 1, count + 1
            while used > answers.MOST_BYTES:
                used -= len(kept.popleft().encode()) + 1
        if not kept:
            return f"[no line matches {search!r}]"
        is_cut = count == most or len(kept) < count
        about = f"[the last {len(kept)} lines that match; there may be more]\n" if is_cut else ""
        return about + "\n".join(kept)

    def read_metrics(self, run: str, name: str = "", points: int = 100) -> str:
        """Return a summary of each metric of a run, or the values of one.

        Args:
            run: its number, its name, latest or latest~1.
            name: of one metric; then its values come as [step, value], evenly chosen where there are more than `points`.
            points: the most values, 500 at most.
        """
        if not name:
            return answers.listing("metrics", self._client.metrics.summaries(run), "Ask for one by its name.")
        found = self._client.metrics.list(run, name)
        if not found:
            sent = ", ".join(item.name for item in self._client.metrics.summaries(run))
            raise NotFound(f"Run {run} has no metric {name!r}.", f"It has: {sent}" if sent else "It has none.")
        kept = answers.thinned(found, min(max(points, 2), _MOST_POINTS))
        cut = {} if len(kept) == len(found) else {"cut": f"{len(kept)} of {len(found)} values are shown, evenly chosen"}
        return answers.record({"name": name, "values": [[item.step, item.value] for item in kept], **cut})

    def list_files(self, resource: str) -> str:
        """List a folder of outputs or uploads, not what is below it.

        Args:
            resource: runs/3, runs/latest/model, uploads/NAME, or the name of a link.
        """
        return answers.listing("files", self._client.resources.list(resource), "Ask for a folder below it.")

    def read_file(self, resource: str, offset: int = 0, most_bytes: int = 20_000) -> str:
        """Return a part of a text file of the outputs or uploads.

        Args:
            resource: runs/3/result.json, uploads/NAME/FILE, …
            offset: where to begin, in bytes.
            most_bytes: how many, 40000 at most.
        """
        found = self._client.resources.download(resource)
        if found.kind == "folder":
            raise UsageError(f"{resource!r} is a folder.", "Use list_files.")
        offset, most_bytes = max(offset, 0), min(max(most_bytes, 1), answers.MOST_BYTES)
        data = answers.slice_of(found.chunks, offset, most_bytes)
        if b"\0" in data:
            return f"[{resource} is not text: {found.size_bytes} bytes. The person can copy it: spell cp {resource} .]"
        end = offset + len(data)
        shown = data.decode(errors="replace")
        if offset == 0 and end >= found.size_bytes:
            return shown or "[the file is empty]"
        return f"{shown}\n[cut: bytes {offset} to {end} of {found.size_bytes}; go on with offset={end}]"

    def diff_runs(self, before: str, after: str, sections: list[str] | None = None) -> str:
        """Compare two runs: spec, environment, code (with patches), outputs, last values of metrics, result.

        Args:
            before, after: numbers, names, latest or latest~1.
            sections: of spec, environment, code, outputs, metrics and result; all by default.
        """
        found = self._client.compare.diff(before, after, sections or ())
        return answers.record(found)

    def run_lineage(self, run: str) -> str:
        """Return the runs and uploads that a run mounted, and the runs that mounted its outputs, as nodes and edges.

        Args:
            run: its number, its name, latest or latest~1.
        """
        return answers.record(self._client.lineage.get(run))

    def doctor(self) -> str:
        """Check the server's machine: executors, GPUs, disk, … each with its result and what to do about it."""
        return answers.listing("checks", self._client.doctor.examine(), "")
