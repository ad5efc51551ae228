"""The paths of all files. No other code knows them.

$SPELL_HOME                     default ~/.spell
  config.toml                   the user's configuration
  runs/2/data.txt               outputs, and only outputs: the resource path is the file path
  uploads/NAME/…
  store/                        everything else
    spell.db                    runs, events, mounts, artifacts, metrics, samples
    home.json                   the identity of the home, which a copy of it does not have
    spell.ballast               removed when the disk is full, so that this can be recorded
    spell.reserve               removed when the disk is full, for what frees space: archive, gc, rm, stop, kill
    spelld.sock, .lock, .log    the server
    launch.lock                 held by the command that starts the server
    webhook.key                 signs messages to webhooks
    secrets.key                 encrypts secrets
    records/2/                  log, build log, metrics, and one folder for each attempt
    blobs/ab/cdef…              content of snapshots
    trees/TREE.json             manifests of snapshots
    environments/KEY/           Python environments
    incoming/NAME/              files of an upload that is not complete yet
    uploads/NAME.json           manifests of uploads
    work/2/                     the work dir of a run whose outputs are not sealed yet, and its layer
    runtime/                    what every run has: modules to import, the commands spell and uv, pip
    removed/                    files that are being removed
    sharing/                    files that will replace identical outputs
    caches/owner/huggingface/   what tools in runs download, for later runs
    scratch/                    files of requests that are being answered; emptied when a server starts

The root is for its owner only unless the configuration says otherwise (`open_to`), `store` always. Where a folder lies in the
place of a file of ours (a careless restore), `set_aside` moves it away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import time
from pathlib import Path

from orchestrator.errors import DiskFull, HomeUnusable, is_disk_full

PRIVATE = 0o700
_TREE = 0o755  # below a folder that is private
_OURS = {"config.toml", "runs", "uploads", "store"}
_END_LIMIT_S, _LOOK_S = 10.0, 0.05
_PATIENCE_S = 1.0  # after this time without an answer, we check whether the server still lives
_SHORT_FOLDER = "/tmp"  # noqa: S108  not $TMPDIR, which may differ between the shells of one user
_ROOM_BYTES = 128 << 10  # a server writes so much while it starts
_MAX_SOCKET_PATH_BYTES = 100  # sun_path holds 108 bytes on Linux, 104 on macOS


def cache_dir() -> Path:
    """Where the command line keeps what it can make again: `$XDG_CACHE_HOME/spell`, else `~/.cache/spell`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spell"


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
        self.reserve = self.store / "spell.reserve"
        self.lock = self.store / "spelld.lock"
        self.launch_lock = self.store / "launch.lock"
        self.identity = self.store / "home.json"
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
        self.scratch = self.store / "scratch"
        self.caches = self.store / "caches"

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
        """Make the folders of the home, readable only by its owner, and correct the modes of those that are there.

        Raises:
            HomeUnusable: when they cannot be made, or a server still serves a home that was here.
        """
        self.check_has_no_old_server()
        try:
            for above in reversed([path for path in self.root.parents if not path.exists()]):
                make_folder(above, _TREE)
            make_folder(self.root, PRIVATE)
            for folder in (self.runs, self.uploads):
                make_folder(folder, _TREE, correct=stat.S_IWGRP | stat.S_IWOTH)
            make_folder(self.store, PRIVATE, correct=stat.S_IRWXG | stat.S_IRWXO)
            for folder in (
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
                self.scratch,
                self.caches,
            ):
                make_folder(folder, _TREE)
            self.check_socket()
            make_folder(self.socket.parent, PRIVATE, correct=stat.S_IRWXG | stat.S_IRWXO)
        except OSError as error:
            raise self.unusable(error) from error

    def unusable(self, error: OSError) -> HomeUnusable:
        """Return the error that says that the home cannot be used, and why not."""
        inside = Path(error.filename or self.root)
        where = "" if self.root.is_relative_to(inside) else f"{inside}: "
        return HomeUnusable(
            f"The home {self.root} cannot be used: {where}{error.strerror or error}.",
            "Choose another one with SPELL_HOME=…, or correct its permissions.",
        )

    def open_to(self, mode: int) -> None:
        """Give the home this mode. Where things that are not ours lie in it, `runs` and `uploads` get the mode instead."""
        with contextlib.suppress(OSError):  # somebody else's folder; doctor says what others can read
            if _OURS.issuperset(os.listdir(self.root)):
                self.root.chmod(mode)
                return
        for folder in (self.runs, self.uploads):
            with contextlib.suppress(OSError):
                folder.chmod(mode)

    def check_is_there(self) -> None:
        """Check that a home that has answered before was not moved or removed meanwhile. Raises HomeUnusable."""
        if self._is_gone():
            raise HomeUnusable(
                f"The home {self.root} is gone: it was moved or removed while it was used.",
                "If it was moved, name its new place: SPELL_HOME=…. Its runs go on.",
            )

    def check_has_no_old_server(self) -> None:
        """Check that no server serves a home that was here and was moved or removed; it ends when it notices that.

        If a person has made the folder again, wait for that end.

        Raises:
            HomeUnusable: when there is one.
        """
        if not self._is_gone():
            return
        deadline = time.monotonic() + _END_LIMIT_S
        while pid := server_of(self.root):
            if not self.root.exists() or time.monotonic() > deadline:
                raise HomeUnusable(
                    f"The home {self.root} is gone: it was moved or removed, and its server (process {pid}) still lives.",
                    "Move it back, or name its new place: SPELL_HOME=…. For a new home, try again: the server ends by itself.",
                )
            time.sleep(_LOOK_S)

    def _is_gone(self) -> bool:
        try:
            self.store.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # it may not be looked at: whoever uses it says so
            return False
        return False

    def run_dir(self, number: int) -> Path:
        """`runs/N`: the sealed outputs of a run."""
        return self.runs / str(number)

    def whole(self, path: Path) -> Path:
        """`runs/N` or `uploads/NAME`: the outputs of a run, or the upload, to which a path belongs."""
        return self.root.joinpath(*path.relative_to(self.root).parts[:2])

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

    def begun(self, number: int, attempt: int) -> Path:
        """Written just before the command of an attempt is started: the files of trackers that are there."""
        return self.attempt_dir(number, attempt) / "begun"

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


def make_folder(folder: Path, mode: int, *, correct: int = 0) -> None:
    """Make a folder with exactly this mode, whatever the umask. From one that exists, take the bits of `correct`.

    Raises:
        OSError: when it cannot be made, or is something else. It names the folder.
    """
    try:
        folder.mkdir(mode)
        folder.chmod(mode)
    except FileExistsError:
        found = folder.stat().st_mode
        if not stat.S_ISDIR(found):
            raise
        if found & correct:
            folder.chmod(stat.S_IMODE(found) & ~correct)


def set_aside(path: Path) -> None:
    """Move a folder away that lies in the place of a file of ours. Nothing in it is lost."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.folder-{os.urandom(4).hex()}"))


def open_lock(path: Path) -> int:
    """Open a file of ours that is locked, and make it if it is missing. Returns its descriptor."""
    set_aside(path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def server_of(root: Path) -> int:
    """Return the process that was started to serve this home, which may be gone; 0 if none lives or none can be seen."""
    wanted = [b"orchestrator.server", b"--home", os.fsencode(root)]
    with contextlib.suppress(OSError):  # no /proc
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    if Path("/proc", name, "cmdline").read_bytes().split(b"\0")[-4:-1] == wanted:
                        return int(name)
    return 0


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
