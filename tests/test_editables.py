"""Projects of the code, installed editable: src layouts, commands, metadata, local dependencies, from the snapshot only."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from conftest import Spell, git
from wheels import make_wheel

from orchestrator.content.manifest import FILE, Entry, make
from orchestrator.environments import projects_of
from orchestrator.errors import InvalidConfig

_BACKEND = """
import os, pathlib, tomllib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    here = pathlib.Path.cwd()
    project = tomllib.loads((here / "pyproject.toml").read_text())["project"]
    name, version = project["name"], os.environ.get("SETUPTOOLS_SCM_PRETEND_VERSION") or project["version"]
    package = here / "src" / name
    (package / "_made.py").write_text(f"VERSION = {version!r}\\n")
    (here / "build").mkdir()
    (here / "build" / "left.py").touch()
    (here / f"{name}.egg-info").mkdir()
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}"]
    metadata += [f"Requires-Dist: {line}" for line in project.get("dependencies", ())]
    for extra, lines in project.get("optional-dependencies", {}).items():
        metadata += [f"Provides-Extra: {extra}", *(f"Requires-Dist: {line} ; extra == '{extra}'" for line in lines)]
    files = {
        f"__editable__{name}.pth": f"{here}/src\\n",
        f"{info}/METADATA": "\\n".join(metadata) + "\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/entry_points.txt": f"[console_scripts]\\n{name} = {name}:main\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(pathlib.Path(wheel_directory, f"{name}-{version}-py3-none-any.whl"), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{name}-{version}-py3-none-any.whl"
"""
_MAIN = """
import importlib.metadata, {name}._made
def main():
    print({name!r}, importlib.metadata.version({name!r}), {name}._made.VERSION, __file__)
"""


def make_project(folder: Path, name: str, more: str = "", version: str = "1.0") -> None:
    """A project with a src layout, whose build backend is its own, so that no index is asked."""
    (folder / "src" / name).mkdir(parents=True, exist_ok=True)
    (folder / "src" / name / "__init__.py").write_text(_MAIN.format(name=name))
    (folder / "backend.py").write_text(_BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n{more}'
    )


@pytest.fixture
def project(repo: Path, tmp_path: Path) -> Path:
    """A project that needs one beside it in the repository, and two wheels, one by an extra."""
    wheel, extra = (make_wheel(tmp_path / "wheels", name) for name in ("spellneed", "spellextra"))
    more = f"""
dependencies = ["sidelib", "spellneed @ {wheel.as_uri()}", "nowhere; python_version < '3'"]
optional-dependencies = {{fast = ["spellextra @ {extra.as_uri()}"]}}
[tool.uv.sources]
sidelib = {{path = "libs/sidelib"}}
"""
    make_project(repo, "mainone", more)
    make_project(repo / "libs" / "sidelib", "sidelib")
    git(repo, "add", "-A")
    return repo


def builds(spell: Spell, number: int) -> bool:
    log = spell.home.build_log(number)
    return log.exists() and b"Making an environment" in log.read_bytes()


def test_a_project_is_installed_from_the_snapshot(spell: Spell, project: Path) -> None:
    """Commands, metadata, local dependencies and extras are there; nothing is left, and no edit of code builds."""
    command = "mainone && sidelib && spellneed && pip list && echo x > out.txt"
    words = ("--no-project", "--editable", ".[fast]")
    assert spell("env", *words, "--json", cwd=project).json()["key"] == "", "what they need is not known yet"
    done = spell("run", *words, command, cwd=project)
    assert done.code == 0, done
    known = spell("env", *words, "--json", cwd=project).json()
    assert (known["is_built"], known["key"]) == (True, spell.client.runs.get(done.number).environment)
    code = spell.home.work_dir(done.number) / "code"
    assert f"mainone 1.0 1.0 {code}/src/mainone/__init__.py" in done.out
    assert f"sidelib 1.0 1.0 {code}/libs/sidelib/src/sidelib/__init__.py" in done.out
    assert "spellextra" in done.out, "it was wanted by an extra"
    assert sorted(path.name for path in spell.home.run_dir(done.number).rglob("*")) == ["out.txt"]
    assert not list(project.rglob("_made.py")), "the live folder is only read"
    assert "installed" not in done.err, "the run itself has installed nothing"

    main = project / "src" / "mainone" / "__init__.py"
    main.write_text(main.read_text().replace("print(", "print('edited',"))
    (project / "libs" / "sidelib" / "src" / "sidelib" / "more.py").touch()
    edited = spell(
        "run", "--no-project", "--include-untracked", "--editable", "../../.[fast]", command, cwd=main.parent
    )
    assert "edited mainone 1.0 1.0" in edited.out
    assert not builds(spell, edited.number)
    assert (
        spell("run", "--no-project", "--reuse", "--include-untracked", "--editable", ".", "mainone", cwd=project).code
        == 0
    )

    rerun = spell("rerun", str(done.number))
    assert f"mainone 1.0 1.0 {spell.home.work_dir(rerun.number)}" in rerun.out
    assert not builds(spell, rerun.number)


def test_metadata_alone_builds_no_package_again(spell: Spell, project: Path, tmp_path: Path) -> None:
    wheel = (tmp_path / "wheels" / "spellneed-1.0-py3-none-any.whl").as_uri()
    first = spell("run", "--no-project", "--editable", ".", "true", cwd=project)
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace('version = "1.0"', 'version = "1.1"'))
    second = spell("run", "--no-project", "--editable", ".", "mainone; python -c 'import spellneed'", cwd=project)
    assert "mainone 1.1 1.1" in second.out
    assert spell.client.runs.get(first.number).environment == spell.client.runs.get(second.number).environment
    (project / "pyproject.toml").write_text(text.replace(f'"spellneed @ {wheel}", ', ""))
    third = spell("run", "--no-project", "--editable", ".", "mainone; ! python -c 'import spellneed'", cwd=project)
    assert third.code == 0, third


def test_requirements_name_projects_of_the_code(spell: Spell, project: Path) -> None:
    """A folder in a requirements file is that of the snapshot, whatever code the run has; hashes are those of a lock."""
    (project / "requirements.txt").write_text("# ours\n-e .[fast] # all\n./libs/sidelib ; python_version > '3'\n")
    git(project, "add", "-A")
    git(project, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all")
    for more in ((), ("--commit-ref", "HEAD")):
        done = spell("run", *more, "--pip-req", "requirements.txt", "sidelib && spellextra", cwd=project)
        assert (done.code, "sidelib 1.0 1.0" in done.out) == (0, True), done
    spec = spell.client.runs.get(done.number).spec
    assert spec["editables"] == [".[fast]", "libs/sidelib"]
    assert "-e" not in spec["requirements"][0]["text"]
    assert len(spec["requirements"][0]["text"].splitlines()) == 3, "lines keep their numbers"


def test_what_is_no_project_casts_nothing(spell: Spell, project: Path, tmp_path: Path) -> None:
    (project / "empty").mkdir()
    (project / "empty" / "pyproject.toml").write_text("[tool.ruff]\nline-length = 120\n")
    (project / "bad").mkdir()
    (project / "bad" / "pyproject.toml").write_text("[project\n")
    git(project, "add", "-A")
    for folder, words in (
        (
            "src",
            "The run's code has no Python project in 'src'.\n       There is one in 'bad', 'empty', 'libs/sidelib', '.'.",
        ),
        ("../else", "--editable ../else: the folder is not in the run's code.\n"),
        ("empty", "empty/pyproject.toml describes no package: it has no table [project]."),
        ("bad", "bad/pyproject.toml cannot be read: "),
        ("x[", "'x[' is not of the form FOLDER or FOLDER[EXTRA]."),
    ):
        done = spell("run", "--no-project", "--editable", folder, "true", cwd=project)
        assert words in done.err, (folder, done)
    done = spell("run", "--no-code", "--no-project", "--editable", ".", "true", cwd=tmp_path)
    assert "There is no code, so no project of it can be installed." in done.err
    assert spell.client.runs.list() == []


def test_real_setuptools_in_a_flat_layout(spell: Spell, repo: Path) -> None:
    """Its finder names the package by an absolute path, and the project's folder of the same name does not hide it."""
    folder = repo / "flat"
    (folder / "flat").mkdir(parents=True)
    (folder / "flat" / "__init__.py").write_text("def main():\n    print('flat', __file__)\n")
    (folder / "tools").mkdir()
    (folder / "tools" / "notes.py").touch()  # a second folder with code, so setuptools must be told which is a package
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\n[project]\nname = "flat"\nversion = "2"\n'
        '[project.scripts]\nflat = "flat:main"\n[tool.setuptools]\npackages = ["flat"]\n'
    )
    git(repo, "add", "-A")
    done = spell("run", "--no-project", "--editable", "flat", "flat", cwd=repo)
    assert f"flat {spell.home.work_dir(done.number)}/code/flat/flat/__init__.py" in done.out, done
    assert not list(spell.home.run_dir(done.number).rglob("*"))


