"""The skill: one page that tells an assistant how to use `spell`, in the form of https://agentskills.io.

Assistants look for `NAME/SKILL.md` in folders of skills, of a project or of a person.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import Conflict, SpellError

NAME = "spell"
FOLDERS = (".claude/skills", ".agents/skills")
"""Those that assistants read: Claude Code's, and the one that others agree on."""
_PAGE = Path(__file__).with_name("SKILL.md")


def page() -> str:
    """Return the page."""
    return _PAGE.read_text("utf-8")


def install(folder: Path, *, replace: bool = False) -> Path:
    """Write the page as `spell/SKILL.md` into a folder of skills. Returns its path.

    Raises:
        Conflict: if something else is in its place, and `replace` is not set.
        SpellError: if it cannot be written.
    """
    place = folder / NAME / _PAGE.name
    try:
        if not replace and place.exists() and not _is_ours(place):
            raise Conflict(f"{place} exists already, and is not spell's page.", "Replace it with -f.")
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.part")
        beside.write_text(page(), "utf-8")
        beside.replace(place)
    except OSError as error:
        raise SpellError(f"{error.filename or place}: {error.strerror}.", "Name another folder: --to PATH") from error
    return place


def _is_ours(place: Path) -> bool:
    return f"\nname: {NAME}\n" in place.read_text("utf-8", "replace")[:200]
