#!/usr/bin/env bash
# Version:        pydantic 2.14.4
# Behaviour:      A `dict[str, int]` accepts file names that are not UTF-8 (as `os.listdir` gives them, with surrogate
#                 escapes). `model_dump(mode="json")` writes each such byte of a key as three U+FFFD. Two names that
#                 differ in that byte become one key, and the value of the first is lost. `model_dump_json()` writes
#                 an object with the same key twice. Nothing is raised or warned about.
# Expectation:    What happens to the same string as a value: `model_dump(mode="json")` keeps it as it is, and
#                 `model_dump_json()` raises PydanticSerializationError ("surrogates not allowed").
# Whom it hurts:  Everyone who keeps sizes or hashes of files by name in a model and writes them as JSON.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pydantic==2.14.4

cat >experiment.py <<'PYTHON'
import json
import os
import sys

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

first, second = os.fsdecode(b"data-\xfe.csv"), os.fsdecode(b"data-\xff.csv")


class Sizes(BaseModel):
    bytes_of: dict[str, int]


class Name(BaseModel):
    name: str


sizes = Sizes(bytes_of={first: 1, second: 2})
dumped = sizes.model_dump(mode="json")
written = sizes.model_dump_json()
print("the model:                     ", ascii(sizes.bytes_of))
print("keys, model_dump(mode='json'): ", ascii(dumped["bytes_of"]))
print("keys, model_dump_json():       ", ascii(written))
print("keys, read back:               ", ascii(json.loads(written)["bytes_of"]))

value = Name(name=first).model_dump(mode="json")["name"]
print("value, model_dump(mode='json'):", ascii(value))
try:
    Name(name=first).model_dump_json()
    refused = False
except PydanticSerializationError as error:
    refused = True
    print("value, model_dump_json():       raises", type(error).__name__)

lost = len(sizes.bytes_of) == 2 and list(dumped["bytes_of"].values()) == [2]
twice = len(json.loads(written, object_pairs_hook=list)[0][1]) == 2 and len(json.loads(written)["bytes_of"]) == 1
CHANGED = 10  # Python itself ends with 1 when it fails
sys.exit(0 if lost and twice and value == first and refused else CHANGED)
PYTHON

code=0
venv/bin/python experiment.py || code=$?
case $code in
    0) echo "VERDICT: still so: keys merge without a word, values do not" ;;
    10) echo "VERDICT: changed" && exit 1 ;;
    *) exit "$code" ;;
esac
