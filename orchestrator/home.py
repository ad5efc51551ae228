"""The paths of all files. No other code knows them.

$SPELL_HOME                     default ~/.spell
  config.toml                   the user's configuration
  runs/2/data.txt               outputs, and only outputs: the resource path is the file path
  uploads/NAME/…
  store/                        everything else
    spell.db                    runs, events, mounts, artifacts, metrics, samples
    spell.ballast               removed when the disk is full, so that this can be recorded
    spelld.sock, .lock, .log    the server
    webhook.key                 signs messages to webhooks
    secrets.key                 encrypts secrets
    records/2/                  log, build log, metrics, and one folder for each attempt
    blobs/ab/cdef…              content of snapshots
    trees/TREE.json             manifests of snapshots
    environments/KEY/           Python environments
    incoming/NAME/              files of an upload that is not complete yet
    uploads/NAME.json           manifests of uploads
    work/2/                     the work dir of a run whose outputs are not sealed yet, and its layer
    runtime/                    modules that every run can import; its commands spell and uv, its pip
    removed/                    files that are being removed
    sharing/                    files that will replace identical outputs
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
from pathlib import Path

from orchestrator.errors import DiskFull, HomeUnusable, is_disk_full

_PATIENCE_S = 1.0  # after this time without an answer, we check whether the server still lives
_SHORT_FOLDER = "/tmp"  # noqa: S108  not $TMPDIR, which may differ between the shells of one user
_ROOM_BYTES = 128 << 10  # a server writes so much while it starts
_MAX_SOCKET_PATH_BYTES = 100  # sun_path holds 108 bytes on Linux, 104 on macOS


def default_home() -> Path:
    """`$SPELL_HOME`, else `~/.spell`.

    Raises:
        HomeUnusable: when both are missing.
    """
    try:
        return Path(os.environ.get("SPELL_HOME") or Path.home() / ".spell").expanduser().absolute()
    except (OSError, RuntimeError) as error:  # a relative one in a folder that is gone; a user without a home
        raise HomeUnusable(
            f"The path of the home is unknown: {str(error).rstrip('.')}.", "Set SPELL_HOME to a folder: SPELL_HOME=/…"
        ) from error


def check_room(folder: Path) -> None:
    """Check that the disk of a folder has space for a starting server.

    Raises:
        DiskFull: when it has too little.
    """
    try:
        with os.fdopen(_nameless(folder), "wb") as file:
            file.write(bytes(_ROOM_BYTES))
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(f"The disk of {folder} is full.", "Free some space. Runs go on by themselves.") from error


def _nameless(folder: Path) -> int:
    """Open a file that disappears when it is closed. (Importing `tempfile` would cost every command 5 ms.)"""
    with contextlib.suppress(AttributeError, OSError):  # O_TMPFILE is not supported everywhere
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    path = folder / f".room-{os.urandom(8).hex()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    path.unlink()
    return descriptor


class Home:
    """The paths of one home. Only `create` makes folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.toml"
        self.runs = root / "runs"
        self.uploads = root / "uploads"
        self.store = root / "store"
        self.database = self.store / "spell.db"
        self.ballast = self.store / "spell.ballast"
        self.lock = self.store / "spelld.lock"
        self.server_log = self.store / "spelld.log"
        self.webhook_key = self.store / "webhook.key"
        self.secrets_key = self.store / "secrets.key"
        self.logs = self.store / "records"
        self.blobs = self.store / "blobs"
        self.trees = self.store / "trees"
        self.environments = self.store / "environments"
        self.incoming = self.store / "incoming"
        self.upload_manifests = self.store / "uploads"
        self.work = self.store / "work"
        self.runtime = self.store / "runtime"
        self.removed = self.store / "removed"
        self.dedup = self.store / "sharing"

    @property
    def socket(self) -> Path:
        """The socket of the server. If the home's path is too long for a socket, it lies in a private temporary folder."""
        path = self.store / "spelld.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
            return path
        key = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(_SHORT_FOLDER) / f"spell-{os.getuid()}-{key}" / "spelld.sock"

    def check_socket(self) -> None:
        """Check that no other user can have made the socket.

        Raises:
            HomeUnusable: when its folder belongs to another user.
        """
        folder = self.socket.parent
        if folder == self.store:
            return
        with contextlib.suppress(FileNotFoundError):
            if folder.lstat().st_uid != os.getuid():
                raise HomeUnusable(f"{folder} belongs to another user.", "Choose a SPELL_HOME with a shorter path.")

    def create(self) -> None:
        """Make the folders of the home, readable only by its owner.

        Raises:
            HomeUnusable: when they cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.store.mkdir(mode=0o700, exist_ok=True)
            for folder in (
                self.runs,
                self.uploads,
                self.logs,
                self.blobs,
                self.trees,
                self.environments,
                self.incoming,
                self.upload_manifests,
                self.work,
                self.runtime,
                self.removed,
                self.dedup,
            ):
                folder.mkdir(exist_ok=True)
            self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HomeUnusable(
                f"The home {self.root} cannot be used: {error.strerror or error}.",
                "Choose another one with SPELL_HOME=…, or correct its permissions.",
            ) from error
        self.check_socket()

    def run_dir(self, number: int) -> Path:
        """`runs/N`: the sealed outputs of a run."""
        return self.runs / str(number)

    def log_dir(self, number: int) -> Path:
        """`store/records/N`: log, build log, metrics and attempts of a run."""
        return self.logs / str(number)

    def log(self, number: int) -> Path:
        """The output of the run's command, byte for byte."""
        return self.log_dir(number) / "log"

    def log_times(self, number: int) -> Path:
        """The times when the log grew; see `supervisor/log_times.py`."""
        return self.log_dir(number) / "log.times"

    def build_log(self, number: int) -> Path:
        """The log of building its environment and image."""
        return self.log_dir(number) / "build.log"

    def metrics(self, number: int) -> Path:
        """The metrics that `orchestrator.runtime.send_metric` appends, one JSON object a line."""
        return self.log_dir(number) / "metrics.jsonl"

    def attempt_dir(self, number: int, attempt: int) -> Path:
        """Request, claim and verdict of one attempt; shared by server and supervisor."""
        return self.log_dir(number) / f"attempt-{attempt}"

    def checkpoints(self, number: int) -> Path:
        """The checkpoints of a failed attempt, while the work dir of the next attempt is made."""
        return self.log_dir(number) / "checkpoints"

    def work_dir(self, number: int) -> Path:
        """The work dir of a run until its outputs are sealed; `code` below it is the run's root."""
        return self.work / str(number)

    def layer(self, number: int) -> Path:
        """The layer of a run over its environment, which goes with its work dir."""
        return self.work_dir(number) / "layer"

    def blob(self, digest: str) -> Path:
        """The content of a file, by its SHA-256."""
        return self.blobs / digest[:2] / digest[2:]

    def tree(self, tree: str) -> Path:
        """The manifest of a snapshot."""
        return self.trees / f"{tree}.json"

    def upload_dir(self, name: str) -> Path:
        """`uploads/NAME`: the sealed files of an upload."""
        return self.uploads / name

    def upload_manifest(self, name: str) -> Path:
        """The manifest of a published upload."""
        return self.upload_manifests / f"{name}.json"

    def environment(self, key: str) -> Path:
        """A published environment."""
        return self.environments / key


def answers(path: Path) -> bool:
    """Whether the server that listens on this socket answers: one that is still starting may yet fail."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.settimeout(_PATIENCE_S)
        try:
            probe.connect(str(path))
            probe.sendall(b"GET /server HTTP/1.0\r\n\r\n")
            return bool(probe.recv(1))
        except OSError:
            return False


def is_served(home: Home) -> bool:
    """Whether a server holds this home's lock. It holds the lock until its process has ended."""
    try:
        with home.lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
