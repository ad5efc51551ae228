"""The code of runs: manifests of snapshots, and the blobs that they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.content import manifest as manifests
from orchestrator.data.tarred import read_chunks
from orchestrator.errors import NotFound
from orchestrator.lifecycle.context import Context
from orchestrator.service.access import Who
from orchestrator.spec.run import check_digest


class Code:
    """The code in one home."""

    def __init__(self, context: Context) -> None:
        self._blobs, self._home = context.blobs, context.home

    def put_tree(self, who: Who, body: bytes) -> list[str]:
        """Save the manifest of a snapshot if the server has all of its blobs.

        Args:
            body: the manifest as JSON without line breaks; a line break and a pack of blobs may follow.

        Returns:
            The digests of the blobs that must be sent first. Raises as `BlobStore.put_tree`.
        """
        text, _, pack = body.partition(b"\n")
        return self._blobs.put_tree(manifests.from_json(text), pack)

    def put_blobs(self, who: Who, pack: bytes) -> None:
        """Save many small blobs; raises as `BlobStore.put_pack`."""
        self._blobs.put_pack(pack)

    def put_blob(self, who: Who, digest: str, chunks: Iterable[bytes]) -> None:
        """Save a blob if it has this digest; raises as `BlobStore.put`."""
        self._blobs.put(digest, chunks)

    def tree(self, who: Who, tree: str) -> str:
        """The manifest of a snapshot, as JSON; raises as `BlobStore.tree`."""
        return self._blobs.tree(tree).to_json()

    def blob(self, who: Who, digest: str) -> Iterator[bytes]:
        """The content of a blob.

        Raises:
            InvalidConfig: `digest` is not a digest.
            NotFound: the server does not have the blob.
        """
        if self._blobs.missing([check_digest(digest)]):
            raise NotFound(f"There is no blob {digest[:12]}.")
        return read_chunks(self._home.blob(digest))
