"""What `spelld` starts with: what is loaded stays, so nothing is looked through for garbage until it is."""

import gc

gc.disable()

from orchestrator.server.main import main  # noqa: E402 - this is what is loaded

if __name__ == "__main__":
    main()
