#!/usr/bin/env bash
# Version:        uv 0.13.9
# Behaviour:      A new `version` of the project itself makes its uv.lock outdated: `uv lock --check` and every command with
#                 `--locked` end with 1, "The lockfile at `uv.lock` needs to be updated", though no dependency has changed. A new
#                 description or script does not.
# Expectation:    A lock says which versions of others a project gets (poetry.lock's `content-hash` covers the dependencies only).
# Whom it hurts:  Releases that write the new version into pyproject.toml and nothing else: the pipeline of the release commit
#                 fails at `uv sync --locked`, which the uv documentation advises for continuous integration.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
uv=$PWD/venv/bin/uv
mkdir project
cd project

seen=()
write() { # write LINES…: the project, with these lines in its table
    printf '%s\n' '[project]' 'name = "demo"' 'requires-python = ">=3.11"' 'dependencies = []' "$@" >pyproject.toml
}
check() { # check WHAT: whether the lock is still good
    if "$uv" --no-config --no-cache --offline --quiet lock --check >said.txt 2>&1; then seen+=(good); else seen+=(outdated); fi
    printf '%-28s %-9s %s\n' "$1" "${seen[-1]}" "$(head -1 said.txt)"
}

write 'version = "1.0"'
"$uv" --no-config --no-cache --offline --quiet lock
check "as it was locked"
write 'version = "1.0"' 'description = "new"' '[project.scripts]' 'demo = "demo:main"'
check "another description, a script"
write 'version = "1.1"'
check "another version"

if [ "${seen[*]}" = "good good outdated" ]; then
    echo "VERDICT: still so: a new version of the project itself makes its lock outdated"
    exit 0
fi
echo "VERDICT: changed: ${seen[*]}"
exit 1
