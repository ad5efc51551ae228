#!/usr/bin/env bash
# Version:        pytest 9.2.0 with pytest-xdist 3.8.0 (both the newest on 2026-11-30); pytest 9.1.1 for comparison.
# Behaviour:      `--dist loadgroup` ignores every `xdist_group` mark: tests of one group run in several workers. Nothing
#                 warns, and `--strict-markers` is content. With pytest 9.1.1 the same group stays in one worker.
# Expectation:    The documentation of pytest-xdist promises that tests with the same group run in the same worker, and
#                 xdist 3.8.0 asks for pytest>=7, so pip installs the pair. xdist adds the group to a test's node id
#                 while tests are collected; with pytest 9.2 that addition no longer reaches the scheduler.
# Whom it hurts:  Suites whose groups share a port, a database or a device: they stay green until two workers meet.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >test_group.py <<'PYTHON'
import os
import time

import pytest


@pytest.mark.parametrize("number", range(8))
@pytest.mark.xdist_group("one")
def test_of_a_group(number):
    time.sleep(0.2)  # long enough for an idle worker to be given one
    with open(os.environ["WORKERS"], "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PYTHON

# How many workers run the eight tests of the one group.
workers_with() {
    python3 -m venv "venv-$1"
    "venv-$1/bin/pip" install --quiet --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0
    WORKERS="$folder/workers-$1" "venv-$1/bin/python" -m pytest -q -p no:cacheprovider --strict-markers \
        -n 2 --dist loadgroup test_group.py >"log-$1" 2>&1 || { cat "log-$1"; exit 2; }
    [ "$(wc -l <"workers-$1")" = 8 ] || exit 2
    sort -u "workers-$1" | wc -l
}

old=$(workers_with 9.1.1)
new=$(workers_with 9.2.0)
echo "pytest 9.1.1: one group of 8 tests ran in $old worker(s)"
echo "pytest 9.2.0: one group of 8 tests ran in $new worker(s)"

if [ "$old" = 1 ] && [ "$new" = 2 ]; then
    echo "VERDICT: still so: pytest 9.2.0 splits the group"
    exit 0
fi
echo "VERDICT: changed"
exit 1
