"""Running git: the same answers whatever the caller's settings, and never a write into the caller's repository.

Three things stand between a git command and a reproducible answer, and each is dealt with here once:

- variables such as GIT_DIR or GIT_INDEX_FILE, which git sets for its hooks and which name *another* repository when the
  caller has moved on; they are dropped, and the directory alone says which repository is meant;
- settings that change what counts as a difference or how it is printed (`_NEUTRAL`); they are overridden, while those
  that say how to reach a remote (url.*.insteadOf, credential.*, core.sshCommand, http.*) stay as the person set them;
- commands that refresh the index or run hooks on the way; GIT_OPTIONAL_LOCKS=0 and core.hooksPath switch that off.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from orchestrator.errors import InvalidRepository

# What `git rev-parse --local-env-vars` prints (less GIT_CONFIG_COUNT and GIT_CONFIG_PARAMETERS, in which continuous
# integration keeps credentials and insteadOf; our own -c comes after and wins), and what changes diffs and pathspecs.
_DROPPED = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_DIR", "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NAMESPACE",
        "GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
        "GIT_ATTR_SOURCE", "GIT_DIFF_OPTS", "GIT_EXTERNAL_DIFF", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS",
        "GIT_LITERAL_PATHSPECS", "GIT_NOGLOB_PATHSPECS",
    }
)  # fmt: skip

_SET = {
    "GIT_DEFAULT_HASH": "sha1",  # of our caches, where init.defaultObjectFormat would not match the remote's
    "GIT_OPTIONAL_LOCKS": "0",
    "LANGUAGE": "C",  # messages are matched; LC_ALL stays, for the person's own filters
}

_NEUTRAL = (
    "color.ui=false",
    "core.bigFileThreshold=512m",
    "core.checkStat=default",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.looseCompression=1",
    "core.quotePath=true",
    "core.safecrlf=false",
    "core.splitIndex=false",
    "diff.mnemonicPrefix=false",
    "diff.noprefix=false",
    "diff.relative=false",
    "diff.suppressBlankEmpty=false",
    "gc.auto=0",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
)
# Not among them, as they say which bytes on disk stand for which in git; see `Git.as_checked_out`.
_NO_CONVERSION = ("core.attributesFile=/dev/null", "core.autocrlf=false")

_CHUNK_BYTES = 1 << 20
_TAIL_BYTES = 1 << 14
_ASKED_AT_ONCE = 64  # objects: their names fit into any system's pipe, or git and we would wait for each other


class Result(NamedTuple):
    """How a git command ended: its exit code and what it wrote."""

    code: int
    out: bytes
    err: bytes

    @property
    def reason(self) -> str:
        """Git's own last error line, without its `fatal: `."""
        lines = [line.strip() for line in self.err.decode(errors="replace").splitlines() if line.strip()]
        at = max((at for at, line in enumerate(lines) if line.startswith(("fatal: ", "error: "))), default=-1)
        if not lines:
            return f"git ended with exit code {self.code}"
        line = lines[at].removeprefix("fatal: ").removeprefix("error: ")
        if at > 0 and "Could not read from remote" in line:  # the transport has said why, one line earlier
            return f"{lines[at - 1].rstrip('.')}: {line}"
        return line


class Commit(NamedTuple):
    """A commit's full name and the first line of its message."""

    oid: str
    subject: str


class Location(NamedTuple):
    """Where a directory lies in a git repository.

    Attributes:
        root: the top of the working tree, without symbolic links.
        subdir: the directory, relative to the root, as bytes; empty for the root itself.
        git_dir: where this working tree's index lies (of a linked worktree or submodule: its own).
    """

    root: Path
    subdir: bytes
    git_dir: Path


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    if not (sys.stdin and sys.stdin.isatty()):
        kept["GIT_TERMINAL_PROMPT"] = "0"
    return kept | _SET


