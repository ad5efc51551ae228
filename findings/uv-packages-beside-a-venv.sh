#!/usr/bin/env bash
# Version:        uv 0.13.9 (against pip 26.3)
# Behaviour:      A .pth file of a virtual environment adds another site folder, so Python imports what is in there.
#                 `pip install` counts it as installed; `uv pip install` installs it again, `uv pip list` does not list
#                 it, and `uv pip check` calls a package that needs it broken.
# Expectation:    uv asks the Python of the environment, whose `sys.path` and importlib.metadata know the folder, and is
#                 described as a drop-in replacement. Its page on compatibility speaks of `--system-site-packages` only.
# Whom it hurts:  Everyone with a small environment on top of a large one (layers, add-on folders of an image): uv
#                 downloads and installs torch again.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check uv==0.13.9 pip==26.3
tools/bin/pip download --quiet --disable-pip-version-check --no-deps --dest wheels six==1.17.0 python-dateutil==2.9.0.post0
uv() { tools/bin/uv "$@" 2>&1; }

# The large environment has six; the small one, on top of it, python-dateutil, which needs six.
python3 -m venv --without-pip large
python3 -m venv --without-pip small
uv pip install --quiet --python=large --no-index --find-links=wheels six==1.17.0
uv pip install --quiet --python=small --no-index --find-links=wheels --no-deps python-dateutil==2.9.0.post0
large_site=$(large/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
small_site=$(small/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$large_site" >"$small_site/large.pth"

imported=$(small/bin/python -c 'import importlib.metadata, six; print(importlib.metadata.version("six"))')
echo "Python imports six $imported"
by_pip=$(tools/bin/python -m pip --python small/bin/python --disable-pip-version-check install --dry-run --no-index six==1.17.0)
echo "pip: $by_pip"
by_uv=$(uv pip install --python=small --dry-run --no-index --find-links=wheels six==1.17.0)
echo "uv:  $by_uv"
listed=$(uv pip list --python small)
checked=$(uv pip check --python small || true)
echo "$checked"

if [ "$imported" = 1.17.0 ] && [[ $by_pip == *"already satisfied: six"* ]] && [[ $by_uv == *"+ six==1.17.0"* ]] &&
    [[ $listed != *six* ]] && [[ $checked == *six* ]]; then
    echo "VERDICT: still so: pip sees packages that a .pth file adds, uv does not"
    exit 0
fi
echo "VERDICT: changed"
exit 1
