"""The layer of a run over its environment: what a command installs is the run's own, and goes with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, git, wait_for
from uv import find_uv_bin
from wheels import make_wheel

import orchestrator
from orchestrator.content.files import remove_tree
from orchestrator.environments import installed_in, make_layer
from orchestrator.lifecycle import notices
from orchestrator.lifecycle.variables import without_pythons

INSIDE = Path(orchestrator.__file__).parent / "inside"

INSTALL = """
set -e
pip install -q --no-index --find-links wheels tiny==2.0
python -m pip install -q --no-index --find-links wheels small
uv pip install -q --no-index --find-links wheels grown
tiny; small; grown; shared
cat "$VIRTUAL_ENV/share/shared/data.txt"
pip uninstall -q -y shared; uv pip uninstall -q shared; pip list --format=freeze; uv pip list --format=freeze 2>&-
python -c 'import shared, sys; print("last", shared.__file__.startswith(sys.prefix))'
"""
SAID = """
tiny
small
grown
2.0
data
grown==1.0
shared==1.0
small==1.0
tiny==2.0
grown==1.0
shared==1.0
small==1.0
tiny==2.0
last False
"""


def metadata(name: str, *requires: str) -> dict[str, str]:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {one}" for one in requires)]
    return {f"{name}-1.0.dist-info/METADATA": "\n".join([*lines, ""])}


@pytest.fixture
def shared(tmp_path: Path) -> list[str]:
    """Options for an environment of two packages; the script of one uses the other."""
    code = "def main(): import tiny; print(tiny.VERSION)\n"
    wheels = [
        make_wheel(tmp_path / "kept", "tiny"),
        make_wheel(
            tmp_path / "kept", "shared", code=code, extra={"shared-1.0.data/data/share/shared/data.txt": "data\n"}
        ),
    ]
    return [word for wheel in wheels for word in ("--pip", str(wheel))]


@pytest.fixture
def project(repo: Path) -> Path:
    """A repository with wheels, one of which needs what the environment has and no index."""
    make_wheel(repo / "wheels", "tiny", "2.0")
    make_wheel(repo / "wheels", "small")
    make_wheel(repo / "wheels", "grown", extra=metadata("grown", "tiny", "shared", "small"))
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "Bring wheels")
    return repo


@pytest.mark.parametrize("executor", ["process", pytest.param("docker", marks=pytest.mark.engine)])
def test_a_run_installs_for_itself(
    make_spell: Callable[..., Spell], project: Path, shared: list[str], executor: str
) -> None:
    spell = make_spell(docker=executor == "docker")
    done = spell("run", *shared, INSTALL, cwd=project)
    assert spell.log(1).decode().split() == SAID.split(), done.err
    words = "Installed for this run only: grown==1.0, small==1.0, tiny==2.0. To install them once and keep them for "
    notices = [event.text for event in spell.client.runs.events("1") if event.kind == "notice"]
    assert [text for text in notices if text.startswith(words)] == notices, "said once, and nothing else"
    assert len(notices) == 1
    assert "--pip tiny==2.0 or --pip-req FILE" in done.out
    wait_for(lambda: not spell.home.layer(1).exists(), "the end of the layer")

    after = spell("run", *shared, "pip list --format=freeze; shared; command -v small grown", cwd=project)
    assert spell.log(2).decode().split() == ["shared==1.0", "tiny==1.0", "1.0"]
    assert "Installed" not in after.out
    runs = [spell.client.runs.get(number) for number in ("1", "2")]
    assert runs[0].environment == runs[1].environment


def test_without_namespaces_an_environment_is_compared_before_it_is_used_again(
    make_spell: Callable[..., Spell], tmp_path: Path
) -> None:
    spell = make_spell(SPELL_NAMESPACES="never")
    spell("server", "start")
    tiny, small, other = (make_wheel(tmp_path, name) for name in ("tiny", "small", "other"))
    look = "import tiny; print(tiny.VERSION); import more"
    change = "import tiny; open(tiny.__file__, 'a').write('VERSION = 3')"
    add = "import tiny; open(tiny.__file__.replace('tiny.py', 'more.py'), 'w').close()"

    def run(code: str, *wheels: Path) -> tuple[bytes, list[str]]:
        install = f"python -m pip install -q --no-index {other}" if code == change else "true"
        number = spell.run(f'{install}; python -c "{code}"', pip=tuple(map(str, wheels))).number
        notices = [event.text for event in spell.client.runs.events(str(number)) if event.kind == "notice"]
        return spell.log(number), notices

    def changed(notices: list[str]) -> list[str]:
        return [text.rpartition("/")[2] for text in notices if "was changed by an earlier run" in text]

    assert changed(run(change, tiny)[1]) == []
    said, notices = run(look, tiny)
    assert said.startswith(b"1.0\n")
    assert changed(notices) == ["tiny.py), and is built again"]
    assert changed(run(add, tiny)[1]) == []
    said, notices = run(look, tiny)
    assert b"No module named 'more'" in said
    assert changed(notices) == ["more.py), and is built again"]
    run(change, tiny)
    said, notices = run(look, tiny, small)
    assert said.startswith(b"1.0\n"), "nor does it come to another environment through uv's cache"
    assert changed(notices) == []
    said, notices = run("import other", tiny)
    assert b"No module named 'other'" in said, "pip has written into the layer"
    assert changed(notices) == ["tiny.py), and is built again"]


def test_environments_are_noted_before_the_first_run_without_namespaces(
    make_spell: Callable[..., Spell], tmp_path: Path
) -> None:
    """Also one of a package whose RECORD is wrong: nothing of that was done by a run."""
    wheel = make_wheel(tmp_path, "careless")
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content + b"# changed\n" if name == "careless.py" else content)
    spell = make_spell()

    def run(code: str) -> tuple[bytes, list[str]]:
        number = spell.run(f'python -c "import careless; {code}"', pip=(str(wheel),)).number
        notices = [event.text for event in spell.client.runs.events(str(number)) if event.kind == "notice"]
        return spell.log(number), notices

    assert run("print(careless.VERSION)") == (b"1.0\n", [])
    spell("server", "stop")
    spell.env["SPELL_NAMESPACES"] = "never"
    spell("server", "start")
    assert run("open(careless.__file__.replace('careless.py', 'sitecustomize.py'), 'w').write('print(666)')")[1] == []
    said, notices = run("print(careless.VERSION)")
    assert said == b"1.0\n"
    assert [text.rpartition("/")[2] for text in notices] == ["sitecustomize.py), and is built again"]
    assert run("print(careless.VERSION)") == (b"1.0\n", [])


def test_no_folder_of_another_python_is_on_the_path(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    folders = [
        *(tmp_path / name for name in ("venv/bin", "conda/bin", "conda/condabin", ".pyenv/shims")),
        *(tmp_path / name for name in (".pyenv/versions/3.12.1/bin", ".local/bin", ".pyenv/bin")),
    ]
    more = (".asdf/shims", ".asdf/installs/python/3.12.1/bin", ".local/share/mise/shims", "linked/bin", "bin")
    folders[:0] = [tmp_path / name for name in more]
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("venv")
    (tmp_path / "bin").symlink_to("venv/bin")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("jupyter", "torchrun", "conda", "accelerate"):
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "conda" / "conda-meta").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    kept = [*map(str, folders[-2:]), f"{tmp_path}/loop", "/usr/bin", "/bin"]
    path = ":".join([*map(str, folders), f"{tmp_path}/loop", "/usr/bin", "", "/bin"])
    assert without_pythons(path).split(":") == kept

    (folders[-2] / "jupyter").unlink()
    spell = make_spell(PATH=":".join([*map(str, folders[:10]), str(Path(sys.executable).parent), "/usr/bin:/bin"]))
    spell.run("command -v jupyter torchrun conda accelerate alembic; command -v pip uv python spell")
    places = [Path(line).parent for line in spell.log(1).decode().split()]
    tools, layer = spell.home.runtime / "tools", spell.home.layer(1) / "bin"
    assert places == [layer, tools, layer, spell.home.runtime / "bin"]
    assert os.listdir(spell.home.runtime / "modules") == ["orchestrator"], "nothing else of ours can be imported"


def test_a_python_too_old_for_our_pip_uses_the_one_that_it_brings(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_bytes((INSIDE / "stand_in.py").read_bytes())
    command = f"import sys, runpy; sys.path += [{str(tmp_path)!r}]; sys.argv = ['pip', '--version']; "
    command += "runpy.run_module('pip', run_name='__main__')"
    run = [tmp_path / "venv/bin/python", "-c", command]
    none = tmp_path / "none" / "ensurepip.py"
    none.parent.mkdir()
    none.write_text("raise SystemExit(1)")
    lacks = subprocess.run(run, check=False, capture_output=True, text=True, env={"PYTHONPATH": str(none.parent)})
    assert (lacks.returncode, lacks.stdout) == (1, "")
    assert "has no pip here. Name the packages when you cast the run: spell run --pip NAME" in lacks.stderr
    has = subprocess.run(run, check=True, capture_output=True, text=True)
    assert has.stdout.startswith("pip ")
    assert str(tmp_path / "venv") in has.stdout
    assert not [name for name in installed_in(tmp_path / "venv") if name.startswith("pip==")], "pip is not named"


@pytest.mark.parametrize("name", ["bin", "lib", "lib/python3/site-packages"])
def test_nothing_is_read_through_a_link_of_an_environment(tmp_path: Path, name: str) -> None:
    """A hostile build may put a link in the place of a folder or file, which leads to a file of this machine."""
    environment, layer = tmp_path / "environment", tmp_path / "layer"
    (environment / "lib/python3/site-packages").mkdir(parents=True)
    (environment / "bin").mkdir()
    (environment / "pyvenv.cfg").touch()
    place = tmp_path / "place"
    (place / "python3" / "site-packages").mkdir(parents=True)
    (place / "secret").write_text("secret")
    for link in ("bin/script", "share"):
        (environment / link).symlink_to(place / "secret" if link == "bin/script" else place)
    make_layer(layer, environment, "/seen", ())
    assert [os.readlink(layer / link) for link in ("bin/script", "share")] == ["/seen/bin/script", "/seen/share"]

    remove_tree(environment / name)
    (environment / name).symlink_to(place)
    with pytest.raises(FileNotFoundError):
        make_layer(tmp_path / "other", environment, "/seen", ())
    found = [path for path in tmp_path.glob("other/**/*") if path.is_file()]
    assert not [path for path in found if "secret" in path.read_text()]


@pytest.mark.parametrize("place", [".", "lib", "lib/python3/site-packages"])
def test_a_layer_that_its_run_has_removed_or_replaced(tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere" / "tiny-1.0.dist-info").mkdir(parents=True)
    target = tmp_path / "layer" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    assert installed_in(tmp_path / "layer") == []
    target.symlink_to(tmp_path / "elsewhere")
    assert "tiny==1.0" not in installed_in(tmp_path / "layer")


def test_what_came_from_a_path_or_url_is_not_named_as_a_package_of_an_index(tmp_path: Path) -> None:
    make_wheel(tmp_path, "near")
    layer = tmp_path / "layer"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", layer], check=True)
    install = [find_uv_bin(), "pip", "install", "-q", "--no-index", "-p", layer, "./near-1.0-py3-none-any.whl"]
    subprocess.run(install, check=True, cwd=tmp_path)
    site = next(layer.glob("lib/*/site-packages"))
    (site / "six-1.0.dist-info").mkdir()
    near = f"near (from {tmp_path}/near-1.0-py3-none-any.whl)"
    for name, words in {
        "far": {"url": "https://me:secret@example.org/far.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
        "odd": {"url": "file:///a%0A\x1b[1m"},
    }.items():
        (site / f"{name}-1.0.dist-info").mkdir()
        (site / f"{name}-1.0.dist-info" / "direct_url.json").write_text(json.dumps(words))
    far = "git+https://****@example.org/far.git@abc"
    assert installed_in(layer) == [f"far @ {far}", near, "odd (from elsewhere)", "six==1.0"]
    words = notices.of_packages([f"far @ {far}", near, "six==1.0"])
    assert words.endswith(
        f"those of an index or URL once and keep them for later runs, cast with --pip '{far}' --pip six==1.0 or --pip-req FILE"
    )
    assert notices.of_packages([near]) == f"Installed for this run only: {near}"
