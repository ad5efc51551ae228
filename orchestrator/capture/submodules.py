"""Adds the files of submodules to a snapshot that lacks them: from this machine where their commits are here, else fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from orchestrator.capture import blobs, snapshot
from orchestrator.capture.git import Git
from orchestrator.capture.gitmodules import Module, without_secrets
from orchestrator.capture.snapshot import Snapshot
from orchestrator.content.manifest import make
from orchestrator.errors import InvalidRepository, SpellError
from orchestrator.spec.run import Submodule


class _Joined(NamedTuple):
    """The blobs of several snapshots."""

    parts: Mapping[str, Snapshot]

    def reader(self, digest: str, size: int) -> BinaryIO:
        return self.parts[digest].open_blob(digest)


def with_submodules(outer: Snapshot, cache: Path) -> Snapshot:
    """The snapshot with all of its submodules, and theirs.

    Args:
        cache: see `snapshot.of_url`.

    Raises:
        SpellError: one cannot be taken; the message names it.
    """
    if not outer.modules:
        return outer
    inner = [(module, with_submodules(_taken(module, cache), cache)) for module in outer.modules]
    entries, parts = list(outer.manifest.entries), dict.fromkeys(outer.sizes, outer)
    sizes, recorded = dict(outer.sizes), list(outer.code.submodules)
    for module, code in inner:
        entries += [entry._replace(path=f"{module.path}/{entry.path}") for entry in code.manifest.entries]
        parts = dict.fromkeys(code.sizes, code) | parts
        sizes = {**code.sizes, **sizes}
        recorded.append(Submodule(module.path, without_secrets(module.url)[0], module.commit))
        recorded += [replace(each, path=f"{module.path}/{each.path}") for each in code.code.submodules]
    blobs.check_size((entry.size, entry.path.encode()) for entry in entries)
    manifest = make(entries)
    gone = {module.warning for module, _ in inner}
    warnings = (
        *(text for text in outer.warnings if text not in gone),
        *(text for _, code in inner for text in code.warnings),
    )
    left_out = tuple(path for path in outer.left_out if path not in {module.path for module, _ in inner})
    whole = replace(outer.code, tree=manifest.tree, submodules=tuple(recorded))
    return Snapshot(manifest, whole, outer.subject, outer.untracked, warnings, sizes, _Joined(parts), left_out)


def _taken(module: Module, cache: Path) -> Snapshot:
    """The files of one submodule."""
    if module.root is not None and module.name:
        place = Git(module.root).output("rev-parse", "--git-path", f"modules/{module.name}").decode().strip()
        here = Git(module.root, git_dir=module.root / place)
        if (module.root / place).is_dir() and not here.run("cat-file", "-e", f"{module.commit}^{{commit}}").code:
            return snapshot.of_objects(here, module.commit, url=module.url)
    if not module.url:
        raise InvalidRepository(f"Submodule {module.path!r} has no URL in .gitmodules.", "Leave out --submodules.")
    try:
        return snapshot.of_url(module.url, module.commit, cache)
    except SpellError as error:
        raise type(error)(f"Submodule {module.path!r}: {error.message}", error.cure) from error
