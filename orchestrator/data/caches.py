"""Caches that live on: what the tools in a run download or prepare, later runs find, in containers too.

store/caches/PERSON/huggingface/…    one folder for each tool of `TOOLS`, named to it by its variable

Only runs write here. Each tool publishes by a rename and locks by flock(2), which holds across the mounts of one kernel, so
runs that work side by side share them, and what a killed run left half-written is taken for nothing. What a tool keeps there
beside downloads, and others must not have or cannot share, is led elsewhere (`Tool.beside`).

An *item* is what is removed as a whole: a model of the hub, a checkpoint of torch, the rest of a tool. Its last use is the
latest time of its files: the kernel sets the time of access, once a day at least (`relatime`).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from orchestrator.config import CachesConfig
from orchestrator.content.files import remove_tree, sizes_below
from orchestrator.errors import InvalidConfig, SaveFailed
from orchestrator.home import Home
from orchestrator.records.gc import RemovedRecord

PERSON = "owner"
"""Whose runs all are, until a home has several people; as `service.access.OWNER`."""
_RELATIME_S = 24 * 3600.0 + 60.0  # the kernel may leave a time of access that is so old
_NO_ATIME = 1024  # ST_NOATIME of <sys/statvfs.h>, which Python does not name everywhere


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that keeps a cache.

    Attributes:
        variable: says to it where its cache is.
        folder: the name of its folder.
        beside: variables that go with it; "~" is the HOME of the run.
        read_only: further ones, of a run that may only read; None if the tool has no use for a cache that it cannot write.
    """

    variable: str
    folder: str
    beside: Mapping[str, str] = field(default_factory=dict)
    read_only: Mapping[str, str] | None = field(default_factory=dict)


_OF_HUGGING_FACE = "~/.cache/huggingface"
TOOLS = (
    Tool(
        "HF_HOME",
        "huggingface",
        {"HF_TOKEN_PATH": f"{_OF_HUGGING_FACE}/token"},  # a login of one run is not one of all
        {
            "HF_DATASETS_CACHE": f"{_OF_HUGGING_FACE}/datasets",  # it locks what it reads
            "HF_MODULES_CACHE": f"{_OF_HUGGING_FACE}/modules",
            "HF_XET_CACHE": f"{_OF_HUGGING_FACE}/xet",
        },
    ),
    Tool("TORCH_HOME", "torch"),
    Tool("NLTK_DATA", "nltk"),
    Tool("SCIKIT_LEARN_DATA", "scikit_learn"),
    Tool("WANDB_CACHE_DIR", "wandb", read_only=None),
    Tool("PIP_CACHE_DIR", "pip", read_only=None),
    # a link would let what a run does to its own packages into the cache
    Tool("UV_CACHE_DIR", "uv", {"UV_LINK_MODE": "copy"}, None),
)
_OPENED = frozenset(
    {"huggingface", "huggingface/hub", "huggingface/datasets", "torch", "torch/hub", "torch/hub/checkpoints"}
    | {f"nltk/{kind}" for kind in ("corpora", "models", "taggers", "tokenizers")}
)
"""Folders whose members are items, beside those of every tool."""

_WHOLE = frozenset({"uv"})
"""Tools whose whole cache is one item: parts of it name others, and trust that they are there."""


class CacheFolder(NamedTuple):
    """A folder for caches.

    Attributes:
        source: where it lies.
        name: what it is called among others: "" for the shared one, else the variable that names it to a tool.
    """

    source: Path
    name: str = ""


class Caches(NamedTuple):
    """The caches that a run has.

    Attributes:
        folders: what it sees.
        variables: for each variable, the folder by its name, and the path in it.
        is_read_only: whether it may only read.
    """

    folders: tuple[CacheFolder, ...] = ()
    variables: Mapping[str, tuple[str, str]] = {}
    is_read_only: bool = False


def check(config: CachesConfig, asked: str) -> None:
    """Check that the folders of this machine that the configuration names exist, as far as a run gets them.

    Raises:
        InvalidConfig: one does not.
    """
    for variable, written in config.folders.items() if config.is_on(asked) else ():
        place = os.path.expanduser(written)
        if os.path.isabs(place) and not os.path.isdir(place):
            words = f"The folder {place} for {variable}, of [caches.folders] in config.toml, does not exist."
            raise InvalidConfig(words, "Make it, or cast without caches: --caches off")


def of_run(home: Home, config: CachesConfig, asked: str) -> Caches:
    """Return the caches of a run, and make their folders.

    Args:
        asked: by its spec: `on`, `read-only`, `off`, or "" for the configuration.

    Raises:
        InvalidConfig: as `check`.
        OSError: when a folder cannot be made.
    """
    if not config.is_on(asked):
        return Caches()
    check(config, asked)
    is_read_only = asked == "read-only"
    kept = {tool.variable: tool.folder for tool in TOOLS if not is_read_only or tool.read_only is not None}
    shared, folders, variables = home.caches / PERSON, [], {}
    for variable, written in (kept | config.folders).items():
        if os.path.isabs(place := os.path.expanduser(written)):
            folders.append(CacheFolder(Path(place), variable))
            variables[variable] = (variable, "")
        elif written:
            _make(shared, written)  # NLTK takes no folder that is missing
            variables[variable] = ("", written)
    return Caches((CacheFolder(shared), *folders), variables, is_read_only)