class Git(NamedTuple):
    """Git in one directory.

    Attributes:
        cwd: where it runs.
        git_dir: names the repository, for a bare one (safe.bareRepository forbids finding it by the directory).
        index_file: the index to use in place of the repository's own.
        settings: further `name=value` settings, which win over the person's.
        as_checked_out: let the person's own conversion of line endings hold, by which the files were checked out.
    """

    cwd: Path
    git_dir: Path | None = None
    index_file: Path | None = None
    settings: tuple[str, ...] = ()
    as_checked_out: bool = False

    def start(
        self, *args: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start a git command; its standard error is a pipe.

        Raises:
            InvalidRepository: when there is no git to run, or the directory is gone.
        """
        settings = (*_NEUTRAL, *(() if self.as_checked_out else _NO_CONVERSION), *self.settings)
        options = [word for setting in settings for word in ("-c", setting)]
        where = [f"--git-dir={self.git_dir}"] if self.git_dir else []
        environment = _environment() | ({} if self.as_checked_out else {"GIT_ATTR_NOSYSTEM": "1"})
        if self.index_file:
            environment["GIT_INDEX_FILE"] = str(self.index_file)
        try:
            return subprocess.Popen(
                ["git", *options, *where, *args],
                cwd=self.cwd, env=environment, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            if not self.cwd.is_dir():
                raise InvalidRepository(f"The directory {str(self.cwd)!r} is gone.") from error
            raise InvalidRepository(f"git cannot be run: {error.strerror}.", "Put git on your PATH.") from error

    def run(self, *args: str, stdin: bytes = b"") -> Result:
        """Run a git command to its end."""
        process = self.start(*args, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL)
        return _finish(process, stdin)

    def output(self, *args: str, stdin: bytes = b"") -> bytes:
        """What a git command prints.

        Raises:
            InvalidRepository: with git's words, when it fails.
        """
        return checked(self.run(*args, stdin=stdin), args[0]).out

    def gather(self, *commands: Sequence[str], as_checked_out: Sequence[Sequence[str]] = ()) -> list[Result]:
        """Run several commands at once; each takes about as long to start as to run.

        Args:
            as_checked_out: further ones, for which the person's own conversion of line endings holds.
        """
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes.extend(self.start(*command) for command in commands)
            processes.extend(self._replace(as_checked_out=True).start(*command) for command in as_checked_out)
            return [_finish(process) for process in processes]
        finally:
            for process in processes:
                end(process)

    def run_shown(self, *args: str, hide: str = "") -> Result:
        """Run a command that takes long; a person at a terminal sees git's progress, without its errors and `hide`."""
        if not (sys.stderr and sys.stderr.isatty()):
            return self.run(*args)
        process = self.start(args[0], "--progress", *args[1:], stdout=subprocess.DEVNULL)
        try:
            assert process.stderr is not None
            tail = _forward(process.stderr, hide.encode())
            return Result(process.wait(), b"", tail)
        finally:
            end(process)


def _finish(process: subprocess.Popen[bytes], stdin: bytes = b"") -> Result:
    try:
        out, err = process.communicate(stdin or None)
        return Result(process.returncode, out or b"", err or b"")
    finally:
        end(process)


def finish(process: subprocess.Popen[bytes], what: str) -> bytes:
    """Wait for a started command and return what it printed.

    Raises:
        InvalidRepository: with git's words, when it failed; `what` names the command.
    """
    return checked(_finish(process), what).out


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command where it still runs, and let go of its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):  # what was buffered for a command that has ended
                pipe.close()


def checked(result: Result, what: str) -> Result:
    """`result`, when the command succeeded.

    Raises:
        InvalidRepository: with git's words otherwise; `what` names the command.
    """
    if result.code:
        raise InvalidRepository(f"git {what} failed: {result.reason}")
    return result


def _forward(pipe: IO[bytes], hide: bytes) -> bytes:
    tail = line = b""
    while chunk := os.read(pipe.fileno(), 4096):
        tail = (tail + chunk)[-_TAIL_BYTES:]
        *whole, line = re.split(rb"(?<=[\r\n])", line + chunk)
        for text in whole:
            if not text.startswith((b"fatal: ", b"error: ", b"From ")):  # errors become ours, with a cure
                sys.stderr.buffer.write(text.replace(hide, b"") if hide else text)
        sys.stderr.buffer.flush()
    return tail


