"""`spell export`: all it takes to run a run again without spell, nothing secret, and never half of it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import BIN, Spell, git, has_written, wait_for
from engines import TEST_IMAGE, go_without
from wheels import make_wheel

from orchestrator.service.export_texts import job_file
from orchestrator.spec.mounts import parse_mount
from orchestrator.spec.run import RequirementFile, RunSpec

HOSTILE = "mkdir -p d/e; echo 1 > d/e/f; ln -s d/e/f link; printf x > 'a b'; touch \"$(printf 'n\\351w\\nl\\\\ine')\""


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that the tests of this module share."""
    return make_shared("export")


def checked(folder: Path, sums: str = "SHA256SUMS") -> int:
    """How many files are what the sums say; fails when one is not."""
    done = subprocess.run(["sha256sum", "--strict", "-c", sums], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done
    return len(done.stdout.splitlines())


def files_of(folder: Path) -> set[str]:
    """Every file and link below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def test_a_folder(spell: Spell, repo: Path, tmp_path: Path) -> None:
    (repo / "run.sh").write_text("#!/bin/sh\necho $1\necho $1 > out\n")
    (repo / "run.sh").chmod(0o755)
    (repo / "away").symlink_to("/etc/passwd")
    (repo / "empty").touch()
    git(repo, "add", ".")
    words = ["-e", "TOKEN=tell-nobody", "--notify", "http://127.0.0.1:9/tell-nobody", "--param", "X=a: b"]
    done = spell("run", "-f", *words, "./run.sh ':X:'", cwd=repo)
    number = done.number
    target = tmp_path / "out" / "it"
    done = spell("export", str(number), "-o", str(target))
    assert done.code == 0, done
    assert checked(target) == len(files_of(target)) - 2  # the sums themselves, and a link
    assert checked(target, "outputs.sha256") if (target / "outputs").exists() else True
    code = target / "code"
    assert files_of(code) == {"hello.py", "run.sh", "away", "empty"}
    assert os.readlink(code / "away") == "/etc/passwd" and os.access(code / "run.sh", os.X_OK)
    assert (target / "log").read_bytes() == b"a: b\n"
    made = next(line for line in (target / "Dockerfile").read_text().splitlines() if "-m venv" in line)
    assert made.startswith("RUN command -v python3 >/dev/null && python3 -m venv /opt/run/venv || "), "with pip"
    assert made.endswith(" || python3 -m venv /opt/run/venv --without-pip"), "where it cannot be had"
    assert (target / "metrics.csv").read_bytes() == b"name,step,value,at\r\n"
    listed = re.findall(r"^\| `(\S+?)/?` \|", (target / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(
        path.name for path in target.iterdir() if path.name not in ("README.md", ".dockerignore")
    )
    assert (target / "variables.env").read_text() == "TOKEN=\n"
    told = b"".join((target / name).read_bytes() for name in files_of(target) if name != "code/away")
    assert b"tell-nobody" not in told
    git(code, "init", "-q")
    git(code, "add", "-A")
    git(code, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-q", "-m", "x")
    again = spell("run", "-f", "--file", "../spec.yaml", cwd=code)
    assert again.code == 0, again
    assert spell("diff", str(number), str(again.number), "--code", "--outputs", "--wait", "--exit-code").code == 0


def test_an_archive(spell: Spell, tmp_path: Path) -> None:
    number = spell.run("echo x > f").number
    for name in ("it.tar.gz", "it.tgz", "it.tar"):
        assert spell("export", str(number), "-o", str(tmp_path / name), "--with-outputs").code == 0
        with tarfile.open(tmp_path / name) as tar:
            names = tar.getnames()
            assert {item.partition("/")[0] for item in names} == {f"run-{number}"}
            assert f"run-{number}/outputs/f" in names
    found = spell("export", str(number), "-o", str(tmp_path / "it.tar"), "-f", "--json").json()
    assert (found["run"], found["path"], found["warnings"]) == (number, str(tmp_path / "it.tar"), [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.tar", "it.tar.gz", "it.tgz"]


def test_outputs_of_any_name(spell: Spell, tmp_path: Path) -> None:
    number = spell.run(HOSTILE).number
    assert spell("verify", str(number)).code == 0
    assert spell("export", "latest", "-o", str(tmp_path / "it"), "--with-outputs").code == 0
    assert checked(tmp_path / "it", "outputs.sha256") == 3
    assert files_of(tmp_path / "it" / "outputs") == files_of(spell.home.run_dir(number))
    assert os.readlink(tmp_path / "it" / "outputs" / "link") == "d/e/f"
    checked(tmp_path / "it")


def test_metrics_that_nobody_has_read_yet(spell: Spell, tmp_path: Path) -> None:
    """As those of a process that outlived its run."""
    number = spell.run("true").number
    spell.home.metrics(number).write_text('{"name": "loss", "value": 0.5, "step": 3, "at": 7.0}\n')
    assert spell("export", str(number), "-o", str(tmp_path / "it")).code == 0
    assert (tmp_path / "it" / "metrics.csv").read_text().splitlines() == ["name,step,value,at", "loss,3,0.5,7.0"]


def test_inputs(spell: Spell, tmp_path: Path) -> None:
    one = spell.run("mkdir d; echo x > d/f; ln -s f d/l; echo y > g").number
    mounts = (parse_mount(f"runs/{one}/d:in"), parse_mount(f"runs/{one}/g"))
    two = spell.run("cat in/f g", mounts=mounts).number
    assert spell("export", str(two), "-o", str(tmp_path / "without")).code == 0
    assert not (tmp_path / "without" / "inputs").exists()
    assert "runs/1" not in (tmp_path / "without" / "spec.yaml").read_text() or one == 1
    assert spell("export", str(two), "-o", str(tmp_path / "with"), "--with-inputs").code == 0
    inputs = tmp_path / "with" / "inputs" / "runs" / str(one)
    assert files_of(inputs) == {"d/f", "d/l", "g"} and (inputs / "d" / "f").read_text() == "x\n"
    folder = spell.home.run_dir(one)
    for path in (folder, folder / "d"):
        path.chmod(0o755)
    shutil.rmtree(folder)
    done = spell("export", str(two), "-o", str(tmp_path / "gone"), "--with-inputs")
    assert done.code == 1 and "does not exist any more" in done.err and not (tmp_path / "gone").exists()


def test_what_is_there_is_not_overwritten(spell: Spell, tmp_path: Path) -> None:
    number = spell.run("true").number
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("mine")
    for name in ("mine", "file", "link"):
        assert spell("export", str(number), "-o", str(tmp_path / name)).code == 2
        done = spell("export", str(number), "-f", "-o", str(tmp_path / name))
        assert done.code == 2 and "is not an earlier export" in done.err
    assert (tmp_path / "mine" / "thesis").exists() and (tmp_path / "link").is_symlink()
    assert spell("export", str(number), "-o", str(tmp_path / "ours")).code == 0
    (tmp_path / "ours" / "old").touch()
    assert spell("export", str(number), "-o", str(tmp_path / "ours")).code == 2
    assert spell("export", str(number), "-o", str(tmp_path / "ours"), "-f").code == 0
    assert not (tmp_path / "ours" / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "mine", "ours"]


def test_an_active_run_is_refused(spell: Spell, token: str) -> None:
    number = spell.cast(f"sleep {token}")
    spell.reaches(number, "running")
    done = spell("export", str(number))
    assert done.code == 1 and "is still running" in done.err
    spell.client.runs.kill(str(number))


def test_credentials_of_packages(spell: Spell, tmp_path: Path) -> None:
    text = "--extra-index-url https://me:tell-nobody@example.org/simple\n"
    spell.run("true", requirements=(RequirementFile("../r.txt", text),))
    done = spell("export", "latest", "-o", str(tmp_path / "it"))
    assert done.code == 0 and "needs your credentials" in done.err
    written = b"".join((tmp_path / "it" / name).read_bytes() for name in files_of(tmp_path / "it"))
    assert b"tell-nobody" not in written + done.err.encode()
    assert files_of(tmp_path / "it" / "requirements") == {"file-0.txt"}


def test_requirement_files_that_name_each_other(spell: Spell, repo: Path, tmp_path: Path) -> None:
    """The exported job file can be cast, and asks for the same: names that lead upwards, of a variable, and in a circle."""
    texts = {
        "a/r.txt": "# mine\n-r ../../base.txt\n-c ${LIMITS}/lim.txt  # by a variable\n-c ./c.txt\n",
        "../base.txt": "-c https://gone.invalid/file-1.txt\n",
        "a/c.txt": "six<2\n",
        "b/lim.txt": "six<3\n",
        "file-1.txt": "six<4\n",
        "a b.txt": "-c a/c.txt\n",
    }
    sent = tuple(RequirementFile(name, text) for name, text in texts.items())
    spell.run("true", requirements=sent, env={"LIMITS": "moved"})
    assert spell("export", "latest", "-o", str(repo / "it")).code == 0
    again = spell("run", "-f", "--file", "it/spec.yaml", cwd=repo)
    assert again.code == 0, again
    files = spell.client.runs.get("latest").spec["requirements"]
    found = {file["name"].removeprefix("requirements/"): file["text"] for file in files}
    assert found == {
        "a/r.txt": "# mine\n-r ../file-1.txt\n-c ../b/lim.txt\n-c ./c.txt\n",
        "file-5.txt": "-c a/c.txt\n",
        "file-1.txt": "-c file-4.txt\n",
        "b/lim.txt": "six<3\n",
        "a/c.txt": "six<2\n",
        "file-4.txt": "six<4\n",
    }
    circle = (
        RequirementFile("r.txt", "-r s.txt\nsix"),
        RequirementFile("s.txt", "-r r.txt"),
        RequirementFile("t.txt", ""),
    )
    said = yaml.safe_load(job_file(RunSpec("true", requirements=circle))[0])
    assert said["pip_req"] == ["requirements/t.txt", "requirements/r.txt"]


@pytest.mark.parametrize("name", ["it", "it.tar.gz"])
def test_an_export_that_is_cut_off_leaves_nothing(spell: Spell, tmp_path: Path, name: str) -> None:
    number = spell.run("truncate -s 1G big").number
    process = spell.popen("export", str(number), "--with-outputs", "-o", str(tmp_path / name))
    wait_for(lambda: has_written(process.pid, tmp_path), "its first bytes")
    spell.kill_server()
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 1 and "ERROR" in said
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_or_client_left_is_removed_by_the_next(
    make_spell: Callable[..., Spell], tmp_path: Path
) -> None:
    """What they keep for a moment: the files of an export, the patch of a capture, a key that is being made."""
    (tmp_path / "temporary").mkdir()
    spell = make_spell(TMPDIR=str(tmp_path / "temporary"))
    number = spell.run("truncate -s 1G big").number
    process = spell.popen("export", str(number), "--with-outputs", "-o", str(tmp_path / "it"))
    wait_for(lambda: has_written(process.pid, tmp_path), "its first bytes")
    assert list(spell.home.scratch.iterdir())
    spell.kill_server()
    process.communicate(timeout=30)
    assert list(spell.home.scratch.iterdir())
    (spell.home.store / "secrets.key.1-abc").write_text("half")
    for name in ("dead", "alive"):
        folder = tmp_path / "temporary" / f"spell-capture-{name}"
        (folder / "0").mkdir(parents=True)
        os.utime(folder, (1e9, 1e9))
    alive = os.open(tmp_path / "temporary" / "spell-capture-alive", os.O_RDONLY)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert spell("ps").code == 0
        wait_for(lambda: not list(spell.home.scratch.iterdir()), "the end of the export's files")
    finally:
        os.close(alive)
    assert {path.name for path in (tmp_path / "temporary").iterdir()} == {"spell-capture-alive"}
    assert not list(spell.home.store.glob("*.key.*"))


# -- without us -------------------------------------------------------------------------------------------------------


@pytest.fixture
def built() -> Iterator[list[str]]:
    """Names of images and containers, which are removed afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
        subprocess.run(["docker", "rmi", "-f", name], capture_output=True, check=False)


def test_the_dockerfile_runs_it(docker_spell: Spell, repo: Path, tmp_path: Path, built: list[str]) -> None:
    if not shutil.which("docker"):
        go_without("there is no docker command")
    spell = docker_spell
    wheel = make_wheel(tmp_path / "wheels", "exported", code="WORD = 'from a wheel'\n")
    spell("run", "-f", "--from", TEST_IMAGE, "echo input > data")
    (repo / "deep").mkdir()
    (repo / "deep" / "go.py").write_text(
        "import os, sys, exported, hello\nfrom orchestrator.runtime import send_metric\nsend_metric('loss', 1)\n"
        "print(exported.WORD, sys.argv[1], os.environ['WHO'], open('in/data').read())\nopen('out', 'w').write('left')\n"
    )
    git(repo, "add", ".")
    options = ["--from", TEST_IMAGE, "--pip", str(wheel), "-m", "runs/1:in", "-e", "WHO=me", "--param", "X=$HOME 'x'"]
    done = spell("run", "-f", *options, 'python go.py ":X:"', cwd=repo / "deep")
    assert done.code == 0, done
    log = spell.log(2)
    assert log.startswith(b"hello\nfrom a wheel /")
    target = tmp_path / "it"
    assert spell("export", "2", "-o", str(target), "--with-inputs", "--with-outputs").code == 0
    spell.end()
    (target / "variables.env").write_text("WHO=me\n")
    tag = f"spell-test-export-{os.getpid()}"
    built.append(tag)
    build, run, copy = (
        line.strip().replace("spell-run-2", tag)
        for line in re.findall(r"^    (docker [^#\n]*)", (target / "README.md").read_text(), re.MULTILINE)
    )
    made = subprocess.run(build, shell=True, cwd=target, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    ran = subprocess.run(run, shell=True, cwd=target, capture_output=True, check=False)
    home = re.search(rb"from a wheel (\S+) x ", log) or re.search(rb"from a wheel (\S+)", log)
    assert home
    assert ran.returncode == 0, ran
    assert _words(ran.stdout) == _words(log)
    subprocess.run(copy, shell=True, cwd=target, capture_output=True, check=True)
    assert (target / "result" / "deep" / "out").read_text() == "left"
    assert (target / "outputs" / "deep" / "out").read_text() == "left"


def _words(said: bytes) -> list[bytes]:
    """What was said, but for the home that the shell filled in."""
    return re.sub(rb"from a wheel \S+", b"from a wheel ~", said).split()


def test_wheels_of_find_links_come_along(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    """No index has them, and an exported run is to be built anywhere."""
    make_wheel(tmp_path / "wheels", "linked", "1.0+mine")
    spell = make_spell(PIP_FIND_LINKS=str(tmp_path / "wheels"), PIP_NO_INDEX="1")
    assert spell("run", "-f", "--pip", "linked", "python -c 'import linked'").code == 0
    assert spell("export", "1", "-o", str(tmp_path / "it")).code == 0
    assert files_of(tmp_path / "it" / "wheels") == {"linked-1.0+mine-py3-none-any.whl"}
    lines = (tmp_path / "it" / "requirements.txt").read_text().splitlines()
    assert lines == ["--find-links wheels", "--no-index", "linked==1.0+mine"]
    (tmp_path / "wheels" / "linked-1.0+mine-py3-none-any.whl").unlink()
    done = spell("export", "1", "-o", str(tmp_path / "again"))
    assert done.code == 0 and "linked==1.0+mine is a build that PyPI does not have" in done.err


def test_folders_with_names_of_any_letters(spell: Spell, repo: Path, tmp_path: Path) -> None:
    folder = repo / "sub dir" / "üx"
    folder.mkdir(parents=True)
    (folder / "go.py").write_text("print('went')\n")
    git(repo, "add", ".")
    number = spell("run", "-f", "python go.py", cwd=folder).number
    assert spell("export", str(number), "-o", str(tmp_path / "it")).code == 0
    assert 'WORKDIR "/spell/sub dir/üx"' in (tmp_path / "it" / "Dockerfile").read_text()
    again = re.search(r"^With spell: `(.*)`", (tmp_path / "it" / "README.md").read_text(), re.MULTILINE)
    assert again
    identity = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "user.email", "GIT_CONFIG_VALUE_0": "a@example.org",
                "GIT_CONFIG_KEY_1": "user.name", "GIT_CONFIG_VALUE_1": "A"}  # fmt: skip
    env = {**os.environ, **spell.env, **identity, "PATH": f"{BIN}:{os.environ['PATH']}"}
    words = again[1].replace("spell run", "spell run -f")
    done = subprocess.run(words, shell=True, cwd=tmp_path / "it", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "\nwent\n" in done.stdout, done
    assert spell("export", "latest", "-o", str(tmp_path / "it.zip")).code == 2
