"""Upload a folder and mount it."""

import tempfile
from pathlib import Path

from orchestrator import Mount, RunSpec, connect

with tempfile.TemporaryDirectory() as folder, connect() as client:
    Path(folder, "train.csv").write_text("x,y\n1,2\n3,4\n")
    Path(folder, "test.csv").write_text("x,y\n5,6\n")
    upload = client.uploads.put("tables", folder, replace=True)
    print(f"{upload.count} files, {upload.bytes} bytes")

    spec = RunSpec(command="wc -l < data/train.csv", mounts=(Mount("uploads/tables", "data"),))
    number = str(client.runs.cast(spec).number)
    client.runs.wait(number)
    print(client.logs.get(number).read().decode().strip(), "lines")

# Output:
# 2 files, 20 bytes
# 3 lines
