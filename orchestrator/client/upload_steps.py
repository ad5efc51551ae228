"""The requests that an upload is made of."""

from __future__ import annotations

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import NotFound
from orchestrator.records import from_wire
from orchestrator.records.uploads import UploadNeeds, UploadRecord, UploadSession, session_from_wire

LIMIT_S = 3600.0  # the server sends nothing while it hashes or waits for its disk


class UploadSteps:
    """One request for each step of an upload; `upload` makes them in the right order."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def open(self, name: str, size_bytes: int, tree: str = "", *, replace: bool = False) -> UploadSession:
        """Begin or continue an upload.

        Args:
            size_bytes: of all its files.
            tree: the hash of its manifest; "" if it is not known yet.
            replace: whether to replace an upload of the same name.

        Raises:
            SpellError: of the class that the server raised.
        """
        query = {"size_bytes": size_bytes, "tree": tree, "replace": replace}
        return session_from_wire(self._call("POST", path_of(name), params=query, read_limit_s=LIMIT_S))

    def announce(self, name: str, session: str, manifest: str) -> UploadNeeds:
        """Announce some files of an upload, and return which of them to send.

        Args:
            session: of the open upload.
            manifest: of these files, as `Manifest.to_json` makes it.
        """
        path, query = f"{path_of(name)}/entries", {"session": session}
        return from_wire(UploadNeeds, self._call("POST", path, content=manifest, params=query, read_limit_s=LIMIT_S))

    def add_pack(self, name: str, session: str, pack: bytes) -> None:
        """Send a pack of small files, as `orchestrator.content.packs` makes it."""
        self._call("POST", f"{path_of(name)}/pack", content=pack, params={"session": session}, read_limit_s=LIMIT_S)

    def add_chunk(self, name: str, session: str, digest: str, offset: int, data: bytes) -> None:
        """Send the bytes of a big file that follow the first `offset` bytes."""
        query = {"session": session, "digest": digest, "offset": offset}
        self._call("POST", f"{path_of(name)}/chunk", content=data, params=query, read_limit_s=LIMIT_S)

    def publish(self, name: str, session: str, tree: str, *, replace: bool = False) -> UploadRecord:
        """Publish an upload whose files have all been sent; `tree` is the hash of its manifest."""
        query = {"session": session, "tree": tree, "replace": replace}
        return from_wire(
            UploadRecord, self._call("POST", f"{path_of(name)}/publish", params=query, read_limit_s=LIMIT_S)
        )


def path_of(name: str) -> str:
    """Return the path of an upload in the API."""
    try:
        return f"/uploads/{quote(name)}"
    except NotFound:
        raise NotFound(f"There is no upload {name!r}.", "See them with: spell ls uploads") from None
