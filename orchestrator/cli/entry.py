"""The entry point of `spell`. Until all modules are loaded, ^C ends it silently, without a traceback."""

import gc
import signal

gc.set_threshold(50_000)  # loaded modules stay, so the collector need not search them after every 700 objects

_IS_OURS = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else the parent ignores it
if _IS_OURS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from orchestrator.cli import main as loaded  # noqa: E402 - this is what may be interrupted


def main() -> None:
    """Run `spell`."""
    if _IS_OURS:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    loaded.main()
