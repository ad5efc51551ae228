"""Slurm's batch scripts as job files: `#SBATCH` lines are options, the rest is the command.

The forms are those of sbatch(1): long options with `=` or a space, short ones with or without; all before the first command.
What is said of nodes, queues, accounts and mails has no meaning on one machine, and is told (`notes`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import InvalidConfig, SpellError
from orchestrator.spec.fields import BY_KEY
from orchestrator.spec.jobfile import JobFile
from orchestrator.spec.run import RunSpec
from orchestrator.spec.texts import decoded

ARRAY = "SLURM_ARRAY_TASK_ID"
"""The parameter of a script that is an array."""
_MARK = "#SBATCH"
_LONGEST_MARK = 16
_SHORT = {
    "A": "account", "a": "array", "C": "constraint", "c": "cpus-per-task", "D": "chdir", "d": "dependency", "e": "error",
    "G": "gpus", "H": "hold", "i": "input", "J": "job-name", "L": "licenses", "M": "clusters", "N": "nodes", "n": "ntasks",
    "o": "output", "p": "partition", "q": "qos", "t": "time", "w": "nodelist", "x": "exclude", "b": "begin",
}  # fmt: skip
_FLAGS = frozenset(
    "exclusive requeue no-requeue hold contiguous overcommit oversubscribe spread-job wait quiet verbose".split()
)
_ELSEWHERE = {
    "output": "the log is kept: spell logs",
    "error": "the log is kept: spell logs",
    "open-mode": "the log is kept: spell logs",
    "mail-type": "--notify calls a webhook",
    "mail-user": "--notify calls a webhook",
    "dependency": "spell workflow casts runs that need each other",
    "requeue": "--retries K tries again",
    "signal": "on_stop of orchestrator.runtime is called before a run ends",
}
_INTERPRETERS = frozenset(("sh", "bash", "dash"))
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTkmgt]?)[Bb]?\Z")
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?\Z")
_MOST_TASKS = 10_000
_SRUN_FLAGS = (
    "bcast|compress|contiguous|debugger-test|disable-status|exact|exclusive|external|get-user-env|help|hold|immediate|kill-on-bad-exit|"
    "label|multi-prog|nice|no-allocate|no-kill|overcommit|overlap|oversubscribe|preserve-env|propagate|pty|quiet|"
    "quit-on-interrupt|reboot|resv-ports|send-libs|spread-job|stepmgr|test-only|unbuffered|usage|use-min-nodes|verbose|version|whole|x11"
).replace("|", "|--")
"""Options of srun(1) without a value, or whose value needs `=`; all other long ones take one, as those of sbatch."""
_TAKES = "[ABCDFGJLMNPSTWabcdegimnopqrtwx]"  # short options of srun with a value, which may be the next word
_FLAG = "[EHIKOQVXZhklsuv]"
# Without srun and modules, whose work is done here by the run itself; for any sh. The variables are not exported: libraries that
# see them take a run for a job of Slurm, and start its processes in another way.
_PRELUDE = (
    'srun() { while :; do case "${1-}" in --) shift; break;; '
    f"--*=*|--{_SRUN_FLAGS}) shift;; --*|-{_TAKES}|-{_FLAG}{_TAKES}|-{_FLAG}{_FLAG}{_TAKES}) "
    'shift; [ $# -eq 0 ] || shift;; -*) shift;; *) break;; esac; done; "$@"; }; '
    'module() { echo "module $*: there are no modules here" >&2; }; ml() { module "$@"; }; '
    "SLURM_JOB_ID=$SPELL_RUN; SLURM_SUBMIT_DIR=$PWD"
)


@dataclass(frozen=True, slots=True)
class BatchScript(JobFile):
    """A batch script.

    Attributes:
        tasks: the numbers of an array; empty for none.
        notes: a sentence for each thing that it says and that has no meaning here.
    """

    tasks: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())


def load(path: Path) -> BatchScript | None:
    """Read a batch script; None if the file is none: it begins neither with `#!` nor with `#SBATCH`, or cannot be read.

    Raises:
        InvalidConfig: an option has a value that cannot be meant here. The message names file, line and option.
    """
    try:
        with path.open("rb") as file:
            if not file.readline(_LONGEST_MARK).startswith((b"#!", _MARK.encode())):
                return None
            lines = decoded(path.read_bytes(), str(path)).splitlines()
    except OSError:
        return None
    reader = _Reader(path)
    for number, line in enumerate(lines, 1):
        if line.startswith(_MARK):
            reader.line = number
            reader.take(_words(path, number, line))
        elif line.strip() and not line.startswith("#"):
            break
    return reader.script(lines)


def _words(path: Path, number: int, line: str) -> list[str]:
    try:
        return shlex.split(line.removeprefix(_MARK), comments=True)
    except ValueError as error:
        raise InvalidConfig(f"{path}, line {number}: {error}.") from error


class _Reader:
    """Gathers the options of one script."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 0
        self._given: dict[str, tuple[int, str]] = {}
        self._idle: dict[str, None] = {}
        self._notes: list[str] = []
        self._fields: dict[str, Any] = {}

    def take(self, words: list[str]) -> None:
        """Take the options of one line."""
        words.reverse()
        while words:
            name, equals, value = words.pop().partition("=")
            if name.startswith("--"):
                name = name[2:]
            elif len(name) > 1 and name.startswith("-") and name[1] in _SHORT:
                name, value, equals = _SHORT[name[1]], f"{name[2:]}{equals}{value}", name[2:]
            else:
                raise self._refusal(name, "it is no option")
            if not equals and name not in _FLAGS and words:
                value = words.pop()
            self._given[name] = self.line, value

    def script(self, lines: list[str]) -> BatchScript:
        """Return the script."""
        tasks: tuple[int, ...] = ()
        self._set("command", "true")
        for name, (line, value) in self._given.items():
            self.line = line
            if name == "array":
                tasks = self._tasks(value)
            elif read := _OPTIONS.get(name):
                read(self, value)
            elif name in _ELSEWHERE:
                self._notes.append(f"--{name}: {_ELSEWHERE[name]}")
            elif name not in _WITH_OTHERS:
                self._idle[f"--{name}{'=' if value else ''}{value}"] = None
        self._resources()
        self._set("command", self._command(lines, is_array=bool(tasks)))
        idle = [f"{', '.join(self._idle)}: without meaning on one machine"] if self._idle else []
        return BatchScript(self._fields, tasks=tasks, notes=tuple(dict.fromkeys([*idle, *self._notes])))

    # -- options ------------------------------------------------------------------------------------------------

    def name(self, text: str) -> None:
        """--job-name"""
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")
        self._set("name", plain if re.match("[A-Za-z]", plain) else f"job-{plain}")

    def comment(self, text: str) -> None:
        """--comment"""
        self._set("description", text)

    def time(self, text: str) -> None:
        """--time: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
        if text.upper() in ("UNLIMITED", "INFINITE", "0"):
            return
        found = _TIME.match(text)
        if not found:
            raise self._refusal("time", f"{text!r} is no time", "Write MINUTES, HH:MM:SS or DAYS-HH:MM:SS.")
        days, *parts = (int(part) if part else None for part in found.groups())
        first, second, third = parts
        if days is not None:
            seconds = days * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
        elif third is not None:
            seconds = (first or 0) * 3600 + (second or 0) * 60 + third
        else:
            seconds = (first or 0) * 60 + (second or 0)
        self._set("timeout_min", seconds / 60)

    def nodes(self, text: str) -> None:
        """--nodes"""
        if text.partition("-")[0].strip() not in ("1", ""):
            raise self._refusal("nodes", f"spell runs on one machine, not on {text}", "Set --nodes=1, or leave it out.")

    def exports(self, text: str) -> None:
        """--export: ALL, NONE and names of variables."""
        pairs = [pair.partition("=") for pair in text.split(",") if "=" in pair]
        if pairs:
            self._set("env", {name: value for name, _, value in pairs})
        names = [name for name in text.split(",") if name and "=" not in name and name != "NONE"]
        if names:
            self._notes.append(
                f"--export={','.join(names)}: variables of your shell are not passed; -e NAME passes one"
            )

    def _resources(self) -> None:
        tasks = self._number("ntasks", 1) if "ntasks" in self._given else self._number("ntasks-per-node", 1)
        gpus, kind = self._gpus(tasks)
        cores = (
            self._number("cpus-per-task", 0) * tasks
            or self._number("cpus-per-gpu", 0) * gpus
            or (tasks if tasks > 1 else 0)
        )
        sizes = {"mem": 1, "mem-per-cpu": max(cores, 1), "mem-per-gpu": gpus}
        memory = next((self._size(name) * times for name, times in sizes.items() if name in self._given), 0)
        if cores:
            self._set("cpus", float(cores))
        if memory:
            self._set("memory", f"{round(memory)}M")
        if gpus:
            self._set("gpus", float(gpus))
        if kind:
            self._set("gpu_type", kind)
        if tasks > 1:
            self._notes.append(
                f"{tasks} tasks: srun starts one process here; several are started by torchrun --nproc-per-node {tasks}, or in the script"
            )

    def _gpus(self, tasks: int) -> tuple[int, str]:
        """Their number and kind, of `--gpus=a100:2`, `--gres=gpu:a100:2`, …"""
        count, kind = 0, ""
        for name, times in (("gres", 1), ("gpus", 1), ("gpus-per-node", 1), ("gpus-per-task", tasks)):
            if name not in self._given:
                continue
            self.line, text = self._given[name]
            for item in text.split(","):
                parts = item.partition("(")[0].split(":")
                if name == "gres":
                    if parts[0] not in ("gpu", "gres/gpu"):
                        self._idle[f"--gres={item}"] = None
                        continue
                    parts = parts[1:]
                number = parts.pop() if parts and parts[-1].isdecimal() else "1"
                count, kind = int(number) * times, parts[0] if parts else kind
        return count, kind

    def _number(self, name: str, otherwise: int) -> int:
        self.line, text = self._given.get(name, (self.line, str(otherwise)))
        if not text.isdecimal():
            raise self._refusal(name, f"{text!r} is no whole number")
        return int(text)

    def _size(self, name: str) -> float:
        """In MiB."""
        self.line, text = self._given[name]
        found = _SIZE.match(text)
        if not found:
            raise self._refusal(name, f"{text!r} is no size", "Write it as 16G or 512M.")
        return float(found[1]) * {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1 << 20}[found[2].upper()]

    def _tasks(self, text: str) -> tuple[int, ...]:
        """The numbers of an array: `0-9`, `1,3,5`, `0-15:4`, `0-9%2`."""
        found: list[int] = []
        for part in text.partition("%")[0].split(","):
            item = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip())
            if not item or (item[3] and not int(item[3])):
                raise self._refusal("array", f"{part!r} is no number and no range", "Write 0-9, 1,3,5 or 0-15:4.")
            found += range(int(item[1]), int(item[2] or item[1]) + 1, int(item[3] or 1))[: _MOST_TASKS + 1]
        if not 0 < len(found) <= _MOST_TASKS:
            raise self._refusal("array", f"it has {'no' if not found else 'too many'} tasks", f"{_MOST_TASKS} at most.")
        return tuple(found)

    # -- parts --------------------------------------------------------------------------------------------------

    def _command(self, lines: list[str], *, is_array: bool) -> str:
        """The script as a command: its name, what Slurm would have given it, and its lines."""
        kept = [line for line in lines if not line.startswith((_MARK, "#!"))]
        if not any(line.strip() and not line.lstrip().startswith("#") for line in kept):
            raise InvalidConfig(f"{self.path} has no command.", "Write it below the #SBATCH lines.")
        body = "\n".join(kept).strip("\n")
        chdir = self._given.get("chdir", (0, ""))[1]
        words = [f"# {self.path.name}", *([f"cd {shlex.quote(chdir)} || exit"] if chdir else [])]
        shebang = lines[0].removeprefix("#!").split() if lines[0].startswith("#!") else ["/bin/bash"]
        program = [word for word in shebang if Path(word).name != "env" and not word.startswith("-S")] or ["bash"]
        if Path(program[0]).name in _INTERPRETERS:
            flags = [f"set {word}" for word in program[1:] if re.fullmatch("-[a-z]+", word)]
            array = f"; {ARRAY}=:{ARRAY}:" if is_array else ""
            return "\n".join([*words, _PRELUDE + array, *flags, body])
        end = "END_OF_SCRIPT"
        while end in body:
            end += "_"
        interpreter = " ".join([Path(program[0]).name, *program[1:]])
        array = f"{ARRAY}=:{ARRAY}: " if is_array else ""
        return "\n".join([*words, f"{array}{interpreter} /dev/fd/3 3<<'{end}'", body, end])

    def _set(self, key: str, written: Any) -> None:
        """Set the field of a job file, checked as `RunSpec` does."""
        spec_field = BY_KEY[key]
        try:
            value = spec_field.kind.read(written, self.path.parent)
            if key != "command":
                RunSpec(**{"command": "true", spec_field.name: value})
        except SpellError as error:
            raise type(error)(f"{self.path}, line {self.line}: {error.message}", error.cure) from error
        self._fields[spec_field.name] = value

    def _refusal(self, name: str, problem: str, cure: str = "") -> InvalidConfig:
        return InvalidConfig(f"{self.path}, line {self.line}: --{name.lstrip('-')}: {problem}.", cure)


_OPTIONS: Mapping[str, Callable[[_Reader, str], None]] = {
    "job-name": _Reader.name,
    "comment": _Reader.comment,
    "time": _Reader.time,
    "nodes": _Reader.nodes,
    "export": _Reader.exports,
}
_WITH_OTHERS = frozenset(
    "ntasks ntasks-per-node cpus-per-task cpus-per-gpu mem mem-per-cpu mem-per-gpu gres gpus gpus-per-node gpus-per-task chdir".split()
)
