"""Captures the code of a run, and asks or warns the person about what is missing from it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from orchestrator.capture import patterns, snapshot
from orchestrator.capture.blobs import MAX_SNAPSHOT_BYTES
from orchestrator.capture.git import locate
from orchestrator.capture.snapshot import Snapshot
from orchestrator.capture.worktree import NoCommit
from orchestrator.cli.output import show
from orchestrator.errors import HomeUnusable, InvalidConfig, InvalidRepository, UsageError
from orchestrator.home import Home, cache_dir, default_home
from orchestrator.spec.texts import decoded

if TYPE_CHECKING:
    from orchestrator.capture.folder import Listing

_NO_REPOSITORY = "Could not find a git repository, so no user files will be available."
_MANY_FILES, _MANY_BYTES = 50_000, 256 << 20  # more of a folder without a repository is not sent without a question
_SHOWN_UNTRACKED = 10
_SHOWN = 5
_NAME_WIDTH = 200


class CodeOptions(NamedTuple):
    """The options that say which code a run gets, by their names on the command line.

    Attributes:
        submodules: send the files of submodules that are not here, too.
        no_code: send none.
        whole_folder: send a folder without a repository also if it is big, or the person's home folder.
        force: ask nothing.
        json_: standard output is JSON, so that notes go to standard error.
        no_project, group, extra: what of the project of the code to install.
        asides: files that only say what to cast; no run needs them.
        deps_from_env: the folder of an environment whose packages the run gets.
    """

    github_url: str | None = None
    github_ref: str | None = None
    commit_ref: str | None = None
    include_untracked: bool = False
    submodules: bool = False
    no_code: bool = False
    whole_folder: bool = False
    force: bool = False
    json_: bool = False
    no_project: bool | None = None
    group: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    asides: tuple[Path, ...] = ()
    deps_from_env: str | None = None


def capture(options: CodeOptions, url: str = "", ref: str = "") -> tuple[Snapshot | None, str]:
    """The code, and the text of its `.spellignore`.

    Args:
        url, ref: where a job file takes the code from; options win over it.
    """
    url, ref = options.github_url or url, options.github_ref or ref
    try:
        cwd = Path.cwd()
    except FileNotFoundError:
        raise UsageError("The current folder does not exist any more.", "Change into one that exists.") from None
    if url:
        if options.commit_ref:
            raise InvalidConfig(
                "Option --commit-ref names a commit of the local repository.", "With --github-url use --github-ref."
            )
        return _with_warnings(_whole(snapshot.of_url(url, ref, cache_dir() / "git"), options))
    if ref:
        raise InvalidConfig("Option --github-ref needs --github-url.")
    if options.no_code:
        return None, ""
    place = locate(cwd)
    if place is None:
        if options.commit_ref:
            words = f"--commit-ref {options.commit_ref}: the current folder is in no git repository."
            raise InvalidRepository(words, "Change into it, or name it: --github-url URL --github-ref REF")
        return _of_folder(cwd, options)
    if options.commit_ref:
        return _with_warnings(_whole(snapshot.of_commit(place, options.commit_ref), options))
    include = options.include_untracked or _configured("include_untracked")
    ignored = _read_spellignore(place.root)
    try:
        code = snapshot.of_working_tree(place, include_untracked=include, ignore=patterns.lines_of(ignored))
    except NoCommit:
        return _of_folder(place.root, options, place.subdir, has_git=True)
    if code.untracked:
        _go_on_without_untracked(code, place.root, options)
    if code.code.dirty:
        show.say("✨ Preparing uncommitted changes…", err=options.json_)
    return _with_warnings(_whole(code, options))[0], ignored


def _whole(code: Snapshot, options: CodeOptions) -> Snapshot:
    """The code with its submodules, if they are wanted."""
    if not code.modules or not (options.submodules or _configured("submodules")):
        return code
    from orchestrator.capture.submodules import with_submodules  # 1 ms: few repositories have any

    return with_submodules(code, cache_dir() / "git")


def _of_folder(
    root: Path, options: CodeOptions, subdir: bytes = b"", *, has_git: bool = False
) -> tuple[Snapshot | None, str]:
    """The code in a folder that is no repository, or one without commits, and the text of its `.spellignore`."""
    from orchestrator.capture.folder import look  # 1 ms: most code is in a repository

    ignored = _read_spellignore(root)
    home = default_home()
    is_project = has_git or not _is_above(root, Path.home(), home)
    if not is_project and not options.whole_folder:
        _go_on_without_code(root, options.force)
        return None, ignored
    rules = patterns.lines_of(ignored)
    listing = look(root, subdir, has_git=has_git, ignore=rules, without=[home], hidden=is_project)
    if secrets := _others(listing.secrets, root, options.asides):
        show.warn(
            f"Left out, as their names are those of secrets: {_names(secrets)}\n"
            "  Give a run their values with --env-file or --secret, or send them: !NAME in .spellignore"
        )
    if listing.special:
        show.warn(f"Left out, as they are no files: {_names(listing.special)}")
    if not listing.files:
        return None, ignored
    _go_on_with_size(listing, options)
    show.say(f"✨ Preparing folder {listing.root.name} ({_extent(listing)})…", err=options.json_)
    return _with_warnings(snapshot.of_folder(listing))[0], ignored


def _is_above(root: Path, *places: Path) -> bool:
    """Whether a folder is one of these, or has one of them in it and nobody's project: a home folder, `/`, `/home`."""
    here = os.path.realpath(root)
    person = os.path.realpath(places[0])
    return here in map(os.path.realpath, places) or here == "/" or person.startswith(f"{here}/")


