"""Uploads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.client.upload_steps import LIMIT_S, UploadSteps, path_of
from orchestrator.records import from_wire
from orchestrator.records.uploads import UploadRecord

if TYPE_CHECKING:
    from orchestrator.capture.datatree import DataTree


class Uploads(UploadSteps):
    """Makes, lists and removes uploads. `put` uploads a folder or file in one call; `open`, `announce`, `add_pack`,
    `add_chunk` and `publish` are its steps."""

    def list(self) -> list[UploadRecord]:
        """Return all uploads, by name."""
        return [from_wire(UploadRecord, item) for item in self._call("GET", "/uploads")]

    def put(
        self,
        name: str,
        data: str | os.PathLike[str] | DataTree,
        *,
        replace: bool = False,
        follow_links: bool = False,
        on_progress: Callable[[int], object] = lambda _bytes: None,
    ) -> UploadRecord:
        """Upload a folder or file as `uploads/NAME`. Only files that the server lacks are sent.

        Args:
            name: of the upload.
            data: its path, or its tree if the files were listed already.
            replace: whether to replace an upload of the same name.
            follow_links: whether to upload what links lead to that lead out of the folder. Without it they are left out.
            on_progress: called from any thread with the number of bytes that have arrived since the last call.

        Raises:
            Conflict: if a file changed during the upload, or if an upload of the same name has other content.
            SpellError: of the class that the server raised.
        """
        # 10 ms, and only this verb needs them
        from orchestrator.capture.datatree import DataTree, look
        from orchestrator.client.upload import upload

        tree = data if isinstance(data, DataTree) else DataTree(look(os.fspath(data), follow_links=follow_links))
        return upload(self, name, tree, replace=replace, on_progress=on_progress)

    def remove(self, name: str) -> None:
        """Remove an upload."""
        self._call("DELETE", path_of(name), read_limit_s=LIMIT_S)
