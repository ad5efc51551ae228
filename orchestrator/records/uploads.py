"""What the API answers of uploads. As in `orchestrator.records`: frozen, printed by `--json`, in this order."""

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
        count: how many files and links.
        bytes: how big they are together.
        created_at: when it was published.
    """

    name: str
    tree: str
    count: int
    bytes: int
    created_at: float


@dataclass(frozen=True, slots=True)
class UploadSession:
    """The answer to who wants to upload.

    Attributes:
        session: to be named with whatever is sent; "" when there is an upload of this name.
        upload: that upload. Is it what was to be uploaded, all is done; was no tree said yet, it has to be.
    """

    session: str
    upload: UploadRecord | None = None


@dataclass(frozen=True, slots=True)
class UploadNeeds:
    """What is to be sent of files that were announced.

    Attributes:
        missing: digests of those that the server lacks and nobody else sends; null for all of them.
        begun: how many bytes of some of them are there.
    """

    missing: list[str] | None
    begun: dict[str, int]


def session_from_wire(body: Mapping[str, Any]) -> UploadSession:
    """The session in a JSON object."""
    found = body.get("upload")
    return from_wire(UploadSession, {**body, "upload": from_wire(UploadRecord, found) if found else None})


def check_name(name: str) -> None:
    """See that something can be called so.

    Raises:
        InvalidConfig: otherwise.
    """
    if not _NAME.match(name) or name != name.strip():
        raise InvalidConfig(
            f"{name!r} cannot be the name of an upload: letters, digits, spaces and . _ - + @ = , only; 63 at most.",
            "Say another one: spell upload -n NAME PATH",
        )
