"""Runs uv: copies its output to the build log as it comes, and turns its failure into an error of one sentence."""

from __future__ import annotations

import re
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar

from uv import find_uv_bin

from orchestrator.environments.base import Runner
from orchestrator.errors import BuildFailed, DiskFull, SpellError, says_disk_full
from orchestrator.spec.redaction import redacted

LONGEST = 16 << 10
"""A longer line of a build's output is cut here."""
_KEPT_LINES = 400
_NOISE = re.compile(
    r"(Using (C?Python|PyPy)|Creating virtual environment|Activate with|warning: .*hardlink files|\s*$)"
)
# The index could not be asked, as against: it answered that there is no such package.
_AWAY = re.compile(
    r"error sending request|Request failed after|tcp connect error|dns error|timed out|Connection re(fused|set)"
    r"|Network is unreachable|server error \(5\d\d|failed to lookup address|Could not resolve host"
)
_DIRECT = re.compile(r"`[\w.-]+(\[[^\]`]*\])? @ ")  # a requirement with a URL of its own, as uv shows it
_HOST = re.compile(r"://(?:[^/@\s]*@)?([^/:@\s,`)'\"]+)")
_CAPTURES = frozenset({"[stderr]", "[stdout]", "--- stderr", "--- stdout"})  # the output of another program follows
_SAID_BY_UV = re.compile(r"\s*(error:|cause:|Caused by:|[×├╰])")
_KILLED = re.compile(r"\bsignal: (\d+)\b")  # as uv reports the end of a program that it had started
_NO_COMPILER = re.compile(r"(?:No such file or directory: '|command ')[\w-]*?(gcc|g\+\+|clang|cc)'")
_OWN_FOLDER = re.compile(r"(?<![\w/])asked/")
_BOX = re.compile(r"^[\s×│├╰─▶▸]+")
_CAUSE = re.compile(r"\s*(cause:|Caused by:|[├╰]─▶)\s*")


class BuildCancelled(SpellError):
    """The build of an environment was cancelled, because no run waits for it any more."""

    code: ClassVar[str] = "cancelled"
    http_status: ClassVar[int] = 409

    def __init__(self, message: str = "The build of the environment was cancelled.", cure: str = "") -> None:
        super().__init__(message, cure)


class Interrupted(BuildFailed):
    """A program of the build was killed by a signal from outside."""


class IndexAway(BuildFailed):
    """A server that packages come from could not be reached.

    Attributes:
        host: the one that uv's words name; "" for none.
        said: uv's words.
    """

    def __init__(self, host: str, said: str) -> None:
        asked = f"{host}, which a requirement names," if _DIRECT.search(said) else "The package index"
        cure = "Check the network, proxies and index. An environment that was built before needs none of them."
        if host == "download.pytorch.org":
            cure += ' torch comes from the package index with torch_backend = "none" in config.toml.'
        super().__init__(f"{asked} could not be reached: {said}", cure)
        self.host, self.said = host, said


def uv_executable() -> str:
    """Return the path of the uv that was installed with spell, else of the one on the PATH.

    Raises:
        BuildFailed: when uv is not installed.
    """
    try:
        return find_uv_bin()
    except FileNotFoundError:
        found = shutil.which("uv")
    if found is None:
        raise BuildFailed("uv, which builds environments, is not installed.", "Install it: pip install uv")
    return found


