"""Lets an environment stand on the packages of its image: they can be imported from it, and the added ones win.

People choose an image for what is in it. So uv must not install again what the image has: while it runs, the environment
lists the image's packages as if they were its own (`_LIST`). Afterwards they are taken off the list again, and their
commands get a script for the environment's Python, so that `torchrun` of the image finds the added packages, too (`_END`).
Both programs run in the container of the build, as everything that reads or writes there before it is closed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from orchestrator.environments.base import Base

BASES_FILE = "zz_image.pth"
"""It names the site folders of the image's Python. The name sorts last; see below."""
_INSTALLER = "spell-image"
_BEGIN = """
import glob, os, re, shutil, site, sys, sysconfig
venv, places = sys.argv[1], [place for place in sys.argv[2].split(":") if place.startswith("/")]
(ours,) = glob.glob(os.path.join(venv, "lib", "*", "site-packages"))
def found():
    try:
        from importlib.metadata import distributions
    except ImportError:
        return
    for one in distributions(path=places + sys.path):
        try:
            yield re.sub("[-_.]+", "_", one.metadata["Name"]).lower(), one, one.version or "", one.requires or ()
        except Exception:
            continue
"""
# What is broken in the image is left out: that is no reason to fail a build. The name of the .pth file sorts last, so the
# image's folders come after all that the environment's own packages add to sys.path.
_LIST = (
    _BEGIN
    + f"""
with open(os.path.join(ours, {BASES_FILE!r}), "w") as file:
    if places:
        file.write("import sys; sys.path.sort(key=%r.__contains__)\\n" % (places,))
    for folder in dict.fromkeys(getattr(site, "getsitepackages", lambda: [sysconfig.get_path("purelib")])()):
        file.write("import site; site.addsitedir(%r)\\n" % folder)
if len(sys.argv) > 3:
    sys.exit()
seen = set()
for key, one, version, requires in found():
    if key in seen or not re.fullmatch("[a-z0-9_]+", key) or not re.fullmatch("[0-9][A-Za-z0-9.+!]*", version):
        continue
    seen.add(key)
    lines = ["Metadata-Version: 2.1", "Name: " + key, "Version: " + version]
    lines += ["Provides-Extra: " + extra for extra in one.metadata.get_all("Provides-Extra") or ()]
    lines += ["Requires-Dist: " + " ".join(wanted.split()) for wanted in requires]
    folder = os.path.join(ours, "%s-%s.dist-info" % (key, version))
    os.mkdir(folder)
    for file, text in ("METADATA", "\\n".join(lines) + "\\n"), ("RECORD", ""), ("INSTALLER", {_INSTALLER!r}):
        with open(os.path.join(folder, file), "w", encoding="utf-8") as opened:
            opened.write(text)
if seen:
    print("It stands on the packages of the image: " + ", ".join(sorted(seen)))
"""
)
# The form of a script is that of uv's relocatable ones. pip's own commands change the Python that they run in.
_END = (
    _BEGIN
    + f"""
SCRIPT = '''#!/bin/sh
\\'\\'\\'exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@"
' \\'\\'\\'
import sys
from %s import %s
if __name__ == "__main__":
    sys.exit(%s())
'''
kept = set()
for file in glob.glob(os.path.join(ours, "*.dist-info", "INSTALLER")):
    with open(file, encoding="utf-8") as opened:
        if opened.read() == {_INSTALLER!r}:
            kept.add(os.path.basename(os.path.dirname(file)).partition("-")[0])
            shutil.rmtree(os.path.dirname(file))
for key, one, _, _ in found():
    for entry in one.entry_points if key in kept else ():
        path = os.path.join(venv, "bin", os.path.basename(entry.name))
        module, _, attribute = entry.value.partition("[")[0].strip().partition(":")
        if entry.group != "console_scripts" or not attribute or entry.name.startswith("pip") or os.path.lexists(path):
            continue
        with open(path, "w", encoding="utf-8") as opened:
            opened.write(SCRIPT % (module, attribute.partition(".")[0], attribute))
        os.chmod(path, 0o755)
"""
)


def list_packages(base: Base, venv: Path, *, bare: bool) -> Sequence[str]:
    """Return the command that lets a new environment stand on its image, and lists the image's packages in it.

    Args:
        base: the image, and its Python.
        venv: the environment.
        bare: whether no package is added, so that no list is needed.
    """
    return _command(base, _LIST, venv, *(["bare"] if bare else []))


def end_list(base: Base, venv: Path) -> Sequence[str]:
    """Return the command that takes the image's packages off the list, and makes scripts for their commands."""
    return _command(base, _END, venv)


def _command(base: Base, program: str, venv: Path, *more: str) -> Sequence[str]:
    return [base.python, "-I", "-c", program, os.fspath(venv), base.pythonpath, *more]
