"""Environments of images: built and compiled by the real uv in containers of a real engine, never run on this machine."""

from __future__ import annotations

import functools
import http.server
import io
import ipaddress
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import DEADLINE_S, wait_for
from engines import TEST_IMAGE, containers_of, engine_api, need_engine
from wheels import SlowProject, make_index, make_wheel

from orchestrator.engine import Engine, EngineError
from orchestrator.environments import (
    Base,
    BuildCancelled,
    Container,
    Environment,
    EnvironmentRequest,
    Environments,
    Host,
    uv_cache,
)
from orchestrator.environments.container_settings import ContainerSettings, container_settings
from orchestrator.environments.containers import Mount, new_name
from orchestrator.environments.request import read
from orchestrator.environments.settings import uv_settings
from orchestrator.errors import BuildFailed, DiskFull
from orchestrator.home import Home
from orchestrator.spec.run import RequirementFile

pytestmark = pytest.mark.engine

SECRET = "s3cr3t"
PYTHON = "/opt/only-in-the-image/python3"
PATH = "/usr/local/bin:/usr/bin:/bin"
PLACE = "/opt/spell/environment"
STRANGER = "12345:12345"


def never() -> bool:
    return False


def pip(*lines: str) -> EnvironmentRequest:
    return EnvironmentRequest("", lines, ())


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The test image, its Python under a name that this machine does not have."""
    need_engine()
    api = engine_api()
    script = f"mkdir {Path(PYTHON).parent} && ln -s /usr/bin/python3 {PYTHON}"
    container = api.create_container(TEST_IMAGE, ["sh", "-c", script])["Id"]
    try:
        api.start(container)
        assert api.wait(container)["StatusCode"] == 0
        made = str(api.commit(container)["Id"])
    finally:
        api.remove_container(container, force=True)
    yield made
    api.remove_image(made, force=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.create()
    yield home
    for container in containers_of(home):
        engine_api().remove_container(container["Id"], force=True)


@pytest.fixture
def engine(home: Home) -> Engine:
    need_engine()
    return Engine(home)


@pytest.fixture
def base(engine: Engine, image: str) -> Base:
    return Base(Container(engine, image), image, PYTHON, PATH)


@pytest.fixture
def variables() -> dict[str, str]:
    """The user's variables, with nothing of this machine's own settings for pip and uv."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "UV_HTTP_RETRIES": "0"}


@pytest.fixture
def environments(home: Home, variables: dict[str, str], engine: Engine) -> Environments:
    return Environments(home, variables, engine)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "records" / "build.log"


@pytest.fixture
def slow(home: Home) -> SlowProject:
    """Lies where the container can write to, so that it can say how far it is."""
    return SlowProject(home.environments / ".containers" / "slow")


def left(home: Home) -> list[str]:
    """What builds have left behind."""
    kept = (".containers", ".find-links", ".uv-cache", "uv-cache", "slow")
    places = (home.environments, home.environments / ".containers")
    names = [path.name for place in places if place.exists() for path in place.iterdir()]
    return [name for name in names if name not in kept and (name.startswith(".") or len(name) != 32)]


def run(environment: Environment, *command: str, user: str = "") -> str:
    """What a command says that sees the environment as a run does."""
    api = engine_api()
    mount = {"Type": "bind", "Source": str(environment.path), "Target": PLACE, "ReadOnly": True}
    container = api.create_container(
        environment.image, command, user=user, host_config=api.create_host_config(mounts=[mount], network_mode="none")
    )["Id"]
    try:
        api.start(container)
        code = api.wait(container)["StatusCode"]
        said = api.logs(container).decode().strip()
        assert code == 0, said
        return str(said)
    finally:
        api.remove_container(container, force=True)


def python(environment: Environment, code: str) -> str:
    return run(environment, f"{PLACE}/bin/python", "-I", "-c", code)


# -- what is built ----------------------------------------------------------------------------------------------------


