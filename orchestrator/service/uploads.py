"""Uploads: a client announces files, sends the missing ones in packs and chunks, and publishes the upload."""

from __future__ import annotations

from orchestrator.data import uploads
from orchestrator.records.uploads import UploadNeeds, UploadRecord, UploadSession
from orchestrator.service.access import Access, Who
from orchestrator.store import Store


class Uploads:
    """The uploads of one home. All raise as `data.uploads.Uploads`."""

    def __init__(self, kept: uploads.Uploads, store: Store, access: Access) -> None:
        self._kept, self._store, self._access = kept, store, access

    def list(self, who: Who) -> list[UploadRecord]:
        """All uploads, by name."""
        return self._kept.list()

    def open(self, who: Who, name: str, size_bytes: int, tree: str, *, replace: bool) -> UploadSession:
        """Begin an upload, or resume one."""
        return self._kept.open(self._access.resolve_upload(who, name), size_bytes, tree, replace=replace)

    def announce(self, who: Who, name: str, session: str, text: bytes) -> UploadNeeds:
        """Announce some files of the upload by a manifest. Returns which of them to send."""
        return self._kept.announce(self._access.resolve_upload(who, name), session, text)

    def add_pack(self, who: Who, name: str, session: str, body: bytes) -> None:
        """Save small files."""
        self._kept.add_pack(self._access.resolve_upload(who, name), session, body)

    def add_chunk(self, who: Who, name: str, session: str, digest: str, offset: int, data: bytes) -> None:
        """Append bytes to a big file."""
        self._kept.add_chunk(self._access.resolve_upload(who, name), session, digest, offset, data)

    def publish(self, who: Who, name: str, session: str, tree: str, *, replace: bool) -> UploadRecord:
        """Publish an upload that is complete."""
        return self._kept.publish(self._access.resolve_upload(who, name), session, tree, replace=replace)

    def remove(self, who: Who, name: str) -> None:
        """Remove an upload, and any incomplete upload of its name."""
        with self._store.way_out():
            self._kept.remove(self._access.resolve_upload(who, name))
