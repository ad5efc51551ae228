"""Reads which submodules a repository has: their paths, URLs and commits. Format: gitmodules(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.capture.git import Git

_USER_INFO = r"\A([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)@"


class Link(NamedTuple):
    """A submodule in a working tree, as its repository records it.

    Attributes:
        root: of the repository that has it.
        prefix: the path of that repository in the outermost one: b"" or b"libs/x/".
        path: relative to `root`.
        is_here: whether it is initialised.
    """

    root: Path
    prefix: bytes
    path: bytes
    commit: str
    is_here: bool


class Module(NamedTuple):
    """A submodule.

    Attributes:
        path: relative to the root of the outermost repository.
        url: absolute; "" where `.gitmodules` has none. It may hold credentials.
        warning: what is said when it is left out.
        name: the name in `.gitmodules`.
        root: of the repository on this machine that has it; None for one that was fetched.
    """

    path: str
    commit: str
    url: str
    warning: str
    name: str = ""
    root: Path | None = None


def of_tree(links: Iterable[Link]) -> Iterator[tuple[Module, bool]]:
    """Yield the submodules of a working tree, and whether each is initialised."""
    known: dict[Path, Mapping[str, tuple[str, str]]] = {}
    for link in links:
        git = Git(link.root)
        if link.root not in known:
            known[link.root] = _urls(git, "--file", ".gitmodules")
        name, url = known[link.root].get(os.fsdecode(link.path), ("", ""))
        path = os.fsdecode(link.prefix + link.path)
        words = f"Submodule {path!r} is not initialised and is left out."
        words += " To include it: git submodule update --init, or --submodules"
        yield Module(path, link.commit, _absolute(url, git), words, name, link.root), link.is_here


def of_commit(git: Git, commit: str, links: Mapping[str, str], url: str = "") -> tuple[Module, ...]:
    """The submodules of a commit.

    Args:
        links: the commits of the submodules, by path.
        url: where the commit was fetched from; "" for a repository of this machine.
    """
    if not links:
        return ()
    known = _urls(git, "--blob", f"{commit}:.gitmodules")
    root = None if url else git.cwd
    found = []
    for path, oid in links.items():
        name, own = known.get(path, ("", ""))
        words = f"Submodule {path!r} is left out, because its files are not part of the commit."
        words += " To include it: --submodules"
        found.append(Module(path, oid, _absolute(own, git, url), words, name, root))
    return tuple(found)


def _urls(git: Git, *where: str) -> dict[str, tuple[str, str]]:
    """Names and URLs of submodules by path."""
    done = git.run("config", *where, "-z", "--get-regexp", r"^submodule\..*\.(path|url)$")
    values = dict(entry.partition("\n")[::2] for entry in os.fsdecode(done.out).split("\0")[:-1])
    names = [key.removeprefix("submodule.").removesuffix(".path") for key in values if key.endswith(".path")]
    return {values[f"submodule.{name}.path"]: (name, values.get(f"submodule.{name}.url", "")) for name in names}


def _absolute(url: str, git: Git, parent: str = "") -> str:
    """A URL of `.gitmodules`, where `../x` is beside the repository that has it."""
    if not url.startswith(("./", "../")):
        return url
    if not parent:
        done = git.run("config", "--get", "remote.origin.url")
        parent = os.fsdecode(done.out).strip() or str(git.cwd)
    parent, rest = parent.rstrip("/"), url
    while rest.startswith(("./", "../")):
        first, _, rest = rest.partition("/")
        if first == "..":
            parent = re.sub(r"(.)[/:][^/:]*\Z", r"\1", parent) if "/" in parent else parent.rpartition(":")[0]
    return f"{parent}/{rest}"


def without_secrets(url: str) -> tuple[str, str]:
    """Return the URL without secrets, and the part removed. For http(s) that includes the user, which may be a token."""
    found = re.match(_USER_INFO, url)
    if not found:
        return url, ""
    user = "" if found[1].lower().startswith("http") else found[2].partition(":")[0]
    public = f"{found[1]}://{user}{'@' if user else ''}{url[found.end() :]}"
    return public, found[2] if user != found[2] else ""
