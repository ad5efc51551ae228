"""Run the code of a git repository with its uncommitted changes."""

import subprocess
import tempfile
from pathlib import Path

from orchestrator import RunSpec, connect
from orchestrator.capture.snapshot import of_working_tree

with tempfile.TemporaryDirectory() as folder, connect() as client:
    script = Path(folder, "train.py")
    script.write_text("print('first version')\n")
    git = ["git", "-C", folder, "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "First"]):
        subprocess.run([*git, *words], check=True)
    script.write_text("print('second version')\n")

    number = str(client.runs.cast(RunSpec(command="python train.py"), of_working_tree(Path(folder))).number)
    print(client.runs.wait(number).dirty)
    print(client.logs.get(number).read().decode(), end="")

# Output:
# True
# second version
