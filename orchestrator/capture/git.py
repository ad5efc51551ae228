"""Runs git so that its answers do not depend on the user's settings, and it never writes into the user's repository.

Three things make the answers of git depend on its surroundings, and each is handled here:

- variables such as GIT_DIR or GIT_INDEX_FILE, which git sets for its hooks and which may name *another* repository; they
  are dropped, and the directory alone decides which repository is used;
- settings that change what counts as a difference or how it is printed (`_NEUTRAL`); they are overridden. Settings that
  say how to reach a remote (url.*.insteadOf, credential.*, core.sshCommand, http.*) stay as the user made them;
- commands that refresh the index or run hooks; GIT_OPTIONAL_LOCKS=0 and core.hooksPath switch that off.
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

# The variables that `git rev-parse --local-env-vars` prints, and those that change diffs and pathspecs. Without
# GIT_CONFIG_COUNT and GIT_CONFIG_PARAMETERS, which hold credentials and insteadOf in CI; our own -c overrides them.
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
    "GIT_DEFAULT_HASH": "sha1",  # for our caches, as init.defaultObjectFormat may differ from the remote's format
    "GIT_OPTIONAL_LOCKS": "0",
    "LANGUAGE": "C",  # we match messages; LC_ALL stays for the user's filters
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
# Separate, because they define which bytes on disk match which bytes in git; see `Git.as_checked_out`.
_NO_CONVERSION = ("core.attributesFile=/dev/null", "core.autocrlf=false")

_CHUNK_BYTES = 1 << 20
_TAIL_BYTES = 1 << 14
_ASKED_AT_ONCE = 64  # objects: so many names fit into the pipe of any system, else git and we would wait for each other


class Result(NamedTuple):
    """Exit code and output of a git command."""

    code: int
    out: bytes
    err: bytes

    @property
    def reason(self) -> str:
        """Git's last error line, without its `fatal: `."""
        lines = [line.strip() for line in self.err.decode(errors="replace").splitlines() if line.strip()]
        at = max((at for at, line in enumerate(lines) if line.startswith(("fatal: ", "error: "))), default=-1)
        if not lines:
            return f"git ended with exit code {self.code}"
        line = lines[at].removeprefix("fatal: ").removeprefix("error: ")
        if at > 0 and "Could not read from remote" in line:  # the transport names the cause one line earlier
            return f"{lines[at - 1].rstrip('.')}: {line}"
        return line


class Commit(NamedTuple):
    """A commit's full hash and the first line of its message."""

    oid: str
    subject: str


class Location(NamedTuple):
    """The location of a directory in a git repository.

    Attributes:
        root: the top of the working tree, without symbolic links.
        subdir: the directory, relative to the root, as bytes; empty for the root itself.
        git_dir: the folder with the index of this working tree (a linked worktree or submodule has its own).
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
        cwd: the directory in which it runs.
        git_dir: names a bare repository (safe.bareRepository forbids finding it by the directory).
        index_file: the index to use instead of the repository's own.
        settings: further `name=value` settings, which override the user's.
        as_checked_out: apply the user's conversion of line endings, with which the files were checked out.
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
            InvalidRepository: when git is not installed, or the directory is gone.
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
        """Return the output of a git command.

        Raises:
            InvalidRepository: with git's message, when it fails.
        """
        return checked(self.run(*args, stdin=stdin), args[0]).out

    def gather(self, *commands: Sequence[str], as_checked_out: Sequence[Sequence[str]] = ()) -> list[Result]:
        """Run several commands at once, because starting each takes about as long as running it.

        Args:
            as_checked_out: further commands, for which the user's conversion of line endings applies.
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
        """Run a command that takes long. A terminal shows git's progress, without its errors and without `hide`."""
        if not (sys.stderr and sys.stderr.isatty()):
            return self.run(*args)
        process = self.start(args[0], "--progress", *args[1:], stdout=subprocess.DEVNULL)
        try:
            assert process.stderr is not None
            tail = _forward(process.stderr, hide.encode())
            return Result(process.wait(), b"", tail)
        finally:
            end(process)


def _finish(process: subprocess.Popen[bytes], stdin: bytes = b"", limit_s: float | None = None) -> Result:
    try:
        out, err = process.communicate(stdin or None, limit_s)
        return Result(process.returncode, out or b"", err or b"")
    finally:
        end(process)