def _make(shared: Path, below: str) -> None:
    """Make a folder of the shared one. What an earlier run has put in its place goes: a link would lead later runs elsewhere."""
    place = shared
    place.mkdir(parents=True, exist_ok=True)
    for name in below.split("/"):
        place /= name
        if place.is_symlink() or place.is_file():
            place.unlink(missing_ok=True)
        place.mkdir(exist_ok=True)


def variables_of(caches: Caches, seen_at: Mapping[str, str], home: str, taken: Collection[str]) -> dict[str, str]:
    """Return the variables that lead tools to their caches.

    Args:
        seen_at: where the run sees each folder, by its name.
        home: the HOME of the run.
        taken: names of variables that have a value of the person, the server or the image.
    """
    found: dict[str, str] = {}
    for variable, (folder, path) in caches.variables.items():
        if variable not in taken:
            found[variable] = f"{seen_at[folder]}/{path}".rstrip("/")
    for tool in TOOLS:
        if tool.variable in found:
            more = {**tool.beside, **((tool.read_only or {}) if caches.is_read_only else {})}
            found |= {name: text.replace("~", home or "~") for name, text in more.items() if name not in taken}
    return found


# -- size and removal -------------------------------------------------------------------------------------------------


class Item(NamedTuple):
    """A part of a cache that is removed as a whole; `used_at` is in seconds since the epoch."""

    path: Path
    size_bytes: int
    used_at: float


def items(home: Home) -> list[Item]:
    """Return all items of all people, the last used first."""
    found = [_item(path) for person in _members(home.caches) for path in _below(person, "")]
    return sorted(
        (item for item in found if item.used_at), key=lambda item: -item.used_at
    )  # an empty folder has no use


def _below(root: Path, inside: str) -> Iterator[Path]:
    for path in _members(root / inside):
        below = f"{inside}/{path.name}".lstrip("/")
        if (below in _OPENED or (not inside and below not in _WHOLE)) and path.is_dir() and not path.is_symlink():
            yield from _below(root, below)
        else:
            yield path


def _members(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in folder.iterdir() if not path.name.startswith(".")]  # hidden: locks and marks of tools
    return []


def _item(path: Path) -> Item:
    files: list[os.stat_result] = []
    with contextlib.suppress(OSError):
        files = list(sizes_below(path)) if path.is_dir() and not path.is_symlink() else [path.lstat()]
    size_bytes = sum(info.st_blocks * 512 for info in files)
    return Item(path, size_bytes, max((max(info.st_atime, info.st_mtime) for info in files), default=0.0))


def size_bytes(home: Home) -> int:
    """Return the disk space that all caches of the home take."""
    return sum(info.st_blocks * 512 for info in sizes_below(home.caches))


def gc(
    home: Home, before: float, keep_bytes: int | None, busy_since: float | None, *, dry_run: bool
) -> list[RemovedRecord]:
    """Remove what was not used since a moment, and never what an active run may use.

    Args:
        before: seconds since the epoch.
        keep_bytes: then also remove the least recently used, until the rest takes no more. None for no limit.
        busy_since: when the first of the active runs was cast; None if there is none.
        dry_run: only report.
    """
    bound = _in_use_since(home, busy_since)
    removed, kept_bytes = [], 0
    for item in items(home):
        kept_bytes += item.size_bytes
        is_too_much = keep_bytes is not None and kept_bytes > keep_bytes
        if item.used_at >= bound or (item.used_at > before and not is_too_much):
            continue
        if dry_run or _remove(home, item):
            kept_bytes -= item.size_bytes
            name = (
                item.path.relative_to(home.caches / PERSON)
                if item.path.is_relative_to(home.caches / PERSON)
                else item.path
            )
            removed.append(RemovedRecord(f"cache {name}", item.size_bytes, "cache"))
    return removed


def _in_use_since(home: Home, busy_since: float | None) -> float:
    """Return since when what was used may be in use now; infinity if nothing is."""
    if busy_since is None:
        return float("inf")
    if os.statvfs(home.caches).f_flag & _NO_ATIME:
        return float("-inf")  # nobody knows what the active runs use
    return busy_since - _RELATIME_S


def _remove(home: Home, item: Item) -> bool:
    """Remove an item, unless it was used since it was looked at."""
    if _item(item.path).used_at > item.used_at:
        return False
    aside = home.removed / f"cache-{uuid.uuid4().hex}"
    try:
        with _folder_of(home, item) as folder:
            os.rename(item.path.name, aside, src_dir_fd=folder)
        remove_tree(aside)
    except OSError:  # a run has removed it, or put something else in the place of its folders
        return False
    except SaveFailed:  # the next server goes on
        pass
    return True


@contextlib.contextmanager
def _folder_of(home: Home, item: Item) -> Iterator[int]:
    """Open the folder that an item lies in, through no link: a run may put one in the place of any part at any time."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(home.caches, flags)
    try:
        for name in item.path.relative_to(home.caches).parts[:-1]:
            inner = os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)
