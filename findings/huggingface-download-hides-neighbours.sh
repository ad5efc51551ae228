#!/usr/bin/env bash
# Version:        huggingface_hub 2.4.0; any tar, borg or restic that leaves out tagged caches (GNU tar here)
# Behaviour:      One download with `cache_dir="models"` writes `models/CACHEDIR.TAG` into that folder, although it existed
#                 and holds other files. `tar --exclude-caches` (borg and restic have the same option) then leaves out the
#                 person's own checkpoints that lie beside the download, and exits with 0.
# Expectation:    `cache_dir` is described as the folder "where cached files are stored". So one expects the library to tag
#                 only what it makes there, `models--OWNER--NAME`, or only its default folder. The standard
#                 (https://bford.info/cachedir) lets a program tag a folder that holds nothing but its cache.
# Whom it hurts:  Everyone who downloads a base model into the folder of their own checkpoints, and backs that folder up.
set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0

cat >hub.py <<'PYTHON'
"""A hub with one file, on the loopback interface."""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        data = b'{"model_type": "gpt2"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"' + "1" * 40 + '"')
        self.send_header("X-Repo-Commit", "2" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *_words):
        pass


server = HTTPServer(("127.0.0.1", 0), Hub)
with open("port.new", "w") as file:
    file.write(str(server.server_port))
os.rename("port.new", "port")
server.serve_forever()
PYTHON
venv/bin/python hub.py &
server=$!
until [ -e port ]; do sleep 0.1; done

mkdir models
echo "a week of training" >models/my-checkpoint.bin
echo "--- before the download, a backup has:"
tar --exclude-caches -cf before.tar models
tar -tf before.tar

export HF_ENDPOINT="http://127.0.0.1:$(cat port)" HF_HOME="$folder/home" HF_HUB_DISABLE_TELEMETRY=1 no_proxy=127.0.0.1
venv/bin/python -c 'from huggingface_hub import hf_hub_download; hf_hub_download("a/b", "config.json", cache_dir="models")'
echo "--- after it, models/ has:"
ls models
echo "--- and a backup has:"
tar --exclude-caches -cf after.tar models 2>said || { cat said; exit 1; }
tar -tf after.tar

if tar -tf before.tar | grep -q my-checkpoint && ! tar -tf after.tar | grep -q my-checkpoint; then
    echo "VERDICT: still so: a download took the person's own file out of the backup"
    exit 0
fi
echo "VERDICT: changed"
exit 1
