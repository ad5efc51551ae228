"""Starts `spelld`. Modules stay in memory, so Python's garbage collection is off while they are loaded."""

import gc
import signal

gc.disable()

from orchestrator.server.main import main  # noqa: E402 - loaded without garbage collection

if __name__ == "__main__":  # started by `spell`: it must survive the end of that terminal
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    main()
