"""Environments: built by the real uv from tiny wheels, from PyPI where an index is the point."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from wheels import SlowProject, make_wheel

from orchestrator.environments import BuildCancelled, Environment, EnvironmentRequest, Environments
from orchestrator.errors import BuildFailed, DiskFull
from orchestrator.home import Home
from orchestrator.spec.run import RequirementFile

DEADLINE_S = 60


def never() -> bool:
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def pip(*lines: str, python: str = "") -> EnvironmentRequest:
    return EnvironmentRequest(python, lines, ())


def python(environment: Environment, code: str) -> str:
    command = [environment.path / "bin" / "python", "-I", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The user's variables, with nothing of this machine's own settings for pip and uv."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    cache = tmp_path_factory.mktemp("uv-cache")
    return kept | {"UV_CACHE_DIR": str(cache), "PIP_CONFIG_FILE": os.devnull, "UV_HTTP_RETRIES": "0"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "records" / "build.log"


def published(home: Home) -> list[str]:
    return [path.name for path in home.environments.glob("[!.]*")]


def left(home: Home) -> list[str]:
    """What lies in the folder of environments that is neither one, nor a note about find-links, nor uv's cache."""
    return [path.name for path in home.environments.glob(".*") if path.name not in (".find-links", ".uv-cache")]


def test_bare(home: Home, variables: dict[str, str], log: Path) -> None:
    environments = Environments(home, variables)
    environment = environments.ensure(pip(), log, never)
    assert environment.packages == ()
    assert environment.python == ".".join(map(str, sys.version_info[:3]))
    assert environment.path == home.environment(environments.key(pip()))
    assert python(environment, "import sys; print(sys.prefix)") == str(environment.path)
    assert environments.get(environment.key) == environment
    assert left(home) == []


