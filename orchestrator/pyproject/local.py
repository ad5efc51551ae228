"""Archives and folders of wheels of this machine that files of the work tree name. Code from elsewhere may name none."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject.files import CodeFiles


def place(files: CodeFiles, where: str, folder: str, path: str) -> str:
    """The absolute path of a file or folder of this machine.

    Args:
        where: the file that names it, for messages.
        folder: the folder of the code in which that file is.
        path: what it says: a path, or a `file:` URL.

    Raises:
        InvalidConfig: the code is not that of this machine's folder, or nothing is there.
    """
    named = unquote(urlsplit(path).path) if path.startswith("file:") else path
    if not files.root:
        raise InvalidConfig(
            f"{where} names {named!r}, a file of the machine on which it was written.",
            "Name its packages yourself: --pip-req FILE, or --no-project and --pip.",
        )
    found = os.path.normpath(os.path.join(files.root, folder, named))
    if not Path(found).exists():
        raise InvalidConfig(
            f"{where} names {named!r}, but there is no {found!r} on this machine.",
            "Make the lock again on this machine, or name the packages yourself: --pip-req FILE",
        )
    return found