def finish(process: subprocess.Popen[bytes], what: str, limit_s: float | None = None) -> bytes:
    """Wait for a started command and return its output.

    Raises:
        InvalidRepository: with git's message, when it failed; `what` names the command.
        TimeoutExpired: when it takes longer than `limit_s` seconds; it is killed then.
    """
    return checked(_finish(process, limit_s=limit_s), what).out


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command if it still runs, and close its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):  # bytes were buffered for a command that has ended
                pipe.close()


def checked(result: Result, what: str) -> Result:
    """Return `result` if the command succeeded.

    Raises:
        InvalidRepository: with git's message, when it failed; `what` names the command.
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
            if not text.startswith((b"fatal: ", b"error: ", b"From ")):  # we report errors ourselves, with a cure
                sys.stderr.buffer.write(text.replace(hide, b"") if hide else text)
        sys.stderr.buffer.flush()
    return tail


class Objects:
    """Blobs of a repository, read through one `git cat-file --batch` that is started on first use."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def read(self, oid: str) -> bytes:
        """Return the bytes of one object.

        Raises:
            InvalidRepository: when the repository does not have it.
        """
        return next(self.read_many([oid]))

    def read_many(self, oids: Sequence[str]) -> Iterator[bytes]:
        """Yield the bytes of one object after the other.

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
        with suppress(BrokenPipeError):  # git has ended, so the answer is missing too
            pipe_in.write("".join(f"{oid}\n" for oid in oids).encode())
            pipe_in.flush()
        return [_answer(pipe_out, oid) for oid in oids]

    def stream(self, oid: str) -> Iterator[bytes]:
        """Yield the bytes of one big object, chunk by chunk, from a separate process.

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
        raise InvalidRepository(f"The repository lacks the object {oid}.", "Check the repository: git fsck")
    return content[:-1]


def commit_command(rev: str) -> tuple[str, ...]:
    """Return the git command whose output `parse_commit` reads."""
    return ("rev-list", "--max-count=1", "--encoding=UTF-8", "--format=format:%H%x00%s", rev, "--")


def parse_commit(out: bytes) -> Commit:
    """Read the output of `commit_command`."""
    oid, _, subject = out.partition(b"\n")[2].rstrip(b"\n").partition(b"\0")
    return Commit(oid.decode(), subject.decode(errors="replace"))


CONVERSIONS_COMMAND = ("config", "-z", "--get-regexp", r"^core\.(autocrlf|attributesfile)$")


def converts(settings: Result) -> bool:
    """Whether the user's settings convert line endings, by the output of `CONVERSIONS_COMMAND` run `as_checked_out`."""
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
    """Yield the paths where the machine's attributes may lie; git prints them only since 2.41 (GIT_ATTR_SYSTEM)."""
    yield "/etc/gitattributes"
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.exists(f"{folder}/git"):
            yield os.path.join(os.path.dirname(os.path.realpath(folder)), "etc", "gitattributes")
            return


def locate(cwd: Path) -> Location | None:
    """Return the git working tree that holds `cwd`; None if it is in none.

    Raises:
        InvalidRepository: when git is missing, or refuses the repository (the message says why).
    """
    result = Git(cwd).run("rev-parse", "--show-prefix", "--show-toplevel", "--absolute-git-dir")
    if result.code and b"not a git repository (or any" in result.err:
        broken = next((folder for folder in (cwd, *cwd.parents) if (folder / ".git").exists()), None)
        if broken:  # for a damaged HEAD git says no more than this
            raise InvalidRepository(f"No code can be taken from {str(broken)!r}: its .git is damaged.", "Try: git fsck")
        return None
    if result.code:
        advice = [line.strip() for line in result.err.decode(errors="replace").splitlines() if "\tgit config" in line]
        raise InvalidRepository(f"No code can be taken from {str(cwd)!r}: {result.reason}", "".join(advice[:1]))
    lines = result.out.split(b"\n")
    if len(lines) != 4:
        raise InvalidRepository(f"No code can be taken from {str(cwd)!r}: its path contains a line break.")
    return Location(Path(os.fsdecode(lines[1])), lines[0].rstrip(b"/"), Path(os.fsdecode(lines[2])))