@pytest.mark.parametrize("wanted", ["3.12", "3.10", "3.11.2"])
def test_python_version(home: Home, variables: dict[str, str], log: Path, wanted: str) -> None:
    found = [*Path(variables.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{wanted}*/bin/python")]
    if not found and not (wanted == "3.11.2" and "3.11.2" in _version_of("/usr/bin/python3.11")):
        pytest.skip(f"no Python {wanted} here")
    environment = Environments(home, variables).ensure(pip(python=wanted), log, never)
    assert environment.python.startswith(wanted)
    assert python(environment, "import platform; print(platform.python_version())") == environment.python


def _version_of(executable: str) -> str:
    try:
        return subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    except OSError:
        return ""


def test_python_that_is_not_there(home: Home, variables: dict[str, str], log: Path) -> None:
    environments = Environments(home, variables | {"UV_PYTHON_DOWNLOADS": "never"})
    with pytest.raises(BuildFailed, match=r"3\.99"):
        environments.ensure(pip(python="3.99"), log, never)
    assert left(home) == []


def test_from_pypi(home: Home, variables: dict[str, str], log: Path) -> None:
    """Resolved versions are told, output comes line by line, and the same again costs no build."""
    environments = Environments(home, variables)
    environment = environments.ensure(pip("six<1.17", "iniconfig"), log, never)
    assert environment.packages[1] == "six==1.16.0"
    assert environment.packages[0].startswith("iniconfig==")
    assert "+ six==1.16.0" in log.read_text()
    before = log.read_bytes()
    assert Environments(home, variables).ensure(pip("iniconfig", "six<1.17"), log, never).path == environment.path
    assert log.read_bytes() == before


def test_f31_requirements_and_wheels_by_content(
    home: Home, variables: dict[str, str], tmp_path: Path, log: Path
) -> None:
    environments = Environments(home, variables)
    wheels = tmp_path / "wheels"
    path = make_wheel(wheels, "tiny", code="VALUE = 1\n")
    links = Environments(home, variables | {"PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1"})
    by_path = [environments.ensure(pip(line), log, never) for line in (str(path), f"tiny @ {path.as_uri()}")]
    by_name = links.ensure(pip("tiny"), log, never)
    assert {python(found, "import tiny; print(tiny.VALUE)") for found in (*by_path, by_name)} == {"1"}

    make_wheel(wheels, "tiny", code="VALUE = 2\n")
    after = environments.ensure(pip(str(path)), log, never)
    after_by_name = links.ensure(pip("tiny"), log, never)
    assert after.key != by_path[0].key
    assert after_by_name.key != by_name.key
    assert {python(found, "import tiny; print(tiny.VALUE)") for found in (after, after_by_name)} == {"2"}
    assert python(by_path[0], "import tiny; print(tiny.VALUE)") == "1"

    one = EnvironmentRequest("", (), (RequirementFile("requirements.txt", f"{path}\n"),))
    two = EnvironmentRequest("", (), (RequirementFile("requirements.txt", f"{path}\nsix\n"),))
    assert environments.key(one) != environments.key(two)


def test_f31_local_project(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    environments = Environments(home, variables)
    project = SlowProject(tmp_path)
    project.go()
    first = environments.ensure(pip(str(project.path)), log, never)
    assert python(first, "import slow; print(slow.VERSION)") == "1.0"
    assert first.packages == ("slow==1.0",)
    assert sorted(path.name for path in project.path.iterdir()) == ["backend.py", "pyproject.toml"]
    make_wheel(project.control, "slow", code="VERSION = 'new'\n")
    assert environments.key(pip(str(project.path))) == first.key
    (project.path / "data.txt").write_text("new")
    relative = EnvironmentRequest("", ("./project",), (), base=tmp_path)
    assert python(environments.ensure(relative, log, never), "import slow; print(slow.VERSION)") == "new"


def test_f32_two_threads_one_build(home: Home, variables: dict[str, str], tmp_path: Path) -> None:
    project = SlowProject(tmp_path)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    environments = Environments(home, variables)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(environments.ensure, pip(str(project.path)), logs[0], never)
        wait_for(lambda: bool(project.started()))
        second = pool.submit(environments.ensure, pip(str(project.path)), logs[1], never)
        wait_for(lambda: logs[1].exists() and "waiting" in logs[1].read_text())
        project.go()
        assert first.result(DEADLINE_S) == second.result(DEADLINE_S)
    assert len(project.started()) == 1
    assert left(home) == []


BUILD = """
import json, sys
from pathlib import Path
from orchestrator.environments import EnvironmentRequest, Environments
from orchestrator.home import Home
home, line, log, variables = sys.argv[1:]
environments = Environments(Home(Path(home)), json.loads(variables))
print(environments.ensure(EnvironmentRequest("", (line,), ()), Path(log), lambda: False).path)
"""


@contextmanager
def builder(home: Home, line: str, log: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", BUILD, str(home.root), line, str(log), json.dumps(variables)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_f32_two_processes_one_build(home: Home, variables: dict[str, str], tmp_path: Path) -> None:
    project = SlowProject(tmp_path)
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    with builder(home, str(project.path), one, variables) as first:
        wait_for(lambda: bool(project.started()))
        with builder(home, str(project.path), two, variables) as second:
            wait_for(lambda: two.exists() and "waiting" in two.read_text())
            project.go()
            assert first.communicate(timeout=DEADLINE_S) == second.communicate(timeout=DEADLINE_S)
    assert len(project.started()) == 1
    assert left(home) == []


@pytest.mark.parametrize("restart", [False, True])
def test_f32_killed_builder(home: Home, variables: dict[str, str], tmp_path: Path, log: Path, restart: bool) -> None:
    """Kill -9 in the middle of a build: no half environment, no uv left at work, and the next build is fine."""
    project = SlowProject(tmp_path)
    environments = Environments(home, variables)
    with builder(home, str(project.path), log, variables) as process:
        wait_for(lambda: bool(project.started()))
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
    (orphan,) = project.started()
    assert alive(orphan)
    assert environments.get(environments.key(pip(str(project.path)))) is None
    if restart:
        environments.start()
        environments.close()
        assert left(home) == []
    else:
        project.go()
        assert environments.ensure(pip(str(project.path)), log, never).packages == ("slow==1.0",)
    wait_for(lambda: not alive(orphan))
    assert left(home) == []


def test_f33_failed_build(home: Home, variables: dict[str, str], tmp_path: Path) -> None:
    """The failing step's words are in the log of everybody who waited; nothing is cached; the next try builds."""
    project = SlowProject(tmp_path)
    environments = Environments(home, variables)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(environments.ensure, pip(str(project.path)), logs[0], never)
        wait_for(lambda: bool(project.started()))
        second = pool.submit(environments.ensure, pip(str(project.path)), logs[1], never)
        wait_for(lambda: logs[1].exists() and "waiting" in logs[1].read_text())
        project.fail("my compiler is missing")
        for failed, log in zip((first, second), logs, strict=True):
            with pytest.raises(BuildFailed, match="my compiler is missing"):
                failed.result(DEADLINE_S)
            assert "my compiler is missing" in log.read_text()
    assert len(project.started()) == 1
    assert published(home) == left(home) == []
    (project.control / "fail").unlink()
    assert environments.ensure(pip(str(project.path)), logs[0], never).packages == ("slow==1.0",)


def noted(home: Home) -> psutil.Process:
    """The uv that builds now."""
    (file,) = home.environments.glob(".building-*/uv.json")
    return psutil.Process(json.loads(file.read_text())["pid"])


@pytest.mark.parametrize("what", ["uv", "a program that it started"])
def test_a_build_whose_program_is_killed_is_tried_once_more(
    home: Home, variables: dict[str, str], tmp_path: Path, log: Path, what: str
) -> None:
    project = SlowProject(tmp_path)
    environments = Environments(home, variables)

    def kill(times: int) -> None:
        wait_for(lambda: len(project.started()) == times)
        victim = noted(home) if what == "uv" else psutil.Process(project.started()[-1])
        victim.kill()

    with ThreadPoolExecutor() as pool:
        building = pool.submit(environments.ensure, pip(str(project.path)), log, never)
        kill(1)
        kill(2)
        with pytest.raises(BuildFailed, match=r"killed by signal 9\."):
            building.result(DEADLINE_S)
        assert log.read_text().count("A program of the build was killed by signal 9. Trying once more") == 1
        assert published(home) == left(home) == []

        building = pool.submit(environments.ensure, pip(str(project.path)), log, never)
        kill(3)
        wait_for(lambda: len(project.started()) == 4)
        project.go()
        assert building.result(DEADLINE_S).packages == ("slow==1.0",)
    assert left(home) == []


def test_an_edit_in_an_environment_of_the_person_does_not_reach_ours(
    home: Home, variables: dict[str, str], tmp_path: Path, log: Path
) -> None:
    wheel = make_wheel(tmp_path, "tiny")
    uv, venv = str(Path(sys.executable).with_name("uv")), tmp_path / "venv"
    for words in (["venv", venv], ["pip", "install", "--python", venv, "--link-mode", "hardlink", wheel]):
        subprocess.run([uv, *words], check=True, capture_output=True, env=variables)
    (theirs,) = venv.glob("lib/*/site-packages/tiny.py")
    environments = Environments(home, variables)
    before = environments.ensure(pip(str(wheel)), log, never)
    theirs.write_text(
        theirs.read_text().replace("1.0", "3.0")
    )  # in the same file, which uv's cache of the person has, too
    after = environments.ensure(pip(str(wheel), str(make_wheel(tmp_path, "small"))), log, never)
    for environment in (before, after):
        assert python(environment, "import tiny; print(tiny.VERSION)") == "1.0"


def test_cancelled(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    project = SlowProject(tmp_path)
    environments = Environments(home, variables)
    stop, stop_waiting = threading.Event(), threading.Event()
    with ThreadPoolExecutor() as pool:
        building = pool.submit(environments.ensure, pip(str(project.path)), log, stop.is_set)
        wait_for(lambda: bool(project.started()))
        waiting = pool.submit(environments.ensure, pip(str(project.path)), log, stop_waiting.is_set)
        for event, future in ((stop_waiting, waiting), (stop, building)):
            event.set()
            began = time.monotonic()
            with pytest.raises(BuildCancelled):
                future.result(DEADLINE_S)
            assert time.monotonic() - began < 6
    assert not alive(project.started()[0])
    assert published(home) == left(home) == []


def test_scripts_work_after_the_rename_and_anywhere(
    home: Home, variables: dict[str, str], tmp_path: Path, log: Path
) -> None:
    environment = Environments(home, variables).ensure(pip(str(make_wheel(tmp_path, "tiny"))), log, never)
    moved = shutil.copytree(environment.path, tmp_path / "else where", symlinks=True)
    for root in (environment.path, moved):
        assert subprocess.run([root / "bin" / "tiny"], check=True, capture_output=True, text=True).stdout == "tiny\n"
    for path in (environment.path / "bin").iterdir():
        assert path.is_symlink() or b".building-" not in path.read_bytes()


def test_byte_code(
    home: Home, variables: dict[str, str], tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled after publishing, by new files only; what another environment has compiled comes with the build."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    wheel = make_wheel(tmp_path, "tiny", extra={"inside/inside.py": "A = 1\n", "inside/wrong.py": "no python"})
    environments = Environments(home, variables)
    environments.start()
    try:
        passes = environments._compiler.loop
        passes.wait_for_pass(0, DEADLINE_S)
        first = environments.ensure(pip(str(wheel)), log, never)
        passes.wait_for_pass(1, DEADLINE_S)
        assert getattr(environments.get(first.key), "compiled", False)
    finally:
        environments.close()
    assert python(first, "import tiny; print(tiny.__cached__)").startswith(str(first.path))
    compiled = {path.relative_to(first.path) for path in first.path.rglob("[!_]*.pyc")}
    assert sorted(path.name.partition(".")[0] for path in compiled) == ["inside", "tiny"]
    assert list((home.environments / ".uv-cache").rglob("inside")) != []
    assert list((home.environments / ".uv-cache").rglob("inside/__pycache__")) == []

    second = environments.ensure(pip(str(wheel), str(make_wheel(tmp_path, "small"))), log, never)
    assert {path.relative_to(second.path) for path in second.path.rglob("[!_]*.pyc")} == compiled
    assert not second.compiled
    Environments(home, variables).compile_pending()
    assert getattr(environments.get(second.key), "compiled", False)
    third = environments.ensure(
        pip(str(wheel), f"small @ {(tmp_path / 'small-1.0-py3-none-any.whl').as_uri()}"), log, never
    )
    assert third.compiled


def test_byte_code_is_not_taken_from_other_content(
    home: Home, variables: dict[str, str], tmp_path: Path, log: Path
) -> None:
    environments = Environments(home, variables)
    for value in ("1", "2"):
        wheel = make_wheel(tmp_path, "tiny", code=f"VALUE = {value}\n")
        environment = environments.ensure(pip(str(wheel)), log, never)
        assert python(environment, "import tiny; print(tiny.VALUE)") == value
        environments.compile_pending()
        assert python(environment, "import tiny; print(tiny.VALUE)") == value


def test_not_whole_is_built_again(home: Home, variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    """Its Python was removed, or the machine went down before it was safe on the disk."""
    environments = Environments(home, variables)
    built = environments.ensure(pip(str(make_wheel(tmp_path, "tiny"))), log, never)
    (built.path / "bin" / "python").unlink()
    assert environments.get(built.key) is None
    assert environments.ensure(pip(str(tmp_path / "tiny-1.0-py3-none-any.whl")), log, never) == built
    description = built.path / "spell-environment.json"
    description.write_text(description.read_text().replace('"boot": "', '"boot": "another'))
    environments.start()
    environments.close()
    assert environments.get(built.key) is None
    assert left(home) == []


def test_f35_another_filesystem(variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    home = Home(memory / f"spell-test-{os.getpid()}")
    home.create()
    try:
        environment = Environments(home, variables).ensure(pip(str(make_wheel(tmp_path, "tiny"))), log, never)
        assert python(environment, "import tiny; print(tiny.VERSION)") == "1.0"
        assert "warning" not in log.read_text()
    finally:
        shutil.rmtree(home.root)


def test_disk_full(variables: dict[str, str], tmp_path: Path, log: Path) -> None:
    root = tmp_path / "small-disk"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root], check=False).returncode:
        pytest.skip("may not mount here")
    try:
        home = Home(root / "home")
        home.create()
        wheel = make_wheel(tmp_path, "large", extra={"large.txt": "x" * 3_000_000})
        with pytest.raises(DiskFull):
            Environments(home, variables).ensure(pip(str(wheel)), log, never)
        assert left(home) == []
    finally:
        subprocess.run(["umount", root], check=True)


def test_disk_full_at_the_log(home: Home, variables: dict[str, str]) -> None:
    with pytest.raises(DiskFull):
        Environments(home, variables).ensure(pip(), Path("/dev/full"), never)
    assert published(home) == left(home) == []


def test_unsatisfiable(home: Home, variables: dict[str, str], log: Path) -> None:
    with pytest.raises(BuildFailed, match="no version of six==99") as caught:
        Environments(home, variables).ensure(pip("six==99"), log, never)
    assert "\n" not in caught.value.message
    assert "six==99" in log.read_text()
