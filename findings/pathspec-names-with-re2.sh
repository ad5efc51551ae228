#!/usr/bin/env bash
# Version:        pathspec 1.1.1, google-re2 1.1.20251105
# Behaviour:      `GitIgnoreSpec` matches names that are not UTF-8 (as `os.listdir` gives them, with surrogate escapes).
#                 As soon as google-re2 is installed, for whatever other package, the same call raises
#                 UnicodeEncodeError: since 1.0 pathspec chooses its backend by what it can import.
# Expectation:    Installing another package changes at most the speed: the docstring of `from_lines` says of the default only
#                 that it uses "the best available backend", and nothing of names that it cannot match.
# Whom it hurts:  Every tool that walks folders with pathspec, on the first file with such a name, in an environment where
#                 something depends on google-re2. `backend="simple"` avoids it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pathspec==1.1.1

cat >experiment.py <<'PYTHON'
import os
import sys

from pathspec import GitIgnoreSpec

name = os.fsdecode(b"data-\xff.tmp")
options = {"backend": sys.argv[1]} if len(sys.argv) > 1 else {}
try:
    print("matches" if GitIgnoreSpec.from_lines(["*.tmp"], **options).match_file(name) else "does not match")
except UnicodeEncodeError as error:
    print("raises", type(error).__name__)
PYTHON

alone=$(venv/bin/python experiment.py)
venv/bin/pip install --quiet --disable-pip-version-check google-re2==1.1.20251105
beside=$(venv/bin/python experiment.py)
simple=$(venv/bin/python experiment.py simple)
echo "pathspec alone:                      $alone"
echo "beside google-re2:                   $beside"
echo "beside google-re2, backend=simple:   $simple"

if [ "$alone/$beside/$simple" = "matches/raises UnicodeEncodeError/matches" ]; then
    echo "VERDICT: still so: installing google-re2 makes pathspec refuse names that are not UTF-8"
else
    echo "VERDICT: changed" && exit 1
fi
