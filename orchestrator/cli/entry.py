"""What `spell` starts with: until all is loaded, ^C ends it without a word, and not with a traceback of Python's."""

import gc
import signal

gc.set_threshold(50_000)  # what is loaded stays: it need not be looked through after every 700 objects

_IS_OURS = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else whoever started us ignores it
if _IS_OURS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from orchestrator.cli import main as loaded  # noqa: E402 - this is what may be interrupted


def main() -> None:
    """The entry point."""
    if _IS_OURS:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    loaded.main()
