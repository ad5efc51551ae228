#!/usr/bin/env bash
# Version:        datasets 5.2.0
# Behaviour:      A data set that is prepared completely in the cache cannot be loaded when the cache is read-only:
#                 load_dataset opens a lock file beside it for writing and raises "Read-only file system" (or "Permission
#                 denied"), also offline and with nothing left to do.
# Expectation:    Reading: the models of huggingface_hub in the same read-only HF_HOME load, and so does
#                 Dataset.from_file of the very arrow file.
# Whom it hurts:  Who mounts a prepared HF_HOME read-only into containers or shares it between users. HF_DATASETS_CACHE
#                 must lie elsewhere, and each run then prepares its data again.
set -euo pipefail

folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0
printf 'a\n1\n' >rows.csv

cat >experiment.py <<'PYTHON'
import glob
import os
import sys

import datasets

home = os.environ["HF_HOME"]
datasets.disable_progress_bars()


def loaded() -> str:
    try:
        return str(datasets.load_dataset("csv", data_files="rows.csv", split="train")[0])
    except OSError as error:
        return f"raises {type(error).__name__}" + (" at a lock file" if ".lock" in str(error) else "")


before = loaded()
for folder, _, files in os.walk(home, topdown=False):
    for name in (*files, "."):
        os.chmod(os.path.join(folder, name), 0o555)
if os.getuid() == 0:  # root may write to what is read-only for others
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
after = loaded()
path = glob.glob(f"{home}/datasets/csv/**/*.arrow", recursive=True)[0]
direct = str(datasets.Dataset.from_file(path)[0])
print("load_dataset, writable cache: ", before)
print("load_dataset, read-only cache:", after)
print("Dataset.from_file, read-only: ", direct)
CHANGED = 10  # Python itself ends with 1 when it fails
sys.exit(0 if before == direct and after.endswith("at a lock file") else CHANGED)
PYTHON

chmod a+rx "$folder"
code=0
HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" HOME="$folder" venv/bin/python experiment.py || code=$?
case $code in
    0) echo "VERDICT: still so: what is prepared cannot be loaded from a read-only cache" ;;
    10) echo "VERDICT: changed" && exit 1 ;;
    *) exit "$code" ;;
esac
