"""The argument list of an additional command: a shell, a line for one, or a program."""

from __future__ import annotations

from collections.abc import Sequence

SHELL = 'command -v bash >/dev/null 2>&1 && exec bash "$@"; exec sh "$@"'
# The size of a terminal is set only after the start: the command waits for that, for at most half a second.
_SIZED = """
tries=0
while [ "$(stty size 2>/dev/null)" = "0 0" ] && [ $tries -lt 50 ]; do tries=$((tries + 1)); sleep 0.01; done
exec "$@"
"""


def argv(command: Sequence[str], *, terminal: bool) -> list[str]:
    """Return the argument list to start.

    Args:
        command: program and arguments; a single word is a line for a shell; empty for the shell itself (bash if there is one).
        terminal: whether it gets a terminal.
    """
    shell = ["sh", "-c", SHELL, "sh", *(["-c", command[0]] if command else [])]
    words = ["sh", "-c", 'exec "$@"', "sh", *command] if len(command) > 1 else shell
    return ["sh", "-c", _SIZED, "sh", *words] if terminal else words
