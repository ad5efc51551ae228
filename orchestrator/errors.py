"""Every error that spell raises on purpose, with message, cure, exit code and HTTP status.

    SpellError
    ├── UsageError              wrong use of a command
    ├── InvalidConfig           a spec, job file, mount, parameter or configuration that is invalid
    │   └── ImpossibleRequest   more of a resource than this machine will ever have
    ├── InvalidCommit           a commit or ref that cannot be resolved
    ├── InvalidRepository       a repository whose code cannot be captured
    ├── NotFound                no such run, file or machine type
    ├── Conflict                the thing exists, but its state does not allow this
    │   ├── SnapshotMissing     the server lacks blobs of the code
    │   ├── UploadLost          the server was restarted since this upload began
    │   └── StaleFence          a late message of a worker that has lost its run
    ├── StoreBusy               another program holds the store
    ├── ServerUnavailable       no server answers and none could be started
    │   └── ConnectionLost      the request was sent, but the answer did not come
    ├── VersionMismatch         client and server do not speak the same version
    ├── HomeUnusable            the home cannot be read or written
    └── PhaseFailed             a phase of a run's life failed; carries the end reason
        ├── BuildFailed, MountFailed, CodeFailed, SecretLost, ExecutorFailed, SaveFailed
        └── DiskFull

One table (`BY_CODE`) turns error answers of the server back into these.
"""

from __future__ import annotations

import errno
import re
from typing import ClassVar

_FULL = (errno.ENOSPC, errno.EDQUOT)
# As the C library has it, whoever tells it on (uv, Docker's engine, apt), and as Rust has it: 28 and 122 are Linux's
# numbers of the two.
_SAYS_FULL = re.compile(r"no space left on device|disk quota exceeded|os error (28|122)\b", re.IGNORECASE)


class SpellError(Exception):
    """Base of all errors of spell.

    Args:
        message: what is wrong, in one sentence for the user.
        cure: what to do about it; may be empty.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    @property
    def whole(self) -> str:
        """Message and cure in one line."""
        end = "" if not self.cure or self.message.endswith((".", "!", "?")) else "."
        return f"{self.message}{end} {self.cure}".strip()

    def to_wire(self) -> dict[str, dict[str, str]]:
        """Return the body of an HTTP answer for this error."""
        return {"error": {"code": self.code, "message": self.message, "cure": self.cure}}


class UsageError(SpellError):
    """The command was called in a wrong way."""

    code, exit_code, http_status = "usage", 2, 422


class InvalidConfig(SpellError):
    """A spec, job file, mount, parameter or configuration is invalid."""

    code, exit_code, http_status = "invalid_config", 3, 422


class ImpossibleRequest(InvalidConfig):
    """The run asks for more of a resource than this machine will ever have."""

    code, exit_code, http_status = "impossible_request", 3, 422


class InvalidCommit(SpellError):
    """A commit or ref cannot be resolved."""

    code, exit_code, http_status = "invalid_commit", 5, 422


class InvalidRepository(SpellError):
    """A repository without commits, unreadable, or git itself is missing."""

    code, exit_code, http_status = "invalid_repository", 6, 422


class NotFound(SpellError):
    """No such run, resource, file or machine type."""

    code, exit_code, http_status = "not_found", 1, 404


class Conflict(SpellError):
    """The thing exists, but its state does not allow this."""

    code, exit_code, http_status = "conflict", 1, 409


class SnapshotMissing(Conflict):
    """The server lacks the snapshot that a spec names, or a part of it. Send it, then try again."""

    code = "snapshot_missing"


class UploadLost(Conflict):
    """The server knows no running upload of this name, because it was restarted. Begin again; it keeps what arrived."""

    code = "upload_lost"


class StaleFence(Conflict):
    """The message came from a worker that has lost its run; the worker must stop working on it."""

    code = "stale_fence"


class StoreBusy(SpellError):
    """Another program holds the store's file for longer than we wait. End that program, or try again."""

    code, exit_code, http_status = "store_busy", 1, 503


class ServerUnavailable(SpellError):
    """No server answers at the home's socket."""

    code, exit_code, http_status = "server_unavailable", 1, 503


class ConnectionLost(ServerUnavailable):
    """The request was sent, but the answer did not come completely: the server may have done it or not."""

    code = "connection_lost"


class VersionMismatch(SpellError):
    """Client and server do not speak the same version of the API."""

    code, exit_code, http_status = "version_mismatch", 1, 426


class HomeUnusable(SpellError):
    """The home cannot be read or written, or was made by a newer version."""

    code, exit_code, http_status = "home_unusable", 1, 500


class PhaseFailed(SpellError):
    """A phase of a run's life failed. `reason` names the end reason in `states.ENDS`."""

    code, exit_code, http_status = "phase_failed", 1, 500
    reason: ClassVar[str] = "executor_failed"


class BuildFailed(PhaseFailed):
    """The environment could not be built; the build log shows the failed step."""

    code, reason = "build_failed", "build_failed"


class MountFailed(PhaseFailed):
    """A resource could not be mounted."""

    code, reason = "mount_failed", "mount_failed"


class CodeFailed(PhaseFailed):
    """The code could not be unpacked, or its hash differs from that of the code that was sent."""

    code, reason = "code_failed", "code_failed"


class SecretLost(PhaseFailed):
    """A secret of a run was removed meanwhile, or cannot be decrypted. Set it again."""

    code, reason = "secret_lost", "secret_lost"


class ExecutorFailed(PhaseFailed):
    """The executor could not start or supervise the run."""

    code, reason = "executor_failed", "executor_failed"


class SaveFailed(PhaseFailed):
    """Outputs could not be moved to the run's folder."""

    code, reason = "save_failed", "save_failed"


class DiskFull(PhaseFailed):
    """The disk of the home is full."""

    code, reason, http_status = "disk_full", "disk_full", 507


def is_disk_full(error: BaseException) -> bool:
    """Whether the system refused to write for want of room; a quota that is used up is a full disk too."""
    return isinstance(error, OSError) and error.errno in _FULL


def says_disk_full(words: str) -> bool:
    """Whether the output of a program, or the message of an engine, tells of a full disk."""
    return _SAYS_FULL.search(words) is not None


def _tree(root: type[SpellError]) -> dict[str, type[SpellError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


BY_CODE: dict[str, type[SpellError]] = _tree(SpellError)


def from_wire(body: object, status: int) -> SpellError:
    """Return the error in an HTTP answer; an unknown code becomes a plain `SpellError` with the same message."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return SpellError(f"The server answered with HTTP status {status}.")
    kind = BY_CODE.get(str(error.get("code")), SpellError)
    return kind(str(error.get("message", "")), str(error.get("cure", "")))