def _names(names: Sequence[str]) -> str:
    return ", ".join(show.cut(name, _NAME_WIDTH) for name in names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)


def _extent(listing: Listing) -> str:
    return f"{show.count(len(listing.files), 'file')}, {show.size(listing.total_bytes)}"


def _go_on_with_size(listing: Listing, options: CodeOptions) -> None:
    """Ask before a big folder is sent.

    Raises:
        InvalidRepository: nobody can be asked.
    """
    if options.whole_folder or (len(listing.files) <= _MANY_FILES and listing.total_bytes <= _MANY_BYTES):
        return
    biggest = ", ".join(f"{show.cut(name, _NAME_WIDTH)} ({show.size(size)})" for size, name in listing.biggest(_SHOWN))
    text = f"Folder {listing.root.name} is big ({_extent(listing)}). The biggest in it: {biggest}."
    if not _may_ask(options.force):
        whole = "" if listing.total_bytes > MAX_SNAPSHOT_BYTES else ", or send all of it: --whole-folder"
        raise InvalidRepository(
            text,
            f"Name in .spellignore what the run does not need, upload data once and mount it (spell upload){whole}",
        )
    show.say(text)
    click.confirm("Send all of it? (.spellignore names what not to send)", default=False, abort=True)


def _with_warnings(code: Snapshot) -> tuple[Snapshot, str]:
    for warning in code.warnings:
        show.warn(warning)
    entry = next((entry for entry in code.manifest.entries if entry.path == ".spellignore"), None)
    if entry is None:
        return code, ""
    with code.open_blob(entry.digest) as file:
        return code, _patterns(file.read())


def _read_spellignore(place: Path) -> str:
    """The `.spellignore` of a folder, tracked by git or not."""
    try:
        return _patterns((place / ".spellignore").read_bytes())
    except FileNotFoundError:
        return ""


def _patterns(data: bytes) -> str:
    try:
        return decoded(data, ".spellignore")
    except InvalidConfig:
        return data.decode("utf-8", "replace")  # as git takes such a file


def _may_ask(force: bool) -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and not force


def _go_on_without_code(place: Path, force: bool) -> None:
    if _may_ask(force):
        click.confirm(f"{_NO_REPOSITORY} Continue anyway?", default=True, abort=True)
    else:
        show.warn(
            f"{_NO_REPOSITORY}\n"
            f"  {place} is no project: change into the folder of yours, or send all of this one: --whole-folder"
        )


def _go_on_without_untracked(code: Snapshot, root: Path, options: CodeOptions) -> None:
    names = [name for name in code.untracked if not name.endswith(".DS_Store")]
    names = _others(names, root, options.asides)
    if not names:
        return
    listed = "\n".join(f"  {show.cut(name, _NAME_WIDTH)}" for name in names[:_SHOWN_UNTRACKED])
    more = len(names) - _SHOWN_UNTRACKED
    listed += f"\n  … and {more} more" if more > 0 else ""
    repository = code.code.repository
    text = f"There are some untracked files in repo {repository}. They won't be available on this run.\n{listed}"
    if found := next(filter(patterns.is_secret, names), ""):
        text += f"\n  Keep {show.cut(found, _NAME_WIDTH)} out of git: give its values with spell secret set NAME and --secret NAME."
    if _may_ask(options.force):
        show.say(text)
        click.confirm("Continue the run anyway? (--include-untracked sends them)", default=True, abort=True)
    else:
        show.warn(f"{text}\n  Send them with --include-untracked, or `git add` them.")


def _others(names: Sequence[str], root: Path, asides: Sequence[Path]) -> list[str]:
    """The files that do not only say what to cast."""
    known = {os.path.realpath(path) for path in asides}
    return [name for name in names if not known or os.path.realpath(root / name) not in known]


def _configured(name: str) -> bool:
    """Whether the configuration has this switch on."""
    path = Home(default_home()).config
    try:
        text = path.read_text("utf-8")
        if name not in text:
            return False
        import tomllib  # 3 ms: longer than all else here, and most files do not say it

        return tomllib.loads(text).get(name) is True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HomeUnusable(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidConfig(f"{path}: {error}") from error
