"""The user's settings of pip and uv, as options and variables for uv.

uv reads its own files and `UV_…` variables, and nothing of pip's. The user's pip settings (index, extra index, find-links,
constraints, certificates, proxies) are translated for uv: https://docs.astral.sh/uv/pip/compatibility/
If the user has set uv's own setting too, that one wins. URLs are passed as variables, so that `ps` shows no password.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement

from orchestrator.environments.pip_conf import pip_settings
from orchestrator.environments.requirement_lines import needed
from orchestrator.spec.redaction import redacted
from orchestrator.spec.requirements import VARIABLE, filled, logical_lines
from orchestrator.spec.texts import text_of

# A setting of pip, and its equivalents for uv: variables, keys of uv.toml.
_UV_NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "index-url": (("UV_DEFAULT_INDEX", "UV_INDEX_URL"), ("index-url", "default-index")),
    "extra-index-url": (("UV_INDEX", "UV_EXTRA_INDEX_URL"), ("extra-index-url", "index")),
    "find-links": (("UV_FIND_LINKS",), ("find-links",)),
    "no-index": (("UV_NO_INDEX",), ("no-index",)),
    "constraint": (("UV_CONSTRAINT",), ("constraint-dependencies",)),
    "require-hashes": (("UV_REQUIRE_HASHES",), ("require-hashes",)),
    "pre": (("UV_PRERELEASE",), ("prerelease",)),
    "no-binary": (("UV_NO_BINARY", "UV_NO_BINARY_PACKAGE"), ("no-binary", "no-binary-package")),
    "only-binary": (("UV_NO_BUILD", "UV_NO_BUILD_PACKAGE"), ("only-binary", "no-build", "no-build-package")),
    "trusted-host": (("UV_INSECURE_HOST",), ("allow-insecure-host",)),
    "timeout": (("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "HTTP_TIMEOUT"), ()),
    "index-strategy": (("UV_INDEX_STRATEGY",), ("index-strategy",)),
    "link-mode": (("UV_LINK_MODE",), ("link-mode",)),
    "torch-backend": (("UV_TORCH_BACKEND",), ("torch-backend",)),
}
# The server's Python and project are not the run's; we make byte code ourselves; colours are for terminals.
_DROPPED = frozenset(
    {
        *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP"),
        *("__PYVENV_LAUNCHER__", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY"),
        *("UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_COMPILE_BYTECODE", "UV_VENV_CLEAR", "FORCE_COLOR", "CLICOLOR_FORCE"),
    }
)
# Variables of uv that decide which packages are chosen, and so are part of the key.
_CHOOSING = (
    *("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX_STRATEGY"),
    *("UV_RESOLUTION", "UV_PRERELEASE", "UV_FORK_STRATEGY", "UV_EXCLUDE_NEWER", "UV_NO_BINARY"),
    *("UV_NO_BINARY_PACKAGE", "UV_NO_BUILD", "UV_NO_BUILD_PACKAGE", "UV_TORCH_BACKEND", "UV_NO_SOURCES"),
    *("UV_REQUIRE_HASHES", "UV_NO_BUILD_ISOLATION", "UV_VENV_SEED"),
)
FILE_LISTS = ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_BUILD_CONSTRAINT", "UV_EXCLUDE")
_PLACES = ("index-url", "extra-index-url", "find-links", "no-index")
"""The settings that say where packages come from."""
_PATHS = ("UV_CACHE_DIR", "UV_CONFIG_FILE", "UV_PYTHON_INSTALL_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PACKAGES = (".whl", ".zip", ".tar.gz", ".tar.bz2", ".tar.xz", ".tgz")
_HOW_KNOWN = "set it by -e, or name it in pass_env of the configuration."
_TRUE = frozenset({"y", "yes", "t", "true", "on", "1"})


@dataclass(frozen=True, slots=True)
class UvSettings:
    """Variables and arguments of uv for one user.

    Attributes:
        env: all its environment variables; hidden, as they hold secrets.
        args: arguments of `uv pip install`.
        content: the settings that decide which packages are chosen, for the key; may hold credentials.
        notes: remarks for the build log.
        find_links: the local folders among the find-links.
        asked: local paths that requirement files name as index or find-links, and the user's settings do not.
        named: further variables for uv, which lines of requirement files name; hidden. The run sets them, so they are never
            taken as settings, and a container does not see the files that they name.
    """

    env: dict[str, str] = field(repr=False)
    args: tuple[str, ...]
    content: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...]
    find_links: tuple[Path, ...]
    asked: frozenset[Path] = frozenset()
    named: dict[str, str] = field(default_factory=dict, repr=False)


def uv_settings(
    env: Mapping[str, str],
    folder: Path,
    options: Mapping[str, Sequence[str]],
    variables: Mapping[str, str] | None = None,
    named: Iterable[str] = (),
    pinned: Mapping[str, Requirement] | None = None,
    torch_backend: str = "",
) -> UvSettings:
    """Return the settings for uv, made from the user's settings of pip and uv.

    Args:
        env: the user's environment variables.
        folder: the folder from which relative paths in them start.
        options: the options in requirement files, by pip's names; they win over all settings.
        variables: the values of `${NAME}` in requirement files.
        named: the names of these variables in other lines: uv replaces them itself, and must not know others.
        pinned: the requirements in files, by the names of their packages.
        torch_backend: see `torch_backend`; not used where a setting says where packages come from.

    Raises:
        InvalidConfig: a constraint excludes a requirement with a hash.
    """
    known = variables or {}
    translator = _Translator({name: value for name, value in env.items() if name not in named}, folder, options, known)
    translator.translate(pinned or {}, torch_backend)
    return UvSettings(
        translator.env,
        tuple(translator.args),
        tuple(translator.content()),
        tuple(redacted(note) for note in translator.notes),
        tuple(translator.find_links),
        translator.asked(),
        {name: known[name] for name in named if name in known},
    )


class _Translator:
    def __init__(
        self,
        env: Mapping[str, str],
        folder: Path,
        options: Mapping[str, Sequence[str]],
        variables: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._pip, self.notes = pip_settings(env)
        self._options = {name: [filled(value, variables) for value in values] for name, values in options.items()}
        texts = [value for values in self._options.values() for value in values]
        unknown = [name for text in texts for name in VARIABLE.findall(text)]
        self.notes += [f"${{{name}}} in a requirements file was not replaced: {_HOW_KNOWN}" for name in unknown]
        self.env = {name: value for name, value in env.items() if name not in _DROPPED}
        self.args: list[str] = []
        self.find_links: list[Path] = []
        self._constraints: list[Path] = []
        for name in _PATHS:
            if self.env.get(name):
                self.env[name] = str(self._absolute(self.env[name]))
        self._uv_keys, self._uv_texts = _uv_files(self.env)

    def translate(self, pinned: Mapping[str, Requirement], torch_backend: str) -> None:
        self.env |= {"UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
        self._indexes()
        self._links()
        if self._flag("require-hashes") or self.env.get("UV_REQUIRE_HASHES", "").lower() in _TRUE:
            self._require_hashes(pinned)
        else:
            self._constraint_files()
        self._choices()
        self._connection()
        says_where = any(self._list(name) or self._given_to_uv(name) for name in _PLACES)
        if torch_backend and not says_where and not self._given_to_uv("torch-backend"):
            self.env["UV_TORCH_BACKEND"] = torch_backend

    def content(self) -> list[str]:
        found = [f"{name}={self.env[name]}" for name in _CHOOSING if self.env.get(name)]
        found += [argument for argument in self.args if argument not in map(str, self._constraints)]
        found += [f"{place.name} {_listing(place)}" for place in self.find_links]
        listed = [Path(path) for name in FILE_LISTS for path in self.env.get(name, "").split()]
        texts = [path.read_bytes() if path.is_file() else b"" for path in (*self._constraints, *listed)]
        return found + [hashlib.sha256(text).hexdigest() for text in (*texts, *self._uv_texts)]

    def asked(self) -> frozenset[Path]:
        names = ("find-links", "index-url", "extra-index-url")
        mine = {self._place(value) for name in names for value in self._pip.get(name, "").split()}
        return frozenset(self._place(value) for name in names for value in self._options.get(name, ())) - mine

    def _place(self, value: str) -> Path:
        return Path(os.path.normpath(path_of(self._url(value))))

    def _absolute(self, path: str) -> Path:
        return Path(os.path.normpath(self._folder / Path(path).expanduser()))

    def _given_to_uv(self, name: str) -> bool:
        variables, keys = _UV_NAMES[name]
        return any(self.env.get(variable) for variable in variables) or any(key in self._uv_keys for key in keys)

    def _of_pip(self, name: str) -> str:
        """Return a setting of pip; "" if the user has set uv's equivalent."""
        return "" if self._given_to_uv(name) else self._pip.get(name, "")

    def _list(self, name: str) -> list[str]:
        return list(dict.fromkeys((*self._options.get(name, ()), *self._of_pip(name).split())))

    def _flag(self, name: str) -> bool:
        return name in self._options or self._of_pip(name).lower() in _TRUE

    def _indexes(self) -> None:
        extra_known = self._given_to_uv("extra-index-url") or self._given_to_uv("index-url")
        index = (self._options.get("index-url") or [self._of_pip("index-url")])[-1]
        if index:
            self.env["UV_DEFAULT_INDEX"] = self._url(index)
        extras = [url for url in map(self._url, self._list("extra-index-url")) if self._is_there(url)]
        if extras:
            self.env["UV_INDEX"] = " ".join([*extras, *self.env.get("UV_INDEX", "").split()])
        # pip takes the best version of all indexes; uv, by default, the first index that has the package.
        if extras and not extra_known and not self._given_to_uv("index-strategy"):
            self.env["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        if self._flag("no-index"):
            self.args.append("--no-index")

    def _url(self, place: str) -> str:
        return place if "://" in place else self._absolute(place).as_uri()

    def _is_there(self, url: str) -> bool:
        """Whether a local index or folder exists. pip only warns of a missing one, uv would fail."""
        if not url.startswith("file:") or Path(path_of(url)).exists():
            return True
        self.notes.append(f"{url} is ignored: the folder does not exist.")
        return False

    def _links(self) -> None:
        own = [place for place in self.env.get("UV_FIND_LINKS", "").split(",") if place.strip()]
        wanted = [url for url in map(self._url, self._list("find-links")) if self._is_there(url)]
        places = [path_of(url) if Path(path_of(url)).is_dir() else url for url in wanted]
        places += [str(self._absolute(place)) if "://" not in place else place for place in own]
        if places:
            self.env["UV_FIND_LINKS"] = ",".join(places)
        self.find_links = [Path(path_of(place)) for place in places if Path(path_of(place)).is_dir()]

    def _constraint_files(self) -> None:
        for place in self._list("constraint"):
            path = place if "://" in place else str(self._absolute(place))
            self._constraints += [] if "://" in path else [Path(path)]
            self.args += ["--constraint", path]
        for name in FILE_LISTS:
            if self.env.get(name):
                places = self.env[name].split()
                self.env[name] = " ".join(str(self._absolute(p)) if "://" not in p else p for p in places)

    def _require_hashes(self, pinned: Mapping[str, Requirement]) -> None:
        """Leave out all constraints, of which uv refuses most beside required hashes. Every version is pinned anyway."""
        self.args.append("--require-hashes")
        places = [*self._list("constraint"), *self.env.pop("UV_CONSTRAINT", "").split()]
        for path in [self._absolute(place) for place in places if "://" not in place]:
            if path.is_file():
                list(needed((line.text for line in logical_lines(text_of(path))), pinned, str(path)))
        if places:
            self.notes.append(f"Constraints are not used, as hashes pin every version: {', '.join(places)}")

    def _choices(self) -> None:
        if self._flag("pre"):
            self.env["UV_PRERELEASE"] = "allow"
        for name in ("no-binary", "only-binary"):
            for package in self._of_pip(name).replace(",", " ").split():
                self.args += [f"--{name}", package]

    def _connection(self) -> None:
        hosts = [*self._list("trusted-host"), *self.env.get("UV_INSECURE_HOST", "").split()]
        if hosts:
            self.env["UV_INSECURE_HOST"] = " ".join(hosts)
        certificates = self._pip.get("cert") or self.env.get("SSL_CERT_FILE") or self.env.get("REQUESTS_CA_BUNDLE")
        if certificates:
            path = self._absolute(certificates)
            self.env["SSL_CERT_DIR" if path.is_dir() else "SSL_CERT_FILE"] = str(path)
        if client := self._pip.get("client-cert"):
            self.env["SSL_CLIENT_CERT"] = str(self._absolute(client))
        if proxy := self._pip.get("proxy"):
            url = proxy if "://" in proxy else f"http://{proxy}"
            self.env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)
        if self._of_pip("timeout").isdigit():
            self.env["UV_HTTP_TIMEOUT"] = self._of_pip("timeout")


