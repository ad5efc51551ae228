"""What the Dockerfile runs."""

import os
import pathlib

print("mode", os.environ.get("MODE", "unset"))
pathlib.Path("result.txt").write_text("done\n")
