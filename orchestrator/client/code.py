"""The code of runs. Only blobs that the server lacks are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import BinaryIO, Protocol

from orchestrator.client.transport import CHUNK_BYTES, Transport, chunks
from orchestrator.content import manifest as manifests
from orchestrator.content.manifest import Manifest
from orchestrator.content.packs import SMALL_BYTES, grouped, pack
from orchestrator.errors import ConnectionLost
from orchestrator.spec.run import Code as CodeOfRun


class CapturedCode(Protocol):
    """Captured code, as `orchestrator.capture.snapshot` makes it.

    Attributes:
        code: how a spec names it.
        manifest: of its files.
        sizes: of all blobs, in bytes, by digest: those of the manifest, and the diff if there is one.
    """

    code: CodeOfRun
    manifest: Manifest
    sizes: Mapping[str, int]

    def open_blob(self, digest: str) -> BinaryIO:
        """Open a blob for reading."""


class Code:
    """Sends and reads the code of runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._call = transport, transport.call

    def send(self, code: CapturedCode) -> None:
        """Send the blobs that the server lacks, and always the diff, which no manifest names."""
        try:
            self._send(code)
        except ConnectionLost:  # the next server has what this one had received
            self._send(code)

    def _send(self, code: CapturedCode) -> None:
        manifest = code.manifest.to_json()
        missing = set(self._call("POST", "/trees", content=manifest, may_repeat=True))
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

    def tree(self, tree: str) -> Manifest:
        """Return the manifest of the code of a run."""
        return manifests.from_json(b"".join(chunks(self._transport.stream("GET", f"/trees/{tree}"))))

    def blob(self, digest: str) -> bytes:
        """Return the content of a blob, for example the diff of a run's code."""
        return b"".join(chunks(self._transport.stream("GET", f"/blobs/{digest}")))


def _packed(code: CapturedCode, digests: Iterable[str]) -> bytes:
    return pack((digest, _whole(code, digest)) for digest in digests)


def _whole(code: CapturedCode, digest: str) -> bytes:
    with code.open_blob(digest) as blob:
        return blob.read()