def test_a_version_from_the_history_is_told(tmp_path: Path) -> None:
    """What a build reads, and nothing else, makes the key; a version that only git knows is told to it."""
    blobs = {name * 32: tmp_path / name for name in ("aa", "bb", "cc", "dd")}
    for path in blobs.values():
        path.write_text("")
    paths = dict(zip(("pyproject.toml", "src/p/__init__.py", "src/p/other.py", "src/p/fast.c"), blobs, strict=True))

    def content(text: str, **changed: str) -> tuple[str, dict[str, str]]:
        (tmp_path / "aa").write_text(text)
        entries = [
            Entry(path, FILE, changed.get(path.rpartition("/")[2][:-2], digest), 1) for path, digest in paths.items()
        ]
        found = projects_of(make(entries), ["."], {}, blobs.__getitem__)
        return found.content, dict(found.variables)

    static = '[project]\nname = "p"\nversion = "1"\n'
    assert content(static) == content(static, __init__="ee" * 32, other="ee" * 32), "an edit of code"
    assert content(static) != content(static, fast="ee" * 32), "of a native source"
    dynamic = '[build-system]\nrequires = ["setuptools-scm"]\n[project]\nname = "p"\ndynamic = ["version"]\n'
    assert content(dynamic)[1]["SETUPTOOLS_SCM_PRETEND_VERSION"] == "0.0.0"
    assert content(dynamic)[0] != content(dynamic, **{"__init__.": "ee" * 32})[0]
    assert content(dynamic + '[tool.setuptools_scm]\nfallback_version = "3"\n')[1] == {}
    with pytest.raises(InvalidConfig, match="no Python project in 'q'"):
        projects_of(make([]), ["q"], {}, blobs.__getitem__)


