"""`spell exec`: a shell or a command beside that of a running run, on this terminal or with pipes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output.detach import BROKEN_PIPE, INTERRUPTED
from orchestrator.cli.output.streams import close_stdout
from orchestrator.client.client import connect
from orchestrator.client.exec import ExecProcess, TerminalSize

_CHUNK_BYTES = 64 << 10
_TERMINATED = 143


@click.command(
    "exec",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "allow_interspersed_args": False,  # options after RUN belong to COMMAND
    },
)
@click.argument("run", shell_complete=complete.active)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def exec(ctx: click.Context, run: str, command: Sequence[str]) -> None:  # noqa: A001
    """Open a shell beside the command of RUN, or run COMMAND there: one quoted string for a shell, or several words.

    It sees what the run sees: in its container, or in the namespaces of a process run.

    The command gets this terminal if there is one, else pipes for standard input, output and error. The exit code is
    that of COMMAND.
    """
    words = command[1:] if command[:1] == ("--",) else command
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    size = _size() if terminal else None
    term = os.environ.get("TERM", "") if terminal else ""
    with connect() as client, client.exec.start(run, words, terminal=terminal, term=term, size=size) as started:
        try:
            with _raw_terminal() if terminal else contextlib.nullcontext(), _typing(started, terminal=terminal):
                _show(started)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            close_stdout()
            ctx.exit(BROKEN_PIPE)
        if started.run_is_over:
            click.echo(f"Run {run} has ended, so this command was ended too.", err=True)
            ctx.exit(started.exit_code or 1)
        ctx.exit(started.exit_code)


def _show(started: ExecProcess) -> None:
    for output in started.read():
        left = memoryview(output.data)
        while left:
            left = left[os.write(output.stream, left) :]


@contextlib.contextmanager
def _typing(started: ExecProcess, *, terminal: bool) -> Iterator[None]:
    """Send input and changes of the terminal's size to the command, from a thread.

    The signal handler only wakes that thread, because it may interrupt a thread in the middle of a frame.
    """
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)

    def changed(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(write_fd, b"\0")

    previous = signal.signal(signal.SIGWINCH, changed) if terminal else None
    threading.Thread(target=_type, args=(started, read_fd), name="keyboard", daemon=True).start()
    try:
        yield
    finally:
        if terminal:
            signal.signal(signal.SIGWINCH, previous)


def _type(started: ExecProcess, wake_fd: int) -> None:
    watched = [0, wake_fd]
    while True:
        ready = select.select(watched, [], [])[0]
        if wake_fd in ready:
            os.read(wake_fd, _CHUNK_BYTES)
            started.resize(_size())
        if 0 in ready:
            try:
                data = os.read(0, _CHUNK_BYTES)
            except OSError:  # the terminal is gone
                data = b""
            started.write(data)
            if not data:
                watched.remove(0)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Send every key to the command, also ^C. The terminal is restored afterwards, also after SIGTERM and SIGHUP."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(_TERMINATED)

    before = termios.tcgetattr(0)
    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(0, termios.TCSADRAIN)  # keeps input that was typed ahead
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _size() -> TerminalSize:
    try:
        found = os.get_terminal_size(1)
    except OSError:
        return TerminalSize(80, 24)
    return TerminalSize(found.columns or 80, found.lines or 24)
