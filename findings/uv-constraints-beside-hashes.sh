#!/usr/bin/env bash
# Version:        uv 0.13.9, compared with pip 26.3
# Behaviour:      With `--require-hashes`, uv refuses every constraint that pins no exact version, also one of a package that no
#                 requirement names: "all requirements must have their versions pinned with `==`, but found: other<3".
#                 A constraint that pins one (`other==1`) is accepted without a hash.
# Expectation:    A constraints file says which versions may be installed, not what is installed; pip looks only at those of
#                 packages that it installs, and installs a file with hashes beside any other constraints.
# Whom it hurts:  Everyone whose administrator sets UV_CONSTRAINT (or translates pip's `constraint`) for all projects: files
#                 with hashes can be installed no more, and the message names a package that is nowhere in them.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9 pip==26.3

# A wheel of our own, so that no index is asked.
venv/bin/python - <<'PYTHON'
import hashlib
import zipfile

info = "tiny-1.0.dist-info"
with zipfile.ZipFile("tiny-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tiny.py", "")
    wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
digest = hashlib.sha256(open("tiny-1.0-py3-none-any.whl", "rb").read()).hexdigest()
open("r.txt", "w").write(f"--require-hashes\ntiny==1.0 --hash=sha256:{digest}\n")
PYTHON

seen=()
try() { # try PROGRAM CONSTRAINT: whether it installs r.txt beside this constraint
    echo "$2" >limits.txt
    rm -rf target
    case $1 in
    pip) command=(venv/bin/pip --disable-pip-version-check --isolated --quiet install) ;;
    uv) command=(venv/bin/uv --no-config --no-cache --quiet pip --offline install --python venv/bin/python) ;;
    esac
    if "${command[@]}" --no-index --find-links . --target target -c limits.txt -r r.txt >said.txt 2>&1; then
        seen+=(installed)
    else
        seen+=(refused)
    fi
    printf '%-4s %-10s %-10s %s\n' "$1" "$2" "${seen[-1]}" "$(grep -v '^$' said.txt | tail -1 || true)"
}

for constraint in 'other<3' 'tiny<2' 'other==1'; do
    try pip "$constraint"
    try uv "$constraint"
done

if [ "${seen[*]}" = "installed refused installed refused installed installed" ]; then
    echo "VERDICT: still so: uv refuses constraints beside required hashes, of packages that nobody asked for, too"
    exit 0
fi
echo "VERDICT: changed"
exit 1
