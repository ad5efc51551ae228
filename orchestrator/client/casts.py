"""Casting runs at a server, and sending their code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, Protocol

from orchestrator.client.transport import CHUNK_BYTES, Transport, quote
from orchestrator.content.manifest import Manifest
from orchestrator.content.packs import SMALL_BYTES, grouped, pack
from orchestrator.errors import SnapshotMissing
from orchestrator.records import from_wire
from orchestrator.records.casts import CastRecord
from orchestrator.spec.run import RunSpec, to_wire


class CapturedCode(Protocol):
    """What `snapshot` makes: a manifest, the sizes of all blobs (there may be one more: the diff), how to read them."""

    manifest: Manifest
    sizes: Mapping[str, int]

    def open_blob(self, digest: str) -> BinaryIO:
        """The content of one blob."""


class Casts:
    """Casts runs, new ones and earlier ones again."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def cast(self, spec: RunSpec, code: CapturedCode | None = None, *, reuse: bool = False) -> CastRecord:
        """Cast a run. The code is sent only as far as the server lacks it.

        Args:
            reuse: take an identical run that is complete, where there is one.

        Raises:
            SpellError: whatever the server refuses, as the class that it raised.
        """
        body, query = to_wire(spec), {"reuse": "true"} if reuse else {}
        try:
            return from_wire(CastRecord, self._call("POST", "/runs", json=body, params=query))
        except SnapshotMissing:
            if code is None:
                raise
        self.send(code)
        return from_wire(CastRecord, self._call("POST", "/runs", json=body, params=query))

    def rerun(self, reference: str, changes: Mapping[str, Any] | None = None) -> CastRecord:
        """Cast a run again: same code, package versions, image and mounts.

        Args:
            changes: fields of a spec, as JSON values: a mapping or list adds to what the run has, another value replaces.

        Raises:
            SpellError: whatever the server refuses, as the class that it raised.
        """
        return from_wire(CastRecord, self._call("POST", f"/runs/{quote(reference)}/rerun", json=changes or {}))

    def send(self, code: CapturedCode) -> None:
        """Send code as far as the server lacks it; the diff, which no manifest names, in any case."""
        manifest = code.manifest.to_json()
        missing = set(self._call("POST", "/trees", content=manifest))
        wanted = sorted(missing | (code.sizes.keys() - code.manifest.digests))
        small = [digest for digest in wanted if code.sizes.get(digest, SMALL_BYTES) < SMALL_BYTES]
        for digest in sorted(set(wanted) - set(small)):
            with code.open_blob(digest) as blob:
                self._call("PUT", f"/blobs/{digest}", content=iter(lambda: blob.read(CHUNK_BYTES), b""))
        groups = list(grouped((digest, code.sizes[digest]) for digest in small))
        last = groups.pop() if missing and groups else []
        for group in groups:
            self._call("POST", "/blobs", content=_packed(code, group))
        if missing:
            self._call("POST", "/trees", content=b"%b\n%b" % (manifest.encode(), _packed(code, last)))


def _packed(code: CapturedCode, digests: Iterable[str]) -> bytes:
    return pack((digest, _whole(code, digest)) for digest in digests)


def _whole(code: CapturedCode, digest: str) -> bytes:
    with code.open_blob(digest) as blob:
        return blob.read()
