"""Who stops following a run is told that it goes on without them."""

from __future__ import annotations

from orchestrator.cli import show

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes of who detached from a run: 128 + SIGINT, 128 + SIGPIPE, as shells have them."""
_DETACHED = (
    "✨ Your run is still running remotely.",
    "✨ Use 'spell stop {number}' to save outputs and stop your run.",
    "✨ Use 'spell kill {number}' to terminate your run. All outputs will be lost.",
    "✨ Use 'spell logs -f {number}' to view logs again",
)


def detached(number: int | str, *, err: bool = False) -> None:
    """Say that the run goes on without us, and what can be done with it."""
    for line in _DETACHED:
        show.say(line.format(number=number), err=err)