def test_wheel(environments: Environments, home: Home, base: Base, tmp_path: Path, log: Path) -> None:
    """Linked from uv's cache, ours, and it runs read-only at another path, as any user."""
    wheel = make_wheel(tmp_path / "elsewhere", "tiny")
    built = environments.ensure(pip(str(wheel)), log, never, base)
    assert (built.packages, built.image, built.compiled) == (("tiny==1.0",), base.image, False)
    assert environments.get(built.key) == built
    assert not (built.path / "bin" / "python").exists(), "the image's Python is not here"
    assert python(built, "import sys, tiny; print(sys.prefix, tiny.VERSION)") == f"{PLACE} 1.0"
    for user in ("", STRANGER):
        assert run(built, f"{PLACE}/bin/tiny", user=user) == "tiny"
    files = [path for path in built.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.lstat().st_uid for path in built.path.rglob("*")} == {os.getuid()}
    assert {path.name for path in files if path.stat().st_nlink > 1} >= {"tiny.py", "METADATA"}
    cache = home.environments / ".containers" / "uv-cache"
    assert any(path.samefile(built.path / "lib/python3.11/site-packages/tiny.py") for path in cache.rglob("tiny.py"))
    assert all(b".building-" not in path.read_bytes() for path in files if path.parent.name == "bin")
    assert left(home) == containers_of(home) == []


def test_bare(environments: Environments, base: Base, log: Path) -> None:
    built = environments.ensure(pip(), log, never, base)
    assert built.packages == ()
    assert python(built, "import sys; print(sys.prefix)") == PLACE


BACKEND = """
import os, zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    path = os.path.join(wheel_directory, "%(name)s-1.0-py3-none-any.whl")
    info = "%(name)s-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("%(name)s.py", f"IN_CONTAINER = {os.path.exists('/.dockerenv')}\\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: %(name)s\\nVersion: 1.0\\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", "%(name)s.py,,\\n")
    return os.path.basename(path)
"""


