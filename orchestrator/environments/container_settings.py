"""The part of the user's settings, and of this machine's files, that uv gets in a container.

uv gets the variables about itself, certificates and proxies, and no other variable of the server. The files and folders
that they name are mounted read-only at the same paths. A requirements file is not trusted, as another person may have
written it: of a folder that it names, a build sees only the packages. Of a .netrc it sees only the entries of the hosts
that its indexes and requirements name.
"""

from __future__ import annotations

import netrc
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.environments.containers import Mount
from orchestrator.environments.orphans import CONTAINERS
from orchestrator.environments.request import ParsedRequest, is_package
from orchestrator.environments.settings import FILE_LISTS, UvSettings, packages_in, path_of, uv_places
from orchestrator.environments.uv import uv_executable
from orchestrator.environments.uv_cache import CACHE
from orchestrator.errors import BuildFailed
from orchestrator.spec.redaction import redacted

UV = "/opt/spell/uv"
_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED = re.compile(
    r"UV_(?!PYTHON_|TOOL_|PUBLISH_|INSTALL|ENV_FILE|CACHE_DIR|LINK_MODE)|NO_COLOR\Z|HTTP_TIMEOUT\Z"
    r"|(?i:(https?|all|no)_proxy)\Z|SSL_|REQUESTS_CA_BUNDLE\Z|CURL_CA_BUNDLE\Z|GIT_SSL_CAINFO\Z|NETRC\Z"
)
_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_FILES = ("SSL_CERT_FILE", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
_HOST = re.compile(r"://(?:[^/@\s]*@)?([^/:@\s,\]?#\"']+)")
_LOOPBACK = re.compile(r"\w://([^/@\s]*@)?(localhost|127\.[\d.]+|\[::1\])(?=[:/\s]|$)")


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """Variables of uv in a container, and what the container sees.

    Attributes:
        env: the variables; hidden, as they hold secrets.
        mounts: files and folders of this machine.
        notes: remarks for the build log.
    """

    env: dict[str, str] = field(repr=False)
    mounts: tuple[Mount, ...]
    notes: tuple[str, ...]


def container_settings(
    settings: UvSettings, asked: ParsedRequest, environments: Path, home: Path, path: str
) -> ContainerSettings:
    """Return the settings of one build in a container.

    Raises:
        BuildFailed: when a container must not see what the settings name.

    Args:
        settings: the user's.
        asked: the request; local files in it are mounted too.
        environments: the folder of all environments.
        home: an empty folder that the container sees, for uv's HOME.
        path: the image's PATH.
    """
    shared = environments / CONTAINERS
    env = {name: value for name, value in settings.env.items() if _PASSED.match(name)} | _places(settings.env)
    whole, unread = env.pop("NETRC", ""), []
    if whole:
        try:
            env |= _netrc(Path(whole), _hosts(env, settings, asked), home)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
            unread.append(f"{whole} cannot be read, so the container gets nothing of it: {error}")
    named = [place for place in dict.fromkeys(_named(env, settings, asked)) if place.is_absolute()]
    there = [place for place in named if place.exists()]
    notes = unread + [
        f"{place} does not exist, so the container cannot see it" for place in named if place not in there
    ]
    notes += [
        redacted(f"{name} names this machine ({found[0]}), which a container cannot reach under that name")
        for name, value in env.items()
        if (found := _LOOPBACK.search(value))
    ]
    env |= {
        "HOME": str(home),
        "PATH": path or _USUAL_PATH,
        "UV_CACHE_DIR": str(shared / CACHE),
        "UV_LINK_MODE": "hardlink",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    mounts = [Mount(shared, writable=True), Mount(Path(uv_executable()), target=UV)]
    return ContainerSettings(settings.named | env, (*mounts, *map(Mount, _outermost(there, shared))), tuple(notes))


def _places(env: Mapping[str, str]) -> dict[str, str]:
    """Return variables that name the user's files, which uv would look for in its HOME: the container has another one."""
    home = Path(env.get("HOME") or Path.home())
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    found = {name: env[name] for name in ("XDG_CONFIG_DIRS",) if env.get(name)}
    if (config / "uv" / "uv.toml").exists():
        found["XDG_CONFIG_HOME"] = str(config)
    for name, place in (("NETRC", home / ".netrc"), ("UV_CREDENTIALS_DIR", data / "uv" / "credentials")):
        if not env.get(name) and place.exists():
            found[name] = str(place)
    return found


def _hosts(env: Mapping[str, str], settings: UvSettings, asked: ParsedRequest) -> set[str]:
    """Return the hosts that settings and requirements name."""
    lines = [*asked.lines, *(line for file in asked.files for line in file.lines)]
    texts = [*(env.get(name, "") for name in (*_INDEXES, *FILE_LISTS)), *settings.args]
    texts += [line for line in lines if isinstance(line, str)]
    for file in uv_places(settings.env):
        with suppress(OSError, UnicodeDecodeError):
            texts.append(file.read_text())
    return {host.lower() for text in texts for host in _HOST.findall(text)}


def _netrc(whole: Path, hosts: set[str], home: Path) -> dict[str, str]:
    """Copy the entries of these hosts into a new .netrc. Returns the variable that names the new file.

    Raises:
        OSError, NetrcParseError, UnicodeDecodeError: when it cannot be read.

    Format: https://www.gnu.org/software/inetutils/manual/html_node/The-_002enetrc-file.html
    """
    lines = []
    for host, (login, _, password) in netrc.netrc(str(whole)).hosts.items():
        if host.lower() in hosts:
            words = {"machine": host, "login": login, "password": password}
            lines.append(" ".join(f"{name} {_quoted(word)}" for name, word in words.items() if word) + "\n")
    if not lines:
        return {}
    path = home / ".netrc"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(lines)
    return {"NETRC": str(path)}


def _quoted(word: str) -> str:
    """Quote a word for a .netrc."""
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"' if re.search(r'[\s"\\#]', word) else word


def _named(env: Mapping[str, str], settings: UvSettings, asked: ParsedRequest) -> Iterator[Path]:
    """Yield the files and folders of this machine that a build needs, whether they exist or not."""
    yield from (local.path for local in asked.locals() if not local.path.is_dir())  # folders are copied and built
    for folder in settings.find_links:
        if folder in settings.asked:
            yield from (folder / name for name in packages_in(folder) if is_package(folder / name))
            continue
        yield folder
        yield from _linked(folder / name for name in packages_in(folder))
    for name in _INDEXES:
        for place in re.split(r"[\s,]+", env.get(name, "")):
            url = place.rpartition("=")[2] if "=" in place.partition(":")[0] else place
            if url.startswith("file:"):
                path = Path(os.path.normpath(path_of(url)))
                if path in settings.asked:
                    raise BuildFailed(
                        f"A requirements file names {path} as an index, but a build in a container cannot see this folder.",
                        "Put it into your pip or uv settings, or name a folder of wheels by --find-links.",
                    )
                yield _index(path)
    pairs = zip(settings.args, settings.args[1:], strict=False)
    texts = [value for option, value in pairs if option == "--constraint"]
    texts += [value for name in FILE_LISTS for value in env.get(name, "").split()]
    texts += [env[name] for name in _FILES if env.get(name)]
    yield from (Path(text) for text in texts if "://" not in text)
    for text in filter(None, env.get("SSL_CERT_DIR", "").split(os.pathsep)):
        yield Path(text)
        yield from (link.parent for link in _linked(Path(text).glob("*")))
    if env.get("UV_CREDENTIALS_DIR"):
        yield Path(env["UV_CREDENTIALS_DIR"])
    for file in uv_places(settings.env):
        if file.is_file():
            yield file
            yield from _in_settings(file)


def _index(folder: Path) -> Path:
    """Return the folder to mount for an index: its pages may name files beside it, as `simple/` does in `files/`."""
    return folder.parent if folder.parent != Path(folder.root) else folder


def _linked(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the targets of the links among these, if they are in other folders."""
    for path in paths:
        if path.is_symlink():
            end = Path(os.path.normpath(path.parent / path.readlink()))
            if end.parent != path.parent and end.exists():
                yield end


def _in_settings(file: Path) -> Iterator[Path]:
    """Yield the existing files and folders that a uv.toml names."""
    with suppress(OSError, ValueError):  # uv itself reports errors in it
        for text in _texts(tomllib.loads(file.read_text())):
            place = path_of(text) if text.startswith("file:") else text
            path = file.parent / place
            if "/" in place and "://" not in place and path.exists():
                yield Path(os.path.normpath(path))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _outermost(places: list[Path], shared: Path) -> list[Path]:
    """Return the places without those inside another one, or inside the folder that is mounted anyway."""
    whole = {shared, *(place for place in places if place.is_dir())}
    return [place for place in places if whole.isdisjoint(place.parents) and place != shared]
