"""The module `pip` of a run that has its image as it is: there `python -m pip` installs into the layer of the run.

An image's own pip has no place to install to: its folders belong to root, go with the container, or are managed by its
distribution; and some images have none. `lifecycle/runtime_files.py` installs this as `pip/__init__.py` and as
`pip/__main__.py`, so that it comes before the image's pip on `sys.path`. All else is left to the pip that comes next
there: `import pip`, and the pip of any other Python, such as that of a virtual environment made in the run.
"""

import glob
import os
import site
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_HERE = os.path.dirname(os.path.abspath(__file__))
_BASES = "/opt/spell/environment/lib/*/site-packages/zz_image.pth"  # as in `environments/image_packages.py`


def is_of_image() -> bool:
    """Whether this Python is the one of the image that the layer stands on."""
    if not hasattr(site, "getsitepackages"):  # an old virtual environment
        return False
    ours = site.getsitepackages()[0]
    for path in glob.glob(_BASES):
        with open(path) as file:
            if repr(ours) in file.read():
                return True
    return False


def become_next() -> None:
    """Put the pip that comes next on `sys.path` in the place of this one."""
    folders = [folder for folder in sys.path if os.path.abspath(folder) != os.path.dirname(_HERE)]
    spec = PathFinder.find_spec("pip", folders)
    if spec:
        found = sys.modules["pip"] = module_from_spec(spec)
        if spec.loader:  # a folder without `__init__.py` has none
            spec.loader.exec_module(found)
        if is_of_image():
            found.__path__ = [_HERE, *found.__path__]  # its `__main__` is ours
    elif not is_of_image():
        raise ModuleNotFoundError("No module named 'pip'", name="pip")


if __name__ == "__main__":
    os.execv(os.path.join(_HERE, "../../bin/pip"), ["pip", *sys.argv[1:]])
else:
    become_next()
