"""Requirement files as people bring them: read from this machine, from the run's code, or from a URL."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import Spell, git

from orchestrator.capture import snapshot
from orchestrator.cli.input.requirements import requirement_files
from orchestrator.environments import EnvironmentRequest, check_request, refuse_repositories
from orchestrator.environments.request import pins, read
from orchestrator.environments.settings import uv_settings
from orchestrator.errors import InvalidConfig
from orchestrator.spec.fields import FileName
from orchestrator.spec.run import RequirementFile


def sent(folder: Path, *names: str, **env: str) -> dict[str, str]:
    """What a cast sends for these files, which the server must take."""
    files = requirement_files([FileName(name, folder, is_typed=True) for name in names], env, None)
    check_request(EnvironmentRequest("", (), files))
    return {file.name: file.text for file in files}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "r.txt").write_text("six  # größer\n", encoding)
    assert sent(tmp_path, "r.txt") == {"r.txt": "six  # größer\n"}


def test_an_encoding_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes("# -*- coding: latin-1 -*-\nsix  # größer\n".encode("latin-1"))
    assert "größer" in sent(tmp_path, "r.txt")["r.txt"]
    (tmp_path / "r.txt").write_bytes("six\n# größer\n".encode("latin-1"))
    with pytest.raises(InvalidConfig, match=r"r\.txt, line 2: this is not text in UTF-8"):
        sent(tmp_path, "r.txt")


def test_references_lead_to_files_by_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of one name are two files; variables of this shell and of the run fill the paths of files here."""
    for name, text in {
        "r.txt": "-r a/base.txt\n-r b/base.txt\n-c ${ROOT}/lim.txt\n-r ${OF_RUN}.txt",
        "a/base.txt": "six",
        "b/base.txt": "tqdm\n-r ../r.txt",
        "lim.txt": "six<2",
        "more.txt": "idna",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("ROOT", str(tmp_path))
    files = requirement_files([FileName("r.txt", tmp_path)], {"OF_RUN": "more"}, None)
    assert [file.name for file in files] == ["r.txt", "a/base.txt", "b/base.txt", "lim.txt", "more.txt"]
    asked = read(EnvironmentRequest("", (), files, variables={"OF_RUN": "more"}))
    assert [file.constraints_only for file in asked.files] == [False, False, False, True, False]
    assert [getattr(line, "file", None) for line in asked.files[0].lines] == [1, 2, 3, 4]
    (tmp_path / "r.txt").write_text("six\n\n-r none.txt")
    with pytest.raises(InvalidConfig, match=r"r\.txt, line 3: It refers to 'none\.txt', but there is no file"):
        sent(tmp_path, "r.txt")


def test_files_of_one_name_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name is of one file, and what a file refers to is what it means here, also after a variable has changed."""
    texts = {
        "a/r.txt": "idna\n-c \\\n  c.txt  # limits\nsix",
        "a/c.txt": "idna<4",
        "b/q.txt": "idna\n-c c.txt\n-r ../a/link.txt\n-c ${HERE}/more/c.txt\n",
        "b/c.txt": "tqdm==4.66.1",
        "more/c.txt": "idna<5",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "a" / "link.txt").symlink_to("r.txt")
    monkeypatch.setenv("HERE", str(tmp_path))
    (tmp_path / "cwd").mkdir()
    names = [str(tmp_path / "a/r.txt"), "../b/q.txt"]
    assert sent(tmp_path / "cwd", *names) == {
        "r.txt": texts["a/r.txt"],
        "b/q.txt": "idna\n-c c.txt\n-r ../r.txt\n-c ../2/c.txt\n",
        "c.txt": "idna<4",
        "b/c.txt": "tqdm==4.66.1",
        "2/c.txt": "idna<5",
    }
    asked = read(
        EnvironmentRequest("", (), requirement_files([FileName(n, tmp_path / "cwd") for n in names], {}, None))
    )
    assert [file.constraints_only for file in asked.files] == [False, False, True, True, True]
    (tmp_path / "b" / "r.txt").write_text(texts["a/r.txt"])
    files = sent(tmp_path, str(tmp_path / "a/r.txt"), str(tmp_path / "b/r.txt"))
    assert [*files] == ["r.txt", "2/r.txt", "c.txt", "2/c.txt"] and files["2/c.txt"] == "tqdm==4.66.1"
    with serving(tmp_path) as url:
        assert [*sent(tmp_path, f"{url}/a/r.txt", f"{url}/b/r.txt")] == [*files]
    moved = RequirementFile("r.txt", "-r \\\n ${D}/base.txt\n-r x/${D}/c.txt"), RequirementFile("a/base.txt", "six")
    again = read(EnvironmentRequest("", (), (*moved, RequirementFile("x/c.txt", "")), variables={"D": "b"}))
    assert [getattr(line, "file", None) for line in again.files[0].lines] == [1, 2]
    with pytest.raises(InvalidConfig, match=r"'\$\{D\}/base\.txt', which was not sent"):
        read(EnvironmentRequest("", (), (*moved, RequirementFile("c/base.txt", "")), variables={"D": "b"}))


def test_paths_of_packages_are_those_of_this_machine(tmp_path: Path) -> None:
    project = tmp_path / "lib"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    (tmp_path / "r.txt").write_text(
        "-e ./lib[all] ; python_version > '3'\n-f ./lib  # wheels\nlib/\nsix\n-e git+file:///r#egg=x"
    )
    assert sent(tmp_path, "r.txt")["r.txt"].split("\n") == [
        f"-e {project}[all] ; python_version > '3'",
        f"-f {project}",
        f"{project}",
        "six",
        "-e git+file:///r#egg=x",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pyproject.toml", "uv pip compile pyproject.toml"),
        ("poetry.lock", "poetry export"),
        ("environment.yml", "pip list --format=freeze"),
        ("Pipfile", "pipenv requirements"),
        ("uv.lock", "uv export"),
    ],
)
def test_other_files_are_refused_with_a_way(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_text("six\n")
    with pytest.raises(InvalidConfig, match="is not a requirements file") as caught:
        sent(tmp_path, name)
    assert words in caught.value.cure


def test_files_of_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "r.txt").write_text("-c lim.txt\nsix\n")
    (tmp_path / "in" / "lim.txt").write_text("six<2\n")
    (tmp_path / "page.txt").write_text("<!DOCTYPE html>\n<html>")
    (tmp_path / "long.txt").write_text("six\n" * (1 << 20) + "idna")
    (tmp_path / "secret.txt").write_text("told\n")
    (tmp_path / "thief.txt").write_text(f"six\n-r {(tmp_path / 'secret.txt').as_uri()}\n")
    with serving(tmp_path) as url:
        (tmp_path / "here.txt").write_text(f"-r {url}/in/r.txt\n")
        found = {"r.txt": "-c lim.txt\nsix\n", "lim.txt": "six<2\n"}
        assert sent(tmp_path, f"{url}/in/r.txt") == found
        assert sent(tmp_path, "here.txt") == {"here.txt": f"-r {url}/in/r.txt\n", **found}
        for place, words in (
            (f"{url}/none.txt", "answered 404"),
            (f"{url}/page.txt", "is a web page"),
            (f"{url}/long.txt", "is longer than 4 MiB"),
            (f"{url}/thief.txt", r"thief\.txt, line 2: It refers to 'file:.*, a file of this machine"),
            ("ftp://h/r", "URL"),
        ):
            with pytest.raises(InvalidConfig, match=words):
                sent(tmp_path, place)
    assert "told\n" in sent(tmp_path, "thief.txt").values(), "a file of this machine may name others"
    with pytest.raises(InvalidConfig, match="cannot be read"):
        sent(tmp_path, f"{url}/in/r.txt")


def test_a_web_server_that_never_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("orchestrator.cli.input.requirements._TIMEOUT_S", 0.2)
    over = threading.Event()

    def drip() -> None:
        connection = server.accept()[0]
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not over.wait(0.02):
                connection.sendall(b"#")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(InvalidConfig, match=r"did not end within 0\.2 s"):
                sent(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}/r.txt")
        finally:
            over.set()
            thread.join()


def test_files_of_the_code_that_runs(repo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They win over files of the same name here; a file that only this folder has is used, and that is said."""
    (repo / "deps").mkdir()
    (repo / "deps" / "r.txt").write_text("-r base.txt\n")
    (repo / "deps" / "base.txt").write_text("six==1.16.0\n")
    (repo / "dev.txt").write_text("six\n-e .\n")
    (repo / "thief.txt").write_text("-r file:///etc/hostname\n")
    (repo / "away.txt").write_text("-r /no/such/dev.txt\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "Requirements")
    code = snapshot.of_url(str(repo), "", tmp_path / "cache")
    here = tmp_path / "here"
    (here / "deps").mkdir(parents=True)
    (here / "deps" / "r.txt").write_text("tqdm\n")
    (here / "own.txt").write_text("idna\n")

    def found(name: str, *, is_typed: bool = True) -> dict[str, str]:
        files = requirement_files([FileName(name, here, is_typed)], {}, code)
        return {file.name: file.text for file in files}

    assert found("deps/r.txt") == {"deps/r.txt": "-r base.txt\n", "deps/base.txt": "six==1.16.0\n"}
    assert found("deps/r.txt", is_typed=False) == {"deps/r.txt": "tqdm\n"}, "a job file's are beside it"
    assert found("deps/base.txt", is_typed=False) == {"deps/base.txt": "six==1.16.0\n"}
    assert capfd.readouterr().err == ""
    assert found("own.txt") == {"own.txt": "idna\n"}
    assert "The run's code has no own.txt: the file of this folder is used." in capfd.readouterr().err
    with pytest.raises(InvalidConfig, match=r"There is no file 'none\.txt' in the code of"):
        found("none.txt")
    with pytest.raises(InvalidConfig, match=r"thief\.txt, line 1: It refers to .*, a file of this machine"):
        found("thief.txt")
    with pytest.raises(InvalidConfig, match=r"'/no/such/dev\.txt', which is not a file of the run's code"):
        found("away.txt")
    with pytest.raises(InvalidConfig, match=r"dev\.txt, line 2: '-e \.' is a path in the run's code") as caught:
        found("dev.txt")
    assert f"--pip 'git+file://{repo}@{code.code.commit}'" in caught.value.cure


def test_constraints_beside_hashes(tmp_path: Path) -> None:
    """pip looks at constraints of what it installs only; uv refuses each that pins no version."""
    (tmp_path / "lim.txt").write_text("numpy<3\nsix<2\n")
    (tmp_path / "pip.conf").write_text("[global]\nconstraint = lim.txt\n")
    text = (
        "--require-hashes\nsix==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n"
    )
    asked = read(EnvironmentRequest("", (), (RequirementFile("r.txt", text),)))
    env = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "HOME": str(tmp_path)}

    def settings() -> tuple[str, ...]:
        return uv_settings(env, tmp_path, asked.options, pinned=pins(asked.files)).args

    assert settings() == ("--require-hashes",)
    (tmp_path / "lim.txt").write_text("six<1.17\n")
    with pytest.raises(InvalidConfig, match=r"lim\.txt allows only six<1\.17, but six==1\.17\.0"):
        settings()


def test_a_container_sees_no_repository_of_this_machine() -> None:
    for lines, files, where in (
        (("git+file:///a/b@main#egg=x",), (), "A build"),
        ((), (RequirementFile("r.txt", "six\n-e git+file:///a/b#egg=x"),), "r.txt, line 2: A build"),
    ):
        with pytest.raises(InvalidConfig, match=f"^{where} in a container does not see the repository /a/b") as caught:
            refuse_repositories(lines, files)
        assert caught.value.cure.endswith(": /a/b")
    refuse_repositories(("git+https://h/a", "/a/b"), ())


def test_what_cannot_be_taken_is_refused_when_the_run_is_cast(make_spell: Callable[..., Spell], repo: Path) -> None:
    spell = make_spell("requirement-files")
    (repo / "conda.txt").write_text("# made by conda\nnumpy=1.26.4=py311_0\n")
    done = spell("run", "--pip-req", "conda.txt", "true", cwd=repo)
    assert (done.code, "ERROR: conda.txt, line 2: 'numpy=1.26.4=py311_0' is not a" in done.err) == (3, True), done
    assert "numpy==1.26.4" in done.err
    (repo / "deps.txt").write_text("# nothing\n")
    git(repo, "add", "deps.txt")
    git(repo, "commit", "-q", "-m", "Requirements")
    env = {"XDG_CACHE_HOME": str(repo.parent / "cache")}
    away = repo.parent / "away"
    away.mkdir()
    words = ["--github-url", str(repo), "--pip-req", "deps.txt", "--json", "cat deps.txt"]
    for cwd, typed in ((away, words), (repo, ["-c", "HEAD", *words[2:]])):
        run = spell("run", *typed, cwd=cwd, env={**os.environ, **env}).json()
        assert run["spec"]["requirements"] == [{"name": "deps.txt", "text": "# nothing\n"}]
    assert len(spell.client.runs.list()) == 2