class Objects:
    """Blobs of a repository, read through one `git cat-file --batch` that starts when first asked."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def read(self, oid: str) -> bytes:
        """The bytes of one object, all in memory.

        Raises:
            InvalidRepository: when the repository does not have it.
        """
        return next(self.read_many([oid]))

    def read_many(self, oids: Sequence[str]) -> Iterator[bytes]:
        """The bytes of one object after the other.

        Raises:
            InvalidRepository: when the repository does not have one.
        """
        for start in range(0, len(oids), _ASKED_AT_ONCE):
            some = oids[start : start + _ASKED_AT_ONCE]
            with self._lock:
                contents = self._read_some(some)
            yield from contents

    def _read_some(self, oids: Sequence[str]) -> list[bytes]:
        if self._process is None:
            self._process = self._git.start("cat-file", "--batch", stdin=subprocess.PIPE)
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            pipe_in.write("".join(f"{oid}\n" for oid in oids).encode())
            pipe_in.flush()
        return [_answer(pipe_out, oid) for oid in oids]

    def stream(self, oid: str) -> Iterator[bytes]:
        """The bytes of one big object, chunk by chunk, from a process of its own.

        Raises:
            InvalidRepository: when the repository does not have it.
        """
        process = self._git.start("cat-file", "blob", oid)
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            while chunk := process.stdout.read(_CHUNK_BYTES):
                yield chunk
            checked(Result(process.wait(), b"", process.stderr.read()), "cat-file")
        finally:
            end(process)

    def close(self) -> None:
        """End the process; a later `read` starts another."""
        with self._lock:
            if self._process is not None:
                end(self._process)
                self._process = None

    def __del__(self) -> None:
        self.close()


def _answer(pipe: IO[bytes], oid: str) -> bytes:
    head = pipe.readline().split()  # OID TYPE SIZE, or: OID missing
    content = pipe.read(int(head[2]) + 1) if len(head) == 3 else b""
    if len(head) != 3 or len(content) != int(head[2]) + 1:
        raise InvalidRepository(f"The repository lacks the object {oid}.", "Look at it with: git fsck")
    return content[:-1]


def commit_command(rev: str) -> tuple[str, ...]:
    """The git command whose output `parse_commit` reads."""
    return ("rev-list", "--max-count=1", "--encoding=UTF-8", "--format=format:%H%x00%s", rev, "--")


def parse_commit(out: bytes) -> Commit:
    """What `commit_command` printed."""
    oid, _, subject = out.partition(b"\n")[2].rstrip(b"\n").partition(b"\0")
    return Commit(oid.decode(), subject.decode(errors="replace"))


CONVERSIONS_COMMAND = ("config", "-z", "--get-regexp", r"^core\.(autocrlf|attributesfile)$")


def converts(settings: Result) -> bool:
    """Whether the person's settings convert line endings, by what `CONVERSIONS_COMMAND` printed `as_checked_out`."""
    entries = [entry.partition("\n") for entry in settings.out.decode(errors="replace").split("\0")]
    values = {name: value if newline else "true" for name, newline, value in entries}
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return (
        values.get("core.autocrlf", "false") != "false"
        or "core.attributesfile" in values
        or os.path.exists(f"{home}/git/attributes")
        or any(map(os.path.exists, _system_attributes()))
    )


def _system_attributes() -> Iterator[str]:
    """Where the attributes of all persons of this machine may lie; git can tell since 2.41 only (GIT_ATTR_SYSTEM)."""
    yield "/etc/gitattributes"
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.exists(f"{folder}/git"):
            yield os.path.join(os.path.dirname(os.path.realpath(folder)), "etc", "gitattributes")
            return


def locate(cwd: Path) -> Location | None:
    """The git working tree that holds `cwd`; None where there is none.

    Raises:
        InvalidRepository: when git is missing, or refuses the repository (its words say why).
    """
    result = Git(cwd).run("rev-parse", "--show-prefix", "--show-toplevel", "--absolute-git-dir")
    if result.code and b"not a git repository (or any" in result.err:
        broken = next((folder for folder in (cwd, *cwd.parents) if (folder / ".git").exists()), None)
        if broken:  # git would say no more of one whose HEAD is damaged
            raise InvalidRepository(f"No code can be taken from {str(broken)!r}: its .git is damaged.", "Try: git fsck")
        return None
    if result.code:
        advice = [line.strip() for line in result.err.decode(errors="replace").splitlines() if "\tgit config" in line]
        raise InvalidRepository(f"No code can be taken from {str(cwd)!r}: {result.reason}", "".join(advice[:1]))
    lines = result.out.split(b"\n")
    if len(lines) != 4:
        raise InvalidRepository(f"No code can be taken from {str(cwd)!r}: its path contains a line break.")
    return Location(Path(os.fsdecode(lines[1])), lines[0].rstrip(b"/"), Path(os.fsdecode(lines[2])))