def source(name: str) -> dict[str, str]:
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    return {
        "backend.py": BACKEND % {"name": name},
        "pyproject.toml": f'{project}[project]\nname = "{name}"\nversion = "1.0"\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }


def make_sdist(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for path, text in source(name).items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return folder / f"{name}-1.0.tar.gz"


def test_sources_are_built_in_the_container(
    home: Home, variables: dict[str, str], engine: Engine, base: Base, tmp_path: Path, log: Path
) -> None:
    """A project's folder, a source package and a linked wheel of a find-links folder, and one in a requirements file."""
    links, project = tmp_path / "links", tmp_path / "project"
    make_sdist(links, "fromlinks")
    (links / "tiny-1.0-py3-none-any.whl").symlink_to(make_wheel(tmp_path / "store", "tiny"))
    project.mkdir()
    for path, text in source("fromfolder").items():
        (project / path).write_text(text)
    lone = make_sdist(tmp_path / "lone", "lone")
    environments = Environments(home, variables | {"PIP_FIND_LINKS": str(links), "PIP_NO_INDEX": "1"}, engine)
    file = RequirementFile("requirements.txt", f"fromlinks\n{lone}\n")
    built = environments.ensure(EnvironmentRequest("", (str(project), "tiny"), (file,)), log, never, base)
    assert built.packages == ("fromfolder==1.0", "fromlinks==1.0", "lone==1.0", "tiny==1.0")
    names = "fromfolder", "fromlinks", "lone"
    says = "; ".join(f"import {name}; print({name}.IN_CONTAINER)" for name in names)
    assert python(built, says).split() == ["True"] * 3
    assert sorted(path.name for path in project.iterdir()) == sorted(source("fromfolder"))


def test_from_pypi(home: Home, engine: Engine, base: Base, log: Path) -> None:
    """With this machine's own settings: certificates, places to find packages."""
    built = Environments(home, None, engine).ensure(pip("six<1.17"), log, never, base)
    assert built.packages == ("six==1.16.0",)


def test_f31_key(
    environments: Environments, engine: Engine, home: Home, base: Base, tmp_path: Path, log: Path, image: str
) -> None:
    """Of content and image; a known one asks nobody."""
    wheel = make_wheel(tmp_path, "tiny", code="VALUE = 1\n")
    built = environments.ensure(pip(str(wheel)), log, never, base)
    before, here = log.read_bytes(), environments.key(pip(str(wheel)))
    away = Base(Container(Engine(home, "unix:///there/is/none"), image), image, PYTHON, PATH)
    began = time.monotonic()
    assert environments.ensure(EnvironmentRequest("3.11", (wheel.as_uri(),), ()), log, never, away) == built
    assert time.monotonic() - began < 3
    assert log.read_bytes() == before
    assert environments.key(pip(str(wheel)), Base(Host())) == here
    others = [Base(base.runner, "sha256:other", PYTHON, PATH), Base(base.runner, image, "/usr/bin/python3", PATH)]
    assert len({built.key, here, *(environments.key(pip(str(wheel)), other) for other in others)}) == 4
    make_wheel(tmp_path, "tiny", code="VALUE = 2\n")
    after = environments.ensure(pip(str(wheel)), log, never, base)
    assert [python(found, "import tiny; print(tiny.VALUE)") for found in (built, after)] == ["1", "2"]


# -- at once, failed, given up, killed --------------------------------------------------------------------------------


def test_f32_two_at_once_one_build(environments: Environments, home: Home, base: Base, slow: SlowProject) -> None:
    logs = [home.root / "one.log", home.root / "two.log"]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(environments.ensure, pip(str(slow.path)), logs[0], never, base)
        wait_for(slow.started, "the build begins")
        second = pool.submit(environments.ensure, pip(str(slow.path)), logs[1], never, base)
        wait_for(lambda: logs[1].exists() and "waiting" in logs[1].read_text(), "the second waits")
        assert len(containers_of(home)) == 1
        slow.go()
        assert first.result(DEADLINE_S) == second.result(DEADLINE_S)
    assert len(slow.started()) == 1
    assert left(home) == containers_of(home) == []


def test_a_build_whose_container_is_killed_is_tried_once_more(
    environments: Environments, home: Home, base: Base, slow: SlowProject, log: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        building = pool.submit(environments.ensure, pip(str(slow.path)), log, never, base)
        wait_for(slow.started, "the build begins")
        engine_api().kill(containers_of(home)[0]["Id"])
        wait_for(lambda: len(slow.started()) == 2, "it begins again")
        slow.go()
        assert building.result(DEADLINE_S).packages == ("slow==1.0",)
    assert "ended before its work was done: " in log.read_text()
    assert left(home) == containers_of(home) == []


BUILD = """
import json, sys
from pathlib import Path
from orchestrator.engine import Engine
from orchestrator.environments import Base, Container, EnvironmentRequest, Environments
from orchestrator.home import Home
root, image, python, line, variables = sys.argv[1:]
home = Home(Path(root))
engine = Engine(home)
base = Base(Container(engine, image), image, python, "/usr/bin:/bin")
environments = Environments(home, json.loads(variables), engine)
environments.ensure(EnvironmentRequest("", (line,), ()), home.root / "log", lambda: False, base)
"""


@contextmanager
def killed_builder(home: Home, image: str, slow: SlowProject, variables: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-c", BUILD, str(home.root), image, PYTHON, str(slow.path), json.dumps(variables)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as process:
        try:
            wait_for(slow.started, "the build begins")
            yield
        finally:
            process.kill()


def test_f32_killed_builder(
    environments: Environments, home: Home, variables: dict[str, str], base: Base, slow: SlowProject, log: Path
) -> None:
    """Kill -9 of the server: its container ends by itself, and the next build is fine."""
    with killed_builder(home, base.image, slow, variables):
        assert len(containers_of(home)) == 1
    wait_for(lambda: not containers_of(home), "nobody listens to the container any more")
    assert environments.get(environments.key(pip(str(slow.path)), base)) is None
    slow.go()
    assert environments.ensure(pip(str(slow.path)), log, never, base).packages == ("slow==1.0",)
    assert left(home) == containers_of(home) == []


def test_f32_start_after_a_killed_builder(
    environments: Environments,
    engine: Engine,
    home: Home,
    variables: dict[str, str],
    base: Base,
    slow: SlowProject,
) -> None:
    """What a dead server has left is removed in the background; what one that lives has, is not."""
    with killed_builder(home, base.image, slow, variables):
        (building,) = home.environments.glob(".building-*")
        assert json.loads((building / "uv.json").read_text())["container"].startswith("spell-build-")
    for server in (f"{os.getpid()}:1.0", ""):
        engine_api().create_container(
            base.image, ["true"], name=new_name(), labels=engine.labels(role="build", server=server)
        )
    with Container(engine, base.image, PYTHON).opened(home.root / "process"):
        environments.start()
        try:
            wait_for(lambda: len(containers_of(home)) == 1, "only that of the living is left")
            wait_for(lambda: not left(home), "folders are gone too")
        finally:
            environments.close()
    assert containers_of(home) == []


class HungEngine(Engine):
    """One that answers pings only, until the test lets it go."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, "unix:///there/is/none")
        self.asked, self.go = threading.Event(), threading.Event()

    def lacks(self) -> str:
        return ""

    def remove(self, container: str) -> None:
        self.asked.set()
        self.go.wait()


def test_a_start_does_not_wait_for_the_engine(home: Home, variables: dict[str, str]) -> None:
    orphan = home.environments / f".building-{'0' * 32}-abc"
    orphan.mkdir()
    (orphan / "uv.json").write_text('{"container": "spell-build-0"}')
    (home.environments / ".building-bake-abc").mkdir()
    engine = HungEngine(home)
    environments = Environments(home, variables, engine)
    starting = threading.Thread(target=environments.start, daemon=True)
    starting.start()
    try:
        starting.join(DEADLINE_S)
        assert not starting.is_alive()
        assert engine.asked.wait(DEADLINE_S)
        assert orphan.exists()
        assert not (home.environments / ".building-bake-abc").exists()
        engine.go.set()
        wait_for(lambda: not left(home), "the orphan goes, too")
    finally:
        engine.go.set()
        environments.close()


def test_a_container_that_stays_does_not_change_how_a_build_ends(
    engine: Engine, image: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(container: str) -> None:
        raise EngineError(f"{container} cannot be removed")

    monkeypatch.setattr(engine, "remove", remove)
    runner = Container(engine, image)
    assert shell(runner, "exit 0", home) == (0, b"")
    with pytest.raises(BuildCancelled), runner.opened(home.root / "process"):
        raise BuildCancelled
    wait_for(lambda: not containers_of(home), "they end by themselves")


def test_f33_failed_build(environments: Environments, home: Home, base: Base, slow: SlowProject, log: Path) -> None:
    slow.fail("my compiler is missing")
    with pytest.raises(BuildFailed, match="my compiler is missing"):
        environments.ensure(pip(str(slow.path)), log, never, base)
    assert "my compiler is missing" in log.read_text()
    assert environments.get(environments.key(pip(str(slow.path)), base)) is None
    assert left(home) == containers_of(home) == []
    (slow.control / "fail").unlink()
    assert environments.ensure(pip(str(slow.path)), log, never, base).packages == ("slow==1.0",)


def test_image_that_is_gone(environments: Environments, engine: Engine, home: Home, log: Path) -> None:
    gone = f"sha256:{'0' * 64}"
    with pytest.raises(BuildFailed, match="No such image"):
        environments.ensure(pip(), log, never, Base(Container(engine, gone), gone, PYTHON, PATH))
    assert left(home) == containers_of(home) == []


def test_engine_that_is_away(environments: Environments, home: Home, image: str, log: Path) -> None:
    away = Container(Engine(home, "unix:///there/is/none"), image)
    with pytest.raises(BuildFailed, match="does not answer"):
        environments.ensure(pip(), log, never, Base(away, image, PYTHON, PATH))
    assert left(home) == []


def test_cancelled(environments: Environments, home: Home, base: Base, slow: SlowProject, log: Path) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        building = pool.submit(environments.ensure, pip(str(slow.path)), log, stop.is_set, base)
        wait_for(slow.started, "the build begins")
        stop.set()
        began = time.monotonic()
        with pytest.raises(BuildCancelled):
            building.result(DEADLINE_S)
        assert time.monotonic() - began < 6
    assert left(home) == containers_of(home) == []


def test_disk_full(variables: dict[str, str], image: str, tmp_path: Path, log: Path) -> None:
    root = tmp_path / "small-disk"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root], check=False).returncode:
        pytest.skip("may not mount here")
    try:
        home = Home(root / "home")
        home.create()
        engine = Engine(home)
        wheel = make_wheel(tmp_path, "large", extra={"large.txt": "x" * 3_000_000})
        with pytest.raises(DiskFull):
            Environments(home, variables, engine).ensure(
                pip(str(wheel)), log, never, Base(Container(engine, image), image, PYTHON, PATH)
            )
        assert left(home) == containers_of(home) == []
    finally:
        subprocess.run(["umount", root], check=True)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """An index on this machine, at the address that containers know it by."""
    network = engine_api().inspect_network("bridge")["IPAM"]["Config"][0]
    gateway = network.get("Gateway") or str(next(ipaddress.ip_network(network["Subnet"]).hosts()))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer((gateway, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://{gateway}:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()


def test_f36_index_away(
    home: Home, variables: dict[str, str], engine: Engine, base: Base, tmp_path: Path, log: Path
) -> None:
    make_index(tmp_path / "index", *(make_wheel(tmp_path, name) for name in ("tiny", "small")))
    with serving(tmp_path / "index") as url:
        environments = Environments(home, variables | {"PIP_INDEX_URL": url, "NO_PROXY": "*"}, engine)
        for name in ("tiny", "small"):
            environments.ensure(pip(name), log, never, base)
    both = environments.ensure(pip("tiny", "small"), log, never, base)
    assert both.packages == ("small==1.0", "tiny==1.0")
    with pytest.raises(BuildFailed, match="index could not be reached"):
        environments.ensure(pip("absent"), log, never, base)


# -- byte code --------------------------------------------------------------------------------------------------------


def test_byte_code(
    environments: Environments, home: Home, variables: dict[str, str], base: Base, tmp_path: Path, log: Path
) -> None:
    """Compiled in a container after publishing; good for other environments of images, not for those of this machine."""
    wheel = make_wheel(tmp_path, "tiny", extra={"inside/inside.py": "A = 1\n", "inside/wrong.py": "no python"})
    environments.start()
    try:
        passes = environments._compiler.loop
        passes.wait_for_pass(0, DEADLINE_S)
        first = environments.ensure(pip(str(wheel)), log, never, base)
        passes.wait_for_pass(1, DEADLINE_S)
        assert getattr(environments.get(first.key), "compiled", False)
    finally:
        environments.close()
    assert environments.bytecode_until_compiled(first) is not None
    compiled = {path.relative_to(first.path) for path in first.path.rglob("[!_]*.pyc")}
    assert sorted(path.name.partition(".")[0] for path in compiled) == ["inside", "tiny"]
    assert python(first, "import tiny; print(tiny.__cached__)").startswith(f"{PLACE}/lib")
    assert {path.lstat().st_uid for path in first.path.rglob("*")} == {os.getuid()}
    assert list((home.environments / ".containers" / "uv-cache").rglob("inside/__pycache__")) == []
    wait_for(lambda: not containers_of(home), "the container is gone")
    assert left(home) == [f".bytecode-{first.key}"]

    second = environments.ensure(pip(f"tiny @ {wheel.as_uri()}"), log, never, base)
    assert second.compiled
    here = Environments(home, variables).ensure(pip(str(wheel)), log, never)
    assert list(here.path.rglob("inside.*.pyc")) == []


def test_byte_code_is_given_up_quietly(
    environments: Environments, home: Home, variables: dict[str, str], base: Base, tmp_path: Path, log: Path
) -> None:
    """Without its engine or its image; what waits behind it is compiled all the same."""
    here = environments.ensure(pip(str(make_wheel(tmp_path, "small"))), log, never)
    built = environments.ensure(pip(str(make_wheel(tmp_path, "tiny"))), log, never, base)
    Environments(home, variables).compile_pending()
    assert [getattr(environments.get(found.key), "compiled", None) for found in (here, built)] == [True, False]
    description = built.path / "spell-environment.json"
    description.write_text(description.read_text().replace(base.image, f"sha256:{'0' * 64}"))
    environments.compile_pending()
    assert not getattr(environments.get(built.key), "compiled", True)
    assert left(home) == containers_of(home) == []


# -- what a container is given ----------------------------------------------------------------------------------------


def test_secrets_are_not_told_to_the_engine(
    home: Home, variables: dict[str, str], engine: Engine, base: Base, slow: SlowProject, log: Path
) -> None:
    given = {
        "PIP_INDEX_URL": f"http://me:{SECRET}@index.invalid/simple",
        "HTTPS_PROXY": f"http://me:{SECRET}@proxy.invalid:1",
        "NO_PROXY": SECRET,
    }
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        environments = Environments(home, variables | given, engine)
        building = pool.submit(environments.ensure, pip(str(slow.path)), log, stop.is_set, base)
        wait_for(slow.started, "the build begins")
        (container,) = containers_of(home)
        told = engine_api().inspect_container(container["Id"])
        asked = engine_api().top(container["Id"], "-eo pid,args")
        stop.set()
        with pytest.raises(BuildCancelled):
            building.result(DEADLINE_S)
    assert SECRET not in json.dumps([told, container, asked])
    assert "uv" in json.dumps(asked)
    limits = told["HostConfig"]
    assert (limits["CapDrop"], limits["SecurityOpt"], limits["Init"]) == (["ALL"], ["no-new-privileges"], True)
    assert (told["Config"]["User"], limits["LogConfig"]["Type"]) == (engine.user, "none")
    writable = [Path(mount["Source"]) for mount in told["Mounts"] if mount["RW"]]
    shared = home.environments / ".containers"
    assert sorted(path.name for path in writable if path != shared) == ["cwd", "home", "local"]
    assert {path.parent.parent for path in writable if path != shared} == {home.environments}
    assert SECRET not in log.read_text()


def conf(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def given(home: Home, folder: Path, *lines: str, **variables: str) -> ContainerSettings:
    variables = {"HOME": str(folder / "person"), "PATH": "/host/bin", "XDG_CONFIG_DIRS": "/no/where"} | variables
    settings = uv_settings(variables | {"PIP_CONFIG_FILE": os.devnull}, folder, {})
    mine = home.environments / ".containers/b/home"
    mine.mkdir(parents=True, exist_ok=True)
    return container_settings(settings, read(pip(*lines)), home.environments, mine, "")


def test_variables(home: Home, tmp_path: Path) -> None:
    secret = {"AWS_SECRET_ACCESS_KEY": SECRET, "LD_LIBRARY_PATH": "/host", "UV_PUBLISH_TOKEN": SECRET}
    found = given(
        home, tmp_path, **secret, UV_PYTHON_DOWNLOADS="automatic", UV_LINK_MODE="symlink", UV_PRERELEASE="allow"
    )
    assert SECRET not in found.env.values()
    assert found.env["HOME"] == str(home.environments / ".containers/b/home")
    assert "/host" not in "".join(found.env.values())
    assert (found.env["UV_LINK_MODE"], found.env["UV_PYTHON_DOWNLOADS"]) == ("hardlink", "never")
    assert (found.env["UV_PRERELEASE"], found.env["PATH"].split(":")[0]) == ("allow", "/usr/local/sbin")
    assert SECRET not in repr(given(home, tmp_path, UV_INDEX_URL=f"https://me:{SECRET}@i/"))
    (note,) = given(home, tmp_path, HTTPS_PROXY=f"http://me:{SECRET}@localhost:3128").notes
    assert "HTTPS_PROXY names this machine (" in note and SECRET not in note


def test_mounts(home: Home, tmp_path: Path) -> None:
    """Whatever settings name is seen at its own path, read-only; nothing else is."""
    wheel = make_wheel(tmp_path / "here", "tiny")
    index = make_index(tmp_path / "index", wheel)
    certificates = conf(tmp_path / "ca" / "certs" / "all.pem", "x").parent
    (certificates / "one.pem").symlink_to(conf(tmp_path / "ca" / "shared" / "one.crt", "x"))
    files = [conf(tmp_path / name, "") for name in ("limits.txt", "override.txt", "me.pem")]
    links = [tmp_path / "links", tmp_path / "more links"]
    for folder in links:
        make_wheel(folder, "small")
    settings = conf(tmp_path / "person/.config/uv/uv.toml", f'[pip]\nfind-links = ["{links[1]}"]\n')
    found = given(
        home,
        tmp_path,
        f"tiny @ {wheel.as_uri()}",
        PIP_CONSTRAINT=str(files[0]),
        UV_OVERRIDE=str(files[1]),
        PIP_CLIENT_CERT=str(files[2]),
        UV_FIND_LINKS=str(links[0]),
        UV_INDEX=f"mine={index.as_uri()}",
        SSL_CERT_DIR=str(certificates),
        SSL_CERT_FILE=str(certificates / "all.pem"),
        GIT_SSL_CAINFO="/no/where/ca.pem",
    )
    shared, uv, *others = found.mounts
    assert shared == Mount(home.environments / ".containers", writable=True)
    assert (uv.writable, uv.target) == (False, "/opt/spell/uv")
    wanted = {wheel, index.parent, certificates, tmp_path / "ca" / "shared", *files, *links, settings}
    assert {mount.source for mount in others} == wanted
    assert not any(mount.writable or mount.target for mount in others)
    assert found.env["XDG_CONFIG_HOME"] == str(settings.parents[1])
    assert found.notes == ("/no/where/ca.pem does not exist, so the container cannot see it",)


def test_variables_that_a_requirements_file_names_show_nothing_of_this_machine(home: Home, tmp_path: Path) -> None:
    hidden = conf(tmp_path / "hidden" / "key.pem", "x")
    mine = {"SSL_CERT_FILE": str(hidden), "UV_FIND_LINKS": str(hidden.parent), "NETRC": str(hidden), "TOKEN": "t"}
    file = RequirementFile("r.txt", "".join(f"tiny @ https://host/${{{name}}}.whl\n" for name in mine))
    asked = read(EnvironmentRequest("", (), (file,), variables=mine))
    person = {"HOME": str(tmp_path / "person"), "PIP_CONFIG_FILE": os.devnull, "TOKEN": "of the server"}
    settings = uv_settings(person, tmp_path, asked.options, asked.variables, asked.named_variables)
    found = container_settings(settings, asked, home.environments, tmp_path, "")
    assert [mount.source for mount in found.mounts if mount.source.is_relative_to(tmp_path / "hidden")] == []
    assert len(found.mounts) == 2, "the shared folder and uv"
    assert (found.env["TOKEN"], settings.find_links) == ("t", ())


def test_a_build_sees_of_a_netrc_what_it_needs(home: Home, tmp_path: Path) -> None:
    text = (
        'machine mine login me password "o \\"ne"\nmachine wheels password two\nmachine set login you password four\n'
    )
    conf(tmp_path / "person/.netrc", f"{text}machine other login me password three\ndefault login x password four\n")
    conf(tmp_path / "person/.config/uv/uv.toml", '[[index]]\nurl = "https://set/simple"\n')
    found = given(home, tmp_path, "tiny @ https://wheels:8080/tiny.whl", UV_INDEX="https://else,https://Mine/simple")
    written = Path(found.env["NETRC"])
    assert (written.read_text(), written.stat().st_mode & 0o777) == (text, 0o600)
    assert tmp_path / "person/.netrc" not in {mount.source for mount in found.mounts}
    written.unlink()
    (tmp_path / "person/.config/uv/uv.toml").unlink()
    assert "NETRC" not in given(home, tmp_path, "tiny").env
    conf(tmp_path / "person/.netrc", "machine\n")
    assert "cannot be read, so the container gets nothing of it" in given(home, tmp_path, "tiny").notes[0]


def test_settings_of_a_person_count_in_the_container(
    home: Home, variables: dict[str, str], engine: Engine, base: Base, tmp_path: Path, log: Path
) -> None:
    make_wheel(tmp_path / "links", "tiny")
    conf(tmp_path / "person/.config/uv/uv.toml", f'[pip]\nfind-links = ["{tmp_path}/links"]\nno-index = true\n')
    kept = {name: value for name, value in variables.items() if not name.startswith("XDG_")}
    environments = Environments(home, kept | {"HOME": str(tmp_path / "person")}, engine)
    assert environments.ensure(pip("tiny"), log, never, base).packages == ("tiny==1.0",)


# -- a runner alone -------------------------------------------------------------------------------------------------


def shell(runner: Container, script: str, home: Home, cancelled: Callable[[], bool] = never) -> tuple[int, bytes]:
    said: list[bytes] = []
    process_file = home.root / "process"
    code = runner.run(
        ["/bin/sh", "-c", script],
        cwd=Path("/"),
        env={"A": "b"},
        process_file=process_file,
        output=said.append,
        cancelled=cancelled,
    )
    assert not process_file.exists()
    return code, b"".join(said)


def test_place(engine: Engine, image: str, home: Home) -> None:
    runner = Container(engine, image)
    assert shell(runner, "echo $A; echo wrong >&2; exit 3", home) == (3, b"b\nwrong\n")
    assert shell(runner, "printf 'a\\0b\\0'; head -c 300000 /dev/zero", home) == (0, b"a\0b\0" + bytes(300000))
    assert shell(runner, "kill -9 $$", home)[0] == -signal.SIGKILL
    assert shell(runner, "id -u; (sleep 600; echo late) & echo done", home)[1].split() == [
        engine.user.partition(":")[0].encode(),
        b"done",
    ]
    with pytest.raises(BuildFailed, match="/no/program cannot be started"):
        runner.run(["/no/program"], cwd=Path("/"), env={}, process_file=home.root / "r", output=print, cancelled=never)
    with pytest.raises(BuildFailed, match="ended before its work"):
        shell(runner, "kill -9 $PPID", home)
    with pytest.raises(BuildFailed, match="no-python"):
        shell(Container(engine, image, "/no-python"), "true", home)
    with pytest.raises(BuildFailed, match="does not exist"):
        shell(runner.with_mounts([Mount(home.root / "absent")]), "true", home)
    assert not (home.root / "absent").exists()
    assert containers_of(home) == []


def test_one_container_for_several_programs(engine: Engine, image: str, home: Home) -> None:
    process_file = home.root / "process"
    said: list[bytes] = []
    with Container(engine, image).opened(process_file) as runner:
        for word in ("one", "two"):
            command = ["/bin/sh", "-c", f"ls /tmp; touch /tmp/{word}"]
            runner.run(command, cwd=Path("/"), env={}, process_file=process_file, output=said.append, cancelled=never)
        assert json.loads(process_file.read_text())["container"] == containers_of(home)[0]["Names"][0].lstrip("/")
    assert b"".join(said) == b"one\n"
    assert containers_of(home) == []


# -- garbage collection---------------------------------------------------------------------------------------------------


def test_unused_environments_are_collected(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    """By their last use, those that are to be kept and those being built excepted; told as what that gives back."""
    environments = Environments(home, variables)
    old, kept, used = (
        environments.ensure(pip(str(make_wheel(tmp_path, name))), log, never) for name in ("old", "kept", "used")
    )
    environments.bytecode_until_compiled(old)
    for found in (old, kept, used):
        os.utime(found.path, (1, 1))
    environments.ensure(pip(str(tmp_path / "used-1.0-py3-none-any.whl")), log, never)
    (told,) = environments.gc({kept.key}, 3600, dry_run=True)
    assert old.key in told.what
    assert 4096 <= told.size_bytes < 1_000_000
    assert environments.gc({kept.key}, 3600, dry_run=False) == [told]
    assert [environments.get(found.key) for found in (old, kept, used)] == [None, kept, used]
    assert left(home) == []
    assert environments.gc({kept.key}, 3600, dry_run=False) == []
    assert environments.ensure(pip(str(tmp_path / "old-1.0-py3-none-any.whl")), log, never) == old


@pytest.mark.parametrize("kind", ["index", "wheel", "folder of wheels", "project"])
def test_packages_of_no_environment_leave_the_cache(
    home: Home, variables: dict[str, str], engine: Engine, base: Base, tmp_path: Path, log: Path, kind: str
) -> None:
    """uv gets them again where they are asked for, and what stays is there without an index."""
    tiny, small = (make_wheel(tmp_path / "wheels", name) for name in ("tiny", "small"))
    make_index(tmp_path / "index", tiny, small)
    (project := SlowProject(home.environments / ".containers" / "slow", "tiny")).go()
    asked = {"index": "tiny", "wheel": str(tiny), "folder of wheels": "tiny", "project": str(project.path)}[kind]
    variables = variables | {"NO_PROXY": "*"}
    if kind == "folder of wheels":
        variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    with serving(tmp_path / "index") as url:
        environments = Environments(home, {"PIP_INDEX_URL": url} | variables, engine)
        gone, kept = (environments.ensure(pip(name), log, never, base) for name in (asked, "small"))
        assert environments.gc({gone.key, kept.key}, 0, dry_run=False) == []
        environment, packages = environments.gc({kept.key}, 0, dry_run=False)
        assert (environment.what, packages.what) == (f"environment {gone.key}", "packages in uv's cache")
        assert packages.size_bytes > 0
        archives = home.environments / ".containers" / "uv-cache" / "archive-v0"
        assert [path.name for path in archives.glob("*/*.py")] == ["small.py"]
        assert left(home) == []
        assert environments.ensure(pip(asked), log, never, base) == gone
    assert environments.ensure(pip("small==1.0"), log, never, base).packages == ("small==1.0",)


def test_nothing_leaves_the_cache_while_a_build_uses_it(
    environments: Environments, home: Home, base: Base, tmp_path: Path, log: Path
) -> None:
    environments.ensure(pip(str(make_wheel(tmp_path, "tiny"))), log, never, base)
    (environment,) = environments.gc(set(), 0, dry_run=True)
    with uv_cache.used(home.environments, never):
        assert environments.gc(set(), 0, dry_run=False) == [environment]
    (told,) = environments.gc(set(), 0, dry_run=True)
    assert environments.gc(set(), 3600, dry_run=False) == []
    assert environments.gc(set(), 0, dry_run=False) == [told]
    assert environments.gc(set(), 0, dry_run=False) == []


def test_links_of_hostile_builds_are_not_followed(environments: Environments, home: Home, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "photos").mkdir(parents=True)
    (mine / "photos" / "one").touch()
    cache = home.environments / ".containers" / "uv-cache"
    (cache / "archive-v0").mkdir(parents=True)
    (cache / "archive-v0" / "x").symlink_to(mine)
    environments.gc(set(), 0, dry_run=False)
    (cache / "archive-v0").rename(cache / "other")
    (cache / "archive-v0").symlink_to(mine)
    environments.gc(set(), 0, dry_run=False)
    (cache / "archive-v0").unlink()
    cache.rename(mine / "archive-v0")
    cache.symlink_to(mine)
    assert environments.gc(set(), 0, dry_run=False) == []
    assert (mine / "photos" / "one").exists()
