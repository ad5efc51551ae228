"""What `spelld` starts with: what is loaded stays, so nothing is looked through for garbage until it is."""

import gc
import signal

gc.disable()

from orchestrator.server.main import main  # noqa: E402 - this is what is loaded

if __name__ == "__main__":  # started by `spell`: the end of somebody's terminal is none of ours
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    main()
