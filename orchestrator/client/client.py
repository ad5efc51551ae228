"""The Python API: the same verbs over HTTP, typed. What works against the server of this home works against any other.

with connect() as client:
    number = client.cast(RunSpec(command="true")).number
    for event in client.follow(str(number)):
        ...
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from orchestrator.client.casts import CapturedCode, Casts
from orchestrator.client.exec import RemoteSession
from orchestrator.client.following import Followed, follow
from orchestrator.client.transport import Transport, chunks, lines, quote, quote_path
from orchestrator.errors import ServerUnavailable
from orchestrator.errors import from_wire as error_from_wire
from orchestrator.home import Home, default_home
from orchestrator.records import from_wire as record
from orchestrator.records.casts import CastRecord
from orchestrator.records.events import EventRecord
from orchestrator.records.files import ArtifactRecord, FileRecord
from orchestrator.records.gc import CollectedRecord, CollectionRecord
from orchestrator.records.images import ImageRecord
from orchestrator.records.machines import CheckRecord, MachineRecord, ServerRecord
from orchestrator.records.metrics import MetricRecord
from orchestrator.records.run_summary import RunSummary
from orchestrator.records.runs import AttemptRecord, RunRecord, SampleRecord, StatRecord
from orchestrator.spec.run import RunSpec, to_wire
from orchestrator.states import FINAL

_BAKE_LIMIT_S = 3600.0
_EXAMINATION_LIMIT_S, _COLLECTION_LIMIT_S = 12.0, 3600.0


class Client:
    """Speaks to one server. Also a context manager.

    Args:
        home: the home whose server is meant.
        start: whether a server may be started when none answers.
    """

    def __init__(self, home: Home, *, start: bool = True) -> None:
        self.transport = Transport(home, start=start)
        self._call, self._stream = self.transport.call, self.transport.stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()

    # -- runs ---------------------------------------------------------------------------------------------------

    def cast(self, spec: RunSpec, code: CapturedCode | None = None, *, reuse: bool = False) -> CastRecord:
        """Cast a run; see `Casts.cast`."""
        return Casts(self.transport).cast(spec, code, reuse=reuse)

    def rerun(self, reference: str, changes: Mapping[str, Any] | None = None) -> CastRecord:
        """Cast a run again; see `Casts.rerun`."""
        return Casts(self.transport).rerun(reference, changes)

    def send(self, code: CapturedCode) -> None:
        """Send code as far as the server lacks it; see `Casts.send`."""
        Casts(self.transport).send(code)

    def runs(
        self,
        *,
        states: Sequence[str] = (),
        labels: Sequence[str] = (),
        name: str = "",
        limit: int = 50,
        before: int = 0,
    ) -> list[RunSummary]:
        """Runs that match all filters, the newest `limit` of them, newest last. There are more in `remote.runs`."""
        query = {"state": list(states), "label": list(labels), "name": name, "limit": limit, "before": before}
        return [record(RunSummary, item) for item in self._call("GET", "/runs", params=query)]

    def run(self, reference: str) -> RunRecord:
        """All about one run, by number, name, `latest` or `latest~1`."""
        found = self._call("GET", f"/runs/{quote(reference)}")
        return record(RunRecord, found | {"attempts": [record(AttemptRecord, item) for item in found["attempts"]]})

    def stop(self, reference: str) -> str:
        """End a run; its outputs are kept. Returns its state after that."""
        return str(self._call("POST", f"/runs/{quote(reference)}/stop")["state"])

    def kill(self, reference: str) -> str:
        """End a run at once; its outputs are lost. Returns its state after that."""
        return str(self._call("POST", f"/runs/{quote(reference)}/kill")["state"])

    def events(self, reference: str) -> list[EventRecord]:
        """What happened to a run, in order."""
        return [record(EventRecord, item) for item in self._call("GET", f"/runs/{quote(reference)}/events")]

    def artifacts(self, reference: str) -> list[ArtifactRecord]:
        """The manifest of a run's outputs."""
        return [record(ArtifactRecord, item) for item in self._call("GET", f"/runs/{quote(reference)}/artifacts")]

    def metrics(self, reference: str, name: str = "") -> list[MetricRecord]:
        """The metrics that a run sent; of one name, or all."""
        found = self._call("GET", f"/runs/{quote(reference)}/metrics", params={"name": name})
        return [record(MetricRecord, item) for item in found]

    def samples(self, reference: str) -> list[SampleRecord]:
        """What a run used of the machine."""
        return [record(SampleRecord, item) for item in self._call("GET", f"/runs/{quote(reference)}/samples")]

    def stats(self, references: Sequence[str] = ()) -> list[StatRecord]:
        """What these runs use now; all that run, when none is named."""
        return [record(StatRecord, item) for item in self._call("GET", "/stats", params={"run": list(references)})]

    def open_session(
        self,
        reference: str,
        command: Sequence[str] = (),
        *,
        terminal: bool = False,
        term: str = "",
        size: tuple[int, int] | None = None,
    ) -> RemoteSession:
        """Start a command beside a run's own, in its container.

        Args:
            command: program and arguments; one word is a line for a shell, none the shell itself.
            terminal: whether it gets a terminal; its stderr is then part of its stdout.
            term: the kind of that terminal, as in `$TERM`.
            size: its columns and rows.

        Raises:
            NotFound, Conflict: there is no such run; it does not run, or not in a container.
        """
        number = self.run(reference).number  # starts the server, where there is none
        words = {"command": list(command), "terminal": terminal, "term": term, "size": size}
        return RemoteSession(self.transport.home, number, words)

    def wait(self, reference: str, timeout_s: float | None = None) -> RunSummary:
        """Wait until a run has ended.

        Raises:
            TimeoutError: when `timeout_s` passed before.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if timeout_s is not None and (run := self.run(reference)).state in FINAL:
            return run  # however little time there was
        for item in self.follow(reference, "0.9223372036854775807.9223372036854775807", deadline):
            if item.run:
                return item.run
        raise AssertionError("a stream ends with its end")

    # -- logs ---------------------------------------------------------------------------------------------------

    def log(
        self, reference: str, lines: int | None = None, most_bytes: int | None = None
    ) -> tuple[Iterator[bytes], int]:
        """The run's own output up to now (or its last `lines` lines, and `most_bytes` of those), and the offset in bytes
        where that ends."""
        asked = {"lines": lines, "most_bytes": most_bytes}
        query = {name: value for name, value in asked.items() if value is not None}
        response = self._stream("GET", f"/runs/{quote(reference)}/log", params=query)
        return chunks(response), int(response.headers["spell-log-end"])

    def follow(self, reference: str, position: str = "", deadline: float | None = None) -> Iterator[Followed]:
        """Everything that a run does, in order, from a position on, until it has ended.

        A lost connection, or a server that restarts, is waited for; nothing is missed and nothing told twice.

        Args:
            deadline: a value of `time.monotonic()` after which TimeoutError is raised.

        Raises:
            ServerUnavailable: when no server answered for a minute.
            TimeoutError: see `deadline`.
        """
        number = reference if reference.isdecimal() else str(self.run(reference).number)
        yield from follow(self.transport, number, position, deadline)

    # -- resources ----------------------------------------------------------------------------------------------

    def ls(self, resource: str = "") -> list[FileRecord]:
        """A folder's entries, or the file itself; the top of the tree for ""."""
        return [record(FileRecord, item) for item in self._call("GET", f"/resources/{quote_path(resource)}")]

    def download(self, resource: str) -> tuple[str, int, Iterator[bytes]]:
        """What it is (`file`, `executable`: its bytes follow; `folder`: a tar stream), the size in bytes, the chunks."""
        response = self._stream("GET", f"/files/{quote_path(resource)}")
        return response.headers["spell-kind"], int(response.headers["spell-total-bytes"]), chunks(response)

    def blob(self, digest: str) -> bytes:
        """The content of a blob, such as the diff of a run's code."""
        return b"".join(chunks(self._stream("GET", f"/blobs/{digest}")))

    # -- machine and server -------------------------------------------------------------------------------------

    def machine_types(self) -> list[MachineRecord]:
        """All machine types."""
        return [record(MachineRecord, item) for item in self._call("GET", "/machine-types")]

    def server(self) -> ServerRecord:
        """Which server answers."""
        return record(ServerRecord, self._call("GET", "/server"))

    def examine(self) -> list[CheckRecord]:
        """What works on the server's machine, and what does not."""
        found = self._call("GET", "/doctor", read_limit_s=_EXAMINATION_LIMIT_S)
        return [record(CheckRecord, item) for item in found]

    def collect(self, older_than_s: float, *, dry_run: bool = False, keep_bytes: int | None = None) -> CollectionRecord:
        """Remove what nobody uses, and nobody used for so long; beyond `keep_bytes` of a kind, what is younger, too."""
        query: dict[str, float] = {"older_than_s": older_than_s, "dry_run": dry_run}
        query |= {} if keep_bytes is None else {"keep_bytes": keep_bytes}
        found = self._call("POST", "/gc", params=query, read_limit_s=_COLLECTION_LIMIT_S)
        return CollectionRecord([record(CollectedRecord, item) for item in found["removed"]], found["warnings"])

    def bake(self, spec: RunSpec, tag: str, *, push: bool, said: Callable[[str], object] = len) -> ImageRecord:
        """Bake the environment of a spec into an image, and push it when asked.

        Args:
            tag: what to call it.
            said: called with each line of the build log as it comes.

        Raises:
            SpellError: whatever went wrong, as the class that the server raised.
        """
        body = {"spec": to_wire(spec), "tag": tag, "push": push}
        answer = self._stream("POST", "/images", json=body, read_limit_s=_BAKE_LIMIT_S)
        for line in lines(answer):
            words = json.loads(line)
            if "line" in words:
                said(words["line"])
            elif "image" in words:
                return record(ImageRecord, words["image"])
            elif words:  # nothing is said only to see whether we still listen
                raise error_from_wire(words, answer.status_code)
        raise ServerUnavailable("The server ended before the image was made.", "See: spell server logs")

    def stop_server(self) -> None:
        """Ask the server to end; active runs go on."""
        self._call("POST", "/server/stop")


def connect(home: Home | None = None, *, start: bool = True) -> Client:
    """A client of the server of this home (default: `$SPELL_HOME`, else `~/.spell`); it is started when needed."""
    return Client(home or Home(default_home()), start=start)
