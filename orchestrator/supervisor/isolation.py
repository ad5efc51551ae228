"""Private namespaces of a run, where the kernel allows them: its mounts are private, its processes end with their init.

Source of the calls and flags: unshare(2), mount(2), user_namespaces(7), pid_namespaces(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_NOATIME, _MS_NODIRATIME, _MS_BIND, _MS_REC, _MS_PRIVATE, _MS_RELATIME = 1024, 2048, 4096, 16384, 1 << 18, 1 << 21
_ST_RELATIME = 4096
_KEPT_FLAGS = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME | _MS_NODIRATIME
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_CAPBSET_DROP = 1, 4, 36, 24
_CAP_SYS_ADMIN = 21

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    kind_bytes = kind.encode() if kind else None
    result = _libc.mount(os.fsencode(source), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), None)
    _check(result, target)


def enter_namespaces() -> None:
    """Move this process into a new mount namespace, and its next children into a new process namespace.

    Without root, a user namespace that maps only the caller comes first.

    Raises:
        OSError: when the kernel refuses. The process may be half moved: end it.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNS | _CLONE_NEWPID
    if uid != 0:
        flags |= _CLONE_NEWUSER
    _check(_libc.unshare(flags), "unshare")
    if uid != 0:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)


def mount_proc() -> None:
    """Mount a `/proc` that shows the process namespace of the caller.

    Raises:
        OSError: when the kernel refuses.
    """
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Show `source` at `target`, which must exist and be of the same kind (file or folder).

    Raises:
        OSError: when one of them is missing, or the kernel refuses.
    """
    _mount(source, target, None, _MS_BIND | _MS_REC)
    # A remount must repeat the flags that the mount already has, else a user namespace refuses it.
    present = os.statvfs(target).f_flag
    flags = present & _KEPT_FLAGS | (_MS_RELATIME if present & _ST_RELATIME else 0)
    _mount("none", target, None, _MS_BIND | _MS_REMOUNT | flags | (_MS_RDONLY if read_only else 0))


def bind_all(binds: Iterable[tuple[str, str, bool]]) -> None:
    """Bind `(source, target, read_only)` in order; see `bind`."""
    for source, target, read_only in binds:
        bind(source, target, read_only=read_only)


def give_up_mounting() -> None:
    """Drop the right to mount and unmount for all that this process executes: root could undo a read-only mount."""
    _check(_libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0), "PR_CAPBSET_DROP")


def hold_to(cores: Sequence[int]) -> None:
    """Let the caller, and all that it starts, run on these cores only; on any for none.

    Does nothing when this machine no longer has them: fewer cores are no reason to fail a run.
    """
    if cores:
        try:
            os.sched_setaffinity(0, cores)
        except OSError:
            pass


def be_unreachable() -> None:
    """Stop other processes of the same user from tracing the caller and from opening its file descriptors."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to send this signal to the caller when its parent dies. Does nothing outside Linux."""
    if sys.platform == "linux":
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "PR_SET_PDEATHSIG")


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent dies. Does nothing outside Linux."""
    if sys.platform == "linux":
        _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
