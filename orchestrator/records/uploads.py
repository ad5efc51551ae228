"""Uploads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import InvalidConfig
from orchestrator.records import from_wire

_NAME = re.compile(r"\w[\w .+@=,-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """A published upload: `uploads/NAME`.

    Attributes:
        tree: SHA-256 of its manifest, see `orchestrator.content.manifest`.
        count: the number of its files and links.
        bytes: the size of all files.
        created_at: when it was published.
    """

    name: str
    tree: str
    count: int
    bytes: int
    created_at: float


@dataclass(frozen=True, slots=True)
class UploadSession:
    """The answer to the request to begin an upload.

    Attributes:
        session: identifies the upload in the next requests; "" if an upload of this name exists.
        upload: the existing upload. If it has the same tree, nothing is left to do; if the request named no tree, send it.
    """

    session: str
    upload: UploadRecord | None = None


@dataclass(frozen=True, slots=True)
class UploadNeeds:
    """The files to send, of those that were announced.

    Attributes:
        missing: digests of files that the server lacks and that no other upload sends; null for all of them.
        begun: the number of bytes that the server has of some files.
    """

    missing: list[str] | None
    begun: dict[str, int]


def session_from_wire(body: Mapping[str, Any]) -> UploadSession:
    """The session in a JSON object."""
    found = body.get("upload")
    return from_wire(UploadSession, {**body, "upload": from_wire(UploadRecord, found) if found else None})


def check_name(name: str) -> None:
    """Check the name of an upload.

    Raises:
        InvalidConfig: the name is not allowed.
    """
    if not _NAME.match(name) or name != name.strip():
        raise InvalidConfig(
            f"{name!r} cannot be the name of an upload: letters, digits, spaces and . _ - + @ = , only; 63 at most.",
            "Choose another one: spell upload -n NAME PATH",
        )