@pytest.mark.parametrize(
    ("metadata", "changed", "unchanged"),
    [
        ({"setup.py": "import os\nopen(os.path.join('requirements', 'base' + '.txt'))"}, "requirements/base.txt", "x/meta.py"),
        ({"setup.py": "from tools.told import VERSION\n"}, "src/tools/told.py", "x/meta.py"),
        ({"setup.py": "from setuptools import setup\nsetup()\n"}, "setup.py", "requirements/base.txt"),
        ({"pyproject.toml": '[project]\nname="p"\ndynamic=["dependencies"]'}, "requirements/base.txt", "x/meta.py"),
        (
            {"pyproject.toml": '[project]\nname="p"\ndynamic=["version"]\n[tool.setuptools.dynamic]\nversion={attr="x.meta.VERSION"}'},
            "x/meta.py",
            "requirements/base.txt",
        ),
        ({"setup.cfg": "[metadata]\nversion = attr: x.meta.VERSION"}, "x/meta.py", "requirements/base.txt"),
        ({"pyproject.toml": '[project]\nname="p"\nversion="1"'}, "pyproject.toml", "requirements/base.txt"),
        (
            {"pyproject.toml": '[project]\nname="p"\nversion="1"\n[tool.hatch.build.hooks.custom]\npath="tools/a.py"'},
            "requirements/base.txt",
            "x/meta.py",
        ),
    ],
)  # fmt: skip
def test_what_code_of_a_build_may_read_makes_the_key(
    tmp_path: Path, metadata: dict[str, str], changed: str, unchanged: str
) -> None:
    texts = {**dict.fromkeys(("requirements/base.txt", "x/meta.py", "src/tools/told.py", "x/other.py"), ""), **metadata}

    def content(edited: str = "") -> str:
        entries = []
        for path, text in texts.items():
            told = text + "\n# edited" * (path == edited)
            digest = hashlib.sha256(f"{path} {told}".encode()).hexdigest()
            (tmp_path / digest).write_text(told)
            entries.append(Entry(path, FILE, digest, len(told)))
        return projects_of(make(entries), ["."], {}, tmp_path.joinpath).content

    assert content() == content(unchanged) == content("x/other.py")
    assert content() != content(changed)


@pytest.mark.engine
def test_containers_see_projects_at_their_own_path(docker_spell: Spell, project: Path) -> None:
    done = docker_spell("run", "--no-project", "--editable", ".", "mainone && sidelib", cwd=project)
    assert "mainone 1.0 1.0 /spell/src/mainone/__init__.py" in done.out, done
    assert "sidelib 1.0 1.0 /spell/libs/sidelib/src/sidelib/__init__.py" in done.out