class BuildLog:
    """The build log of one run. Lines are appended as they come, without passwords.

    Args:
        path: the file; it is made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab", buffering=0)
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def say(self, line: str) -> None:
        """Append one line."""
        clean = redacted(line.rstrip("\r\n"))
        self.lines.append(clean)
        self._file.write(clean.encode(errors="replace") + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Uv:
    """Starts uv, several times for one build.

    Args:
        runner: runs it.
        executable: its path there.
        folder: the working directory of uv, which hides projects around the home.
        env: all environment variables of uv.
        log: gets its output.
        cancelled: called many times a second.
        process_file: a file that names the process while it lives, so that a later server can end it if this one is killed.

    Attributes:
        shown: internal paths, and what to write instead of them.
    """

    def __init__(
        self,
        runner: Runner,
        executable: str,
        folder: Path,
        env: Mapping[str, str],
        log: BuildLog,
        cancelled: Callable[[], bool],
        process_file: Path,
    ) -> None:
        self._runner = runner
        self._executable = executable
        self._folder = folder
        self._env = dict(env)
        self._log = log
        self._cancelled = cancelled
        self._process_file = process_file
        self.shown: dict[str, str] = {}

    def run(self, *args: str) -> None:
        """Run `uv ARGS` to its end.

        Raises:
            BuildFailed: uv failed; `IndexAway` if it could not reach the package index, `Interrupted` if it or a program
                that it had started was killed.
            DiskFull: the disk was full.
            BuildCancelled: when cancelled; uv and its children have ended.
        """
        self.run_other([self._executable, *args])

    def run_other(self, command: Sequence[str]) -> None:
        """Run another program of the build where uv runs. Raises as `run`."""
        output: deque[str] = deque(maxlen=_KEPT_LINES)
        rest = b""

        def take(data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LONGEST:  # searching all of it for a line end with each piece would be too slow
                at = rest.rfind(b" ") + 1 or len(rest)  # not in a URL, which may hold a password
                lines, rest = [*lines, rest[:at]], rest[at:]
            for line in lines:
                self._say(line, output)

        code = self._runner.run(
            command,
            cwd=self._folder,
            env=self._env,
            process_file=self._process_file,
            output=take,
            cancelled=self._cancelled,
        )
        take(b"\n")
        if code != 0:
            raise failure(output, code)

    def _say(self, raw: bytes, output: deque[str]) -> None:
        line = _OWN_FOLDER.sub("", raw.decode(errors="replace").rstrip("\r"))
        for path, shown in self.shown.items():
            line = line.replace(path, shown)
        if not _NOISE.match(line):
            output.append(line)
            self._log.say(line)


def failure(output: Iterable[str], code: int) -> SpellError:
    """Return the error for a failure of uv, from its output and exit code."""
    lines = list(output)
    text = "\n".join(lines)
    if says_disk_full(text):
        return disk_full()
    killed = -code if code < 0 else next((int(found[1]) for line in lines if (found := _KILLED.search(line))), 0)
    if killed:
        return Interrupted(
            f"A program of the build was killed by signal {killed}.",
            "If nobody did that, the machine may have too little memory. Cast the run again.",
        )
    message = explain(lines) or f"uv ended with exit code {code}."
    if compiler := _NO_COMPILER.search(message):
        cure = f"The build needs {compiler[1]}. A container gets one by: --apt build-essential --apt python3-dev"
        return BuildFailed(message, cure)
    hints = [line.partition("hint:")[2].strip() for line in lines if "hint:" in line]
    if any(_SAID_BY_UV.match(line) and _AWAY.search(line) for line in lines):
        host = _HOST.search(text)
        return IndexAway(host[1] if host else "", message)
    return BuildFailed(message, redacted(hints[-1]) if hints else "The build log holds the full output.")


def disk_full() -> DiskFull:
    """Return the error for a disk that filled up during a build."""
    return DiskFull(
        "The disk filled up while the environment was built.",
        "Free space on the disks of the home and of uv's cache (`uv cache dir` names it), then cast the run again.",
    )


def explain(lines: Sequence[str]) -> str:
    """Return uv's error as one sentence: what failed, and the last and most specific cause; "" if uv names none."""
    start = max((i for i, line in enumerate(lines) if re.match(r"\s*(error:|×)", line)), default=None)
    if start is None:
        return redacted(lines[-1].strip()) if lines else ""
    parts: list[str] = []
    captured = ""
    in_capture = False
    for line in lines[start:]:
        text = _BOX.sub("", line).strip()
        if text.startswith("hint:"):
            break
        if text in _CAPTURES:
            in_capture = True
        elif in_capture and text:
            captured = text
        elif not parts or _CAUSE.match(line):
            parts.append(re.sub(r"^(error|cause|Caused by):\s*", "", text))
        elif text:
            parts[-1] += f" {text}"
    return redacted(_sentence(parts, captured))


def _sentence(parts: list[str], captured: str) -> str:
    headline, causes = parts[0].rstrip(":."), parts[1:]
    detail = captured or (causes[-1] if causes else "")
    if headline.startswith("Request failed") and len(causes) > 1:
        headline = causes[0]
    if headline.startswith("No solution found") and detail:
        return detail
    text = f"{headline}: {detail}" if detail and detail != headline else headline
    return text if text.endswith((".", "!", "?")) else f"{text}."
