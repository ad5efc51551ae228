"""Download outputs: a file, and a folder."""

import io
import tarfile

from orchestrator import NotFound, RunSpec, connect

with connect() as client:
    command = (
        "mkdir -p model/layers; echo config > model/config.json; echo weights > model/layers/0.bin; echo ok > report"
    )
    number = client.runs.cast(RunSpec(command=command)).number
    client.runs.wait(str(number))

    for file in client.resources.list(f"runs/{number}"):
        print(file.path, "is a folder" if file.is_dir else f"has {file.size} bytes")
    print(client.resources.download(f"runs/{number}/report").read().decode(), end="")
    with tarfile.open(fileobj=io.BytesIO(client.resources.download(f"runs/{number}/model").read())) as tar:
        print(*sorted(member.name for member in tar if member.isfile()))
    try:
        client.resources.download(f"runs/{number}/none")
    except NotFound as error:
        print(type(error).__name__)

# Output:
# model is a folder
# report has 3 bytes
# ok
# config.json layers/0.bin
# NotFound
