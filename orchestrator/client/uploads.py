"""Uploads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import NotFound
from orchestrator.records import from_wire
from orchestrator.records.uploads import UploadNeeds, UploadRecord, UploadSession, session_from_wire

if TYPE_CHECKING:
    from orchestrator.capture.datatree import DataTree

_LIMIT_S = 3600.0  # the server sends nothing while it hashes or waits for its disk


class Uploads:
    """Makes, lists and removes uploads. `put` uploads a folder or file in one call; `open`, `announce`, `add_pack`,
    `add_chunk` and `publish` are its steps."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def list(self) -> list[UploadRecord]:
        """Return all uploads, by name."""
        return [from_wire(UploadRecord, item) for item in self._call("GET", "/uploads")]

    def put(
        self,
        name: str,
        data: str | os.PathLike[str] | DataTree,
        *,
        replace: bool = False,
        on_progress: Callable[[int], object] = lambda _bytes: None,
    ) -> UploadRecord:
        """Upload a folder or file as `uploads/NAME`. Only files that the server lacks are sent.

        Args:
            name: of the upload.
            data: its path, or its tree if the files were listed already.
            replace: whether to replace an upload of the same name.
            on_progress: called from any thread with the number of bytes that have arrived since the last call.

        Raises:
            Conflict: if a file changed during the upload, or if an upload of the same name has other content.
            SpellError: of the class that the server raised.
        """
        # 10 ms, and only this verb needs them
        from orchestrator.capture.datatree import DataTree, look
        from orchestrator.client.upload import upload

        tree = data if isinstance(data, DataTree) else DataTree(look(os.fspath(data)))
        return upload(self, name, tree, replace=replace, on_progress=on_progress)

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
        return session_from_wire(self._call("POST", _path(name), params=query, read_limit_s=_LIMIT_S))

    def announce(self, name: str, session: str, manifest: str) -> UploadNeeds:
        """Announce some files of an upload, and return which of them to send.

        Args:
            session: of the open upload.
            manifest: of these files, as `Manifest.to_json` makes it.
        """
        path, query = f"{_path(name)}/entries", {"session": session}
        return from_wire(UploadNeeds, self._call("POST", path, content=manifest, params=query, read_limit_s=_LIMIT_S))

    def add_pack(self, name: str, session: str, pack: bytes) -> None:
        """Send a pack of small files, as `orchestrator.content.packs` makes it."""
        self._call("POST", f"{_path(name)}/pack", content=pack, params={"session": session}, read_limit_s=_LIMIT_S)

    def add_chunk(self, name: str, session: str, digest: str, offset: int, data: bytes) -> None:
        """Send the bytes of a big file that follow the first `offset` bytes."""
        query = {"session": session, "digest": digest, "offset": offset}
        self._call("POST", f"{_path(name)}/chunk", content=data, params=query, read_limit_s=_LIMIT_S)

    def publish(self, name: str, session: str, tree: str, *, replace: bool = False) -> UploadRecord:
        """Publish an upload whose files have all been sent; `tree` is the hash of its manifest."""
        query = {"session": session, "tree": tree, "replace": replace}
        return from_wire(
            UploadRecord, self._call("POST", f"{_path(name)}/publish", params=query, read_limit_s=_LIMIT_S)
        )

    def remove(self, name: str) -> None:
        """Remove an upload."""
        self._call("DELETE", _path(name), read_limit_s=_LIMIT_S)


def _path(name: str) -> str:
    try:
        return f"/uploads/{quote(name)}"
    except NotFound:
        raise NotFound(f"There is no upload {name!r}.", "See them with: spell ls uploads") from None
