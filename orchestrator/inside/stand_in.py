"""The module `pip` of a run whose Python has none and is too old for ours (`lifecycle/runtime_files.py` installs it under that name).

It installs the pip that comes with this Python into the layer of the run, and starts it; or says that it has none.
"""

import os
import subprocess
import sys

_TRIED = "SPELL_TRIED_PIP"
_NONE = (
    "Python {}.{} has no pip here. Name the packages when you cast the run: spell run --pip NAME, or --pip-req FILE."
)


def main() -> None:
    """Become pip."""
    command = [sys.executable, "-m", "ensurepip", "--default-pip"]  # in a process that has not imported this `pip`
    if os.environ.pop(_TRIED, "") or subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(_NONE.format(*sys.version_info))  # Debian's Python lacks it
    os.environ[_TRIED] = "1"
    os.execv(sys.executable, [sys.executable, "-m", "pip", *sys.argv[1:]])


if __name__ == "__main__":
    main()
