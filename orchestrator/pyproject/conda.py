"""environment.yml of conda: its Python, and the packages that it gives to pip. Others are conda's own, under names and with
builds that PyPI does not have, so they are not guessed.

Format: https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html
"""

from __future__ import annotations

import re

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject.files import CodeFiles
from orchestrator.pyproject.lines import Lines

_SHOWN = 5
_WITHOUT_NEED = frozenset({"pip", "setuptools", "wheel"})
_PYTHON = re.compile(r"(?:[\w-]+::)?python\s*(?:={1,2}\s*(\d+(?:\.\d+){0,2})(?:\.?\*)?(?:=.*)?)?\Z")


def read(files: CodeFiles, path: str) -> tuple[Lines, str]:
    """The packages for pip, and the version of Python; "" if it names none.

    Raises:
        InvalidConfig: it asks for packages of conda, or is no such file.
    """
    import yaml  # 11 ms: few runs have such a file

    try:
        table = yaml.safe_load(files.text(path))
    except yaml.YAMLError as error:
        raise InvalidConfig(
            f"{path} cannot be read: {error}".replace("\n", " "), "Correct it, or: --no-project"
        ) from None
    items = table.get("dependencies", []) if isinstance(table, dict) else None
    if not isinstance(items, list):
        raise InvalidConfig(f"{path} has no list of dependencies.", "Correct it, or do without: --no-project")
    found, python, others = Lines(), "", []
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("pip"), list):
            found.requirements += map(str, item["pip"])
        elif said := _PYTHON.match(str(item)):
            python = said[1] or python
        elif str(item).partition("=")[0].strip() not in _WITHOUT_NEED:
            others.append(str(item))
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        raise InvalidConfig(
            f"{path} asks for packages of conda, which are not guessed to be those of PyPI: {', '.join(others[:_SHOWN])}{more}.",
            "Write a requirements.txt beside it (in the environment: pip list --format=freeze > requirements.txt), give an image "
            "that has them (--from IMAGE --no-project), or do without: --no-project",
        )
    return found, python