def path_of(place: str) -> str:
    """Return a path, or the path in a `file:` URL."""
    return unquote(urlsplit(place).path) if place.startswith("file:") else place


def packages_in(folder: Path) -> dict[str, str]:
    """Return the wheels and source packages in a folder with size and time; empty when it cannot be read."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_PACKAGES) and entry.is_file():
                    info = entry.stat()
                    found[entry.name] = f"{info.st_size} {info.st_mtime_ns}"
    except OSError:
        return {}
    return found


def _listing(folder: Path) -> str:
    """List the packages in a folder by size and time: hashing gigabytes of wheels is too slow for every run."""
    found = sorted(f"{name} {version}" for name, version in packages_in(folder).items())
    return hashlib.sha256("\n".join(found).encode(errors="surrogateescape")).hexdigest()


def _uv_files(env: Mapping[str, str]) -> tuple[set[str], list[bytes]]:
    """Return the keys that uv's configuration files set, and the contents of the files."""
    keys: set[str] = set()
    texts = []
    for path in uv_places(env):
        try:
            texts.append(path.read_bytes())
            table: dict[str, Any] = tomllib.loads(texts[-1].decode())
        except (OSError, ValueError):
            continue  # missing, or wrong, which uv itself reports
        keys |= set(table) | set(table.get("pip", {}))
        if any(isinstance(index, dict) and index.get("default") for index in table.get("index", ())):
            keys.add("default-index")
    return keys, texts


def uv_places(env: Mapping[str, str]) -> list[Path]:
    """Return the paths where uv looks for its settings, whether they exist or not."""
    if env.get("UV_CONFIG_FILE"):
        return [Path(env["UV_CONFIG_FILE"])]
    if env.get("UV_NO_CONFIG", "").lower() in _TRUE:
        return []
    home = Path(env.get("HOME") or Path.home())
    folders = [Path(folder) for folder in (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep) if folder]
    places = [Path(env.get("XDG_CONFIG_HOME") or home / ".config"), *folders, Path("/etc")]
    return [folder / "uv" / "uv.toml" for folder in places]


def link_mode(settings: UvSettings) -> str:
    """Return uv's link mode for getting packages from its cache into an environment; "" for the user's setting or uv's."""
    keys, _ = _uv_files(settings.env)
    chosen = settings.env.get("UV_LINK_MODE") or "link-mode" in keys or sys.platform == "darwin"
    return "" if chosen else "hardlink"
