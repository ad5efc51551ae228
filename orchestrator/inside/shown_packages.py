"""Shows `uv pip` the packages that the layer of a run stands on, so that it does not install them again.

uv looks for packages only in the site folder of a virtual environment itself, not in those that a .pth file adds. So the
layer gets a copy of the metadata of each package below it, whose RECORD lists nothing but this copy: when uv replaces the
package, it removes the copy. The command `uv` of a run starts this with the layer's Python (`lifecycle/runtime_files.py`).
"""

import os
import re
import shutil
import sys
import sysconfig

LAYER = "zz-spell-layer.pth"  # as in `environments/layer.py`
SHOWN = "SPELL-SHOWN"
_COPIED = ("METADATA", "WHEEL", "INSTALLER", "REQUESTED", "entry_points.txt", "top_level.txt", "direct_url.json")


def show(site: str) -> None:
    """Copy the metadata of all packages on `sys.path` that are not in this site folder."""
    shown = set(_packages(site))
    for folder in sys.path:
        if folder == site or not os.path.isdir(folder):
            continue
        for name, info in sorted(_packages(folder).items()):
            if name not in shown:
                shown.add(name)
                _copy(os.path.join(folder, info), os.path.join(site, info))


def _packages(folder: str) -> "dict[str, str]":
    """Return the names of the packages in a folder, with those of their metadata folders."""
    infos = [entry for entry in os.listdir(folder) if entry.endswith(".dist-info")]
    return {re.sub(r"[-_.]+", "-", info.partition("-")[0]).lower(): info for info in infos}


def _copy(source: str, target: str) -> None:
    os.mkdir(target)
    names = [name for name in _COPIED if os.path.isfile(os.path.join(source, name))]
    for name in names:
        shutil.copyfile(os.path.join(source, name), os.path.join(target, name))
    with open(os.path.join(target, SHOWN), "w"):
        pass
    with open(os.path.join(target, "RECORD"), "w") as record:
        for name in [*names, SHOWN, "RECORD"]:
            record.write("{}/{},,\n".format(os.path.basename(target), name))  # noqa: UP032 - as old Pythons write it


if __name__ == "__main__":
    SITE = sysconfig.get_paths()["purelib"]
    if os.path.exists(os.path.join(SITE, LAYER)):  # else it is a virtual environment of the person's own
        show(SITE)
