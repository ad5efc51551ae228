"""Uploads of a server."""

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

_LIMIT_S = 3600.0  # a server that hashes, or waits for its disk, says nothing meanwhile


class Uploads:
    """Makes uploads out of folders and files, lists and removes them. What `put` does can be done in steps: open, announce,
    add, publish."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def list(self) -> list[UploadRecord]:
        """All uploads, by name."""
        return [from_wire(UploadRecord, item) for item in self._call("GET", "/uploads")]

    def put(
        self,
        name: str,
        data: str | os.PathLike[str] | DataTree,
        *,
        replace: bool = False,
        on_progress: Callable[[int], object] = lambda _bytes: None,
    ) -> UploadRecord:
        """Upload a folder or file, as `uploads/NAME`. Only what the server lacks is sent.

        Args:
            data: its path; or what was found there, when somebody has looked before.
            replace: whether it may take the place of another one of this name.
            on_progress: called with the number of bytes that are there now and were not before, from any thread.

        Raises:
            Conflict: something changed before it was read (all that is uploaded lay there at one moment); or there is an
                upload of this name, with other content.
            SpellError: whatever the server refuses, as the class that it raised.
        """
        # 10 ms, which only this verb needs
        from orchestrator.capture.datatree import DataTree, look
        from orchestrator.client.upload import upload

        tree = data if isinstance(data, DataTree) else DataTree(look(os.fspath(data)))
        return upload(self, name, tree, replace=replace, on_progress=on_progress)

    def open(self, name: str, size_bytes: int, tree: str = "", *, replace: bool = False) -> UploadSession:
        """Begin an upload, or go on with one.

        Args:
            size_bytes: how big its files are together.
            tree: of its manifest; "" when that is not known yet.
            replace: whether it may take the place of another one of this name.

        Raises:
            SpellError: whatever the server refuses, as the class that it raised.
        """
        query = {"size_bytes": size_bytes, "tree": tree, "replace": replace}
        return session_from_wire(self._call("POST", _path(name), params=query, read_limit_s=_LIMIT_S))

    def announce(self, name: str, session: str, manifest: str) -> UploadNeeds:
        """Say what is to come, some files at a time; the answer says which of them to send.

        Args:
            manifest: of these files, as `Manifest.to_json` makes it.
        """
        path, query = f"{_path(name)}/entries", {"session": session}
        return from_wire(UploadNeeds, self._call("POST", path, content=manifest, params=query, read_limit_s=_LIMIT_S))

    def add_pack(self, name: str, session: str, pack: bytes) -> None:
        """Send small files, as `orchestrator.content.packs` puts them together."""
        self._call("POST", f"{_path(name)}/pack", content=pack, params={"session": session}, read_limit_s=_LIMIT_S)

    def add_chunk(self, name: str, session: str, digest: str, offset: int, data: bytes) -> None:
        """Send bytes of a big file that follow the `offset` bytes which are there."""
        query = {"session": session, "digest": digest, "offset": offset}
        self._call("POST", f"{_path(name)}/chunk", content=data, params=query, read_limit_s=_LIMIT_S)

    def publish(self, name: str, session: str, tree: str, *, replace: bool = False) -> UploadRecord:
        """Let an upload appear, all of which was sent; `tree` is that of its manifest."""
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
