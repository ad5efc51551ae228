"""The code of runs: what a server lacks of it is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import BinaryIO, Protocol

from orchestrator.client.transport import CHUNK_BYTES, Transport, chunks
from orchestrator.content.manifest import Manifest
from orchestrator.content.packs import SMALL_BYTES, grouped, pack
from orchestrator.spec.run import Code as CodeOfRun


class CapturedCode(Protocol):
    """What `snapshot` makes: how a spec names it, a manifest, the sizes of all blobs (there may be one more: the diff), how
    to read them."""

    code: CodeOfRun
    manifest: Manifest
    sizes: Mapping[str, int]

    def open_blob(self, digest: str) -> BinaryIO:
        """The content of one blob."""


class Code:
    """Sends the code of runs, and reads blobs of it."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._call = transport, transport.call

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

    def blob(self, digest: str) -> bytes:
        """The content of a blob, such as the diff of a run's code."""
        return b"".join(chunks(self._transport.stream("GET", f"/blobs/{digest}")))


def _packed(code: CapturedCode, digests: Iterable[str]) -> bytes:
    return pack((digest, _whole(code, digest)) for digest in digests)


def _whole(code: CapturedCode, digest: str) -> bytes:
    with code.open_blob(digest) as blob:
        return blob.read()
