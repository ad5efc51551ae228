"""A real pseudo-terminal with a program on it, and what a person would see on its screen."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil
import pytest

from orchestrator.cli.output.show import width

_SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")
_LIMIT_S, _LOOK_S = 60.0, 0.005


class Screen:
    """The lines of a terminal that never scrolls: text, wrapped at the last column, CR, LF, BS, and the few sequences
    (ECMA-48) that spinners and progress bars use. Unknown sequences raise."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._rows: list[list[str]] = [[]]
        self._row = self._column = 0
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        """Draw bytes that a program wrote."""
        text = self._rest + self._decoder.decode(data)
        place = 0
        while place < len(text):
            if text[place] == "\x1b":
                found = _SEQUENCE.match(text, place)
                if not found:
                    assert len(text) - place < 12, f"unknown sequence {text[place : place + 12]!r}"
                    break
                self._obey(found[1], found[2])
                place = found.end()
            else:
                self._put(text[place])
                place += 1
        self._rest = text[place:]

    @property
    def lines(self) -> list[str]:
        """What can be read, from the top, without trailing spaces and empty lines at the end."""
        text = "\n".join("".join(row).rstrip() for row in self._rows)
        return text.rstrip("\n").split("\n")

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._go_down()
        elif char == "\b":
            self._column = max(0, self._column - 1)
        elif char >= " ":
            cells = width(char)
            if self._column + cells > self.columns:
                self._column = 0
                self._go_down()
            row = self._rows[self._row]
            row += [" "] * (self._column + max(cells, 1) - len(row))
            if cells:
                row[self._column : self._column + cells] = [char, *[""] * (cells - 1)]
            elif self._column:
                row[self._column - 1] += char
            self._column += cells

    def _go_down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append([])

    def _obey(self, arguments: str, command: str) -> None:
        number = int(arguments) if arguments.isdecimal() else 0
        row = self._rows[self._row]
        if command == "K":
            del row[0 if number == 2 else self._column :]
        elif command == "J":
            del row[self._column :], self._rows[self._row + 1 :]
        elif command == "A":
            self._row = max(0, self._row - (number or 1))
        elif command == "C":
            self._column = min(self.columns - 1, self._column + (number or 1))
        elif command == "H" and not arguments:
            self._row = self._column = 0
        elif command == "G":
            self._column = max(0, number - 1)
        else:
            assert command in "mhl", f"unknown sequence ESC [ {arguments} {command}"


class Terminal:
    """A program on a terminal of its own, which controls it: ^C goes to it."""

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str], columns: int = 100) -> None:
        self._master, slave = os.openpty()
        self.resize(columns)
        env = {"TERM": "xterm", **env, "SLAVE": os.ttyname(slave)}
        # The first terminal that a session's leader opens becomes its own.
        words = ["sh", "-c", 'exec "$@" <"$SLAVE" >"$SLAVE" 2>&1', "sh", *command]
        self._process = subprocess.Popen(words, cwd=cwd, env=env, start_new_session=True)
        # Until the program has opened it, somebody must hold the other end.
        self._slave: int | None = slave
        self.screen, self.raw = Screen(columns), b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for number in (self._master, self._slave):
            if number is not None:
                with contextlib.suppress(OSError):
                    os.close(number)

    def resize(self, columns: int) -> None:
        """Make the window this wide."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys; `\\x03` is ^C."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Press ^C as a person does: when the program waits for something, and not in the microsecond before."""
        process, deadline = psutil.Process(self._process.pid), time.monotonic() + _LIMIT_S
        while process.status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < deadline, "the program never waits"
            time.sleep(_LOOK_S)
        self.type("\x03")

    def sees(self, condition: Callable[[list[str]], bool] | str) -> list[str]:
        """Wait until the screen's lines are so, or have this text in one of them; returns them."""
        wanted = condition if callable(condition) else lambda lines: any(condition in line for line in lines)
        for _ in self._reading():
            if wanted(self.screen.lines):
                return self.screen.lines
        pytest.fail(f"never seen: {condition!r}\n" + "\n".join(self.screen.lines))

    def ends(self) -> int:
        """Read on until the program has ended; returns its exit code."""
        for _ in self._reading():
            pass
        return self._process.wait(_LIMIT_S)

    def _reading(self) -> Iterator[None]:
        """Once before and once after each piece that is read, until nothing comes any more."""
        deadline = time.monotonic() + _LIMIT_S
        yield
        while time.monotonic() < deadline:
            if self._slave is not None and (self.raw or self._process.poll() is not None):
                os.close(self._slave)
                self._slave = None
            if not select.select([self._master], [], [], 0.05)[0]:
                if self._slave is None and self._process.poll() is not None:
                    return
                continue
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # EIO: nobody holds the other end any more
                return
            self.raw += data
            self.screen.feed(data)
            yield
        pytest.fail(f"not within {_LIMIT_S} s:\n" + "\n".join(self.screen.lines))


def uses_a_shell(terminal: Terminal, prompt: str) -> None:
    """What a person does in a shell of `spell exec` that has just said its size, 42, its colour and its terminal."""
    assert any("24 91" in line for line in terminal.sees("42-green-xterm"))
    terminal.resize(77)
    os.killpg(terminal._process.pid, signal.SIGWINCH)
    terminal.type("while ! stty size | grep 77; do sleep 0.1; done; echo now-$((70 + 7))\r")
    terminal.sees("now-77")
    terminal.type("echo g''o; cat\r")
    terminal.sees(lambda lines: "go" in lines)
    terminal.type("line\r")
    terminal.sees(lambda lines: lines.count("line") == 2)  # as typed, and by cat
    terminal.type("\x03")  # ends cat, not us
    terminal.sees(lambda lines: lines[-2] == "^C" and prompt in lines[-1])
    terminal.type("exit 5\r")
    assert terminal.sees("same 5")
    assert terminal.ends() == 0
