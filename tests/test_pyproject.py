"""The environment that code says: what is found, in which order, and what is refused with which words."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from conftest import Spell, git
from wheels import make_wheel

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.input.environment import applied, line_of
from orchestrator.content.manifest import FILE, Entry, make
from orchestrator.errors import InvalidConfig
from orchestrator.pyproject.asked import Asked
from orchestrator.pyproject.find import Wanted, find
from orchestrator.pyproject.found import Found
from orchestrator.spec.run import Code, RunSpec

OWN = "{}.{}".format(*sys.version_info)
HASHES = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "c" * 64
PROJECT = '[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.9"\n'
BUILT = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
URL = "https://files.example.org"

LOCK = f"""\
version = 1
revision = 3
requires-python = ">=3.9"

[manifest]
members = ["demo", "lib"]

[[package]]
name = "demo"
version = "1"
source = {{ editable = "." }}
dependencies = [{{ name = "lib" }}, {{ name = "six" }}]
[package.optional-dependencies]
more = [{{ name = "idna" }}]
[package.dev-dependencies]
dev = [{{ name = "iniconfig" }}]
docs = [{{ name = "attrs", marker = "sys_platform == 'win32'" }}]
[package.metadata]
requires-dist = [
    {{ name = "idna", marker = "extra == 'more'", specifier = ">=3" }},
    {{ name = "lib", editable = "libs/lib" }},
    {{ name = "six" }},
]
provides-extras = ["more"]
[package.metadata.requires-dev]
dev = [{{ name = "iniconfig" }}]
docs = [{{ name = "attrs", marker = "sys_platform == 'win32'" }}]

[[package]]
name = "lib"
version = "1"
source = {{ editable = "libs/lib" }}

[[package]]
name = "attrs"
version = "2"
source = {{ registry = "https://pypi.org/simple" }}
wheels = [{{ url = "{URL}/attrs-2-py3-none-win_amd64.whl", hash = "{HASHES[0]}" }}]

[[package]]
name = "idna"
version = "3"
source = {{ registry = "https://other.example.org/simple" }}
sdist = {{ url = "{URL}/idna-3.tar.gz", hash = "{HASHES[0]}" }}

[[package]]
name = "iniconfig"
version = "4"
source = {{ registry = "https://pypi.org/simple" }}
wheels = [{{ url = "{URL}/iniconfig-4-py3-none-any.whl", hash = "{HASHES[0]}" }}]

[[package]]
name = "six"
version = "5"
source = {{ registry = "https://pypi.org/simple" }}
wheels = [
    {{ url = "{URL}/six-5-cp311-cp311-win_amd64.whl", hash = "{HASHES[1]}" }},
    {{ url = "{URL}/six-5-py3-none-any.whl", hash = "{HASHES[2]}" }},
]
"""
UV = {
    "uv.lock": LOCK,
    "pyproject.toml": PROJECT + 'dependencies = ["six", "lib"]\n[project.optional-dependencies]\nmore = ["idna>=3"]\n'
    '[dependency-groups]\ndev = ["iniconfig"]\ndocs = ["attrs ; sys_platform == \'win32\'"]\n'
    + BUILT
    + '[tool.uv.workspace]\nmembers = ["libs/*"]\n[tool.uv.sources]\nlib = { workspace = true }\n',
    "libs/lib/pyproject.toml": PROJECT.replace("demo", "lib") + BUILT,
}
PYLOCK = """\
lock-version = "1.0"
created-by = "x"
extras = ["gpu"]
[[packages]]
name = "six"
version = "1"
marker = "python_version >= '3'"
index = "https://pypi.org/simple"
[[packages]]
name = "idna"
version = "2"
marker = "'gpu' in extras"
[[packages]]
name = "lib"
directory = { path = "libs/lib", editable = true }
[[packages]]
name = "tool"
vcs = { type = "git", url = "https://example.org/tool.git", commit-id = "abc" }
"""
POETRY = """\
[[package]]
name = "six"
version = "1"
optional = false
groups = ["main"]
files = [{ file = "six-1-py3-none-any.whl", hash = "sha256:00" }, { file = "six-1-cp39-cp39-win32.whl", hash = "sha256:11" }]
[[package]]
name = "idna"
version = "2"
optional = false
groups = ["dev"]
markers = "python_version < '4'"
files = []
[[package]]
name = "attrs"
version = "3"
optional = true
groups = ["main", "docs"]
files = []
markers = { main = "extra == \\"more\\"" }
[extras]
more = ["attrs"]
[metadata]
lock-version = "2.1"
python-versions = ">=3.9"
"""
PDM = """\
[metadata]
groups = ["default", "dev"]
lock_version = "4.5.0"
[[package]]
name = "six"
version = "1"
groups = ["default"]
files = [{ file = "six-1-py3-none-any.whl", hash = "sha256:00" }]
[[package]]
name = "idna"
version = "2"
groups = ["dev"]
marker = "python_version < '4'"
files = []
"""
PIPFILE = json.dumps(
    {
        "_meta": {"sources": [{"name": "pypi", "url": "https://pypi.org/simple"}], "requires": {}},
        "default": {"six": {"version": "==1", "hashes": ["sha256:00"], "index": "pypi"}},
        "develop": {"idna": {"version": "==2", "markers": "python_version < '4'"}},
    }
)
SCRIPT = "# /// script\n# dependencies = ['six<2']\n# requires-python = '>=3.9'\n# ///\nimport six\n"


class Blobs(dict[str, bytes]):
    """Files by their digests, in memory."""

    def reader(self, digest: str, size: int) -> BinaryIO:
        assert len(self[digest]) == size
        return io.BytesIO(self[digest])


def code_of(files: Mapping[str, str], subdir: str = "") -> Snapshot:
    """A snapshot of these files."""
    blobs = Blobs({hashlib.sha256(text.encode()).hexdigest(): text.encode() for text in files.values()})
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    manifest = make([Entry(name, FILE, digest, len(blobs[digest])) for name, digest in digests.items()])
    sizes = {digest: len(data) for digest, data in blobs.items()}
    return Snapshot(manifest, Code(manifest.tree, subdir), "", (), (), sizes, blobs)


def look(
    files: Mapping[str, str], subdir: str = "", command: str = "true", cache: Path | None = None, **more: Any
) -> Found | None:
    """What is found for a command in a folder of code with these files."""
    return find(Wanted(code_of(files, subdir), command, **{"root": "/nowhere", **more}), cache)


def write(root: Path, files: Mapping[str, str]) -> None:
    """Add these files to a repository."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "add", "-A")


def lines(found: Found | None) -> list[str]:
    """The requirement lines, without hashes."""
    assert found is not None
    text = "".join(text for _, text in found.lines)
    return [line.partition(" --hash")[0] for line in text.splitlines() if line]


@pytest.mark.parametrize(
    ("files", "file", "wanted", "editables"),
    [
        ({"pylock.toml": PYLOCK, "libs/lib/a.py": ""}, "pylock.toml",
         ["six==1 ; python_version >= '3'", "tool @ git+https://example.org/tool.git@abc"], ("libs/lib",)),
        ({"poetry.lock": POETRY, "pyproject.toml": PROJECT + 'dependencies = ["six"]\n' + BUILT}, "poetry.lock", ["six==1"], (".",)),
        ({"Pipfile.lock": PIPFILE, "Pipfile": "[packages]\nsix = '*'\n"}, "Pipfile.lock", ["six==1"], ()),
        ({"pdm.lock": PDM}, "pdm.lock", ["six==1"], ()),
        ({"requirements.txt": "six\n\n-r more/a.txt\n-e .[gpu]\n", "more/a.txt": "-c ../c.txt\nidna # x\n", "c.txt": "six<9\n",
          "pyproject.toml": PROJECT + 'dependencies = ["attrs"]\n[project.optional-dependencies]\ngpu = ["toml"]\n'},
         "requirements.txt", ["six", "-r more/a.txt", "-c ../c.txt", "idna", "six<9", "attrs", "toml"], (".[gpu]",)),
        ({"pyproject.toml": PROJECT + 'dependencies = ["six", "a", "b", "lib[x]", "demo[z]"]\n[project.optional-dependencies]\nz = ["zz"]\n'
          '[tool.uv.sources]\na = { git = "https://example.org/a", tag = "v1" }\nb = { index = "mine" }\nlib = { path = "lib" }\n'
          '[[tool.uv.index]]\nname = "mine"\nurl = "https://mine.example.org/simple"\n', "lib/pyproject.toml": PROJECT.replace("demo", "lib")
          + 'dependencies = ["idna"]\n[project.optional-dependencies]\nx = ["attrs"]\n' + BUILT}, "pyproject.toml",
         ["--extra-index-url https://mine.example.org/simple", "six", "a @ git+https://example.org/a@v1", "b", "idna", "attrs", "zz"],
         ("lib[x]",)),
        ({"environment.yml": "dependencies: [python=3.11, pip, {pip: [six, idna>=3]}]\n"}, "environment.yml", ["six", "idna>=3"], ()),
        ({".python-version": "3.12\n"}, ".python-version", [], ()),
        ({"pyproject.toml": "[tool.ruff]\n"}, None, [], ()),
        ({"requirements.txt": "six\n", "pyproject.toml": "[tool.spell]\nenvironment = false\n"}, None, [], ()),
    ],
)  # fmt: skip
def test_each_kind_of_file(
    files: dict[str, str], file: str | None, wanted: list[str], editables: tuple[str, ...]
) -> None:
    found = look(files)
    if file is None:
        assert found is None
        return
    assert found is not None
    assert (found.file, sorted(lines(found)), found.editables) == (file, sorted(wanted), editables)


def test_what_is_chosen_of_other_locks() -> None:
    poetry, pdm, pipfile = {"poetry.lock": POETRY}, {"pdm.lock": PDM}, {"Pipfile.lock": PIPFILE}
    dev = "idna==2 ; python_version < '4'"
    assert lines(look(poetry, asked=Asked(("dev",), ("more",)))) == ["six==1", dev, "attrs==3"]
    assert lines(look(poetry, asked=Asked(("docs",)))) == ["six==1", "attrs==3"]
    assert lines(look(pdm, asked=Asked(("dev",)))) == lines(look(pipfile, asked=Asked(("dev",)))) == ["six==1", dev]
    for files in (poetry, pdm, pipfile):
        with pytest.raises(InvalidConfig, match="has no group 'nope'") as caught:
            look(files, asked=Asked(("nope",)))
        assert "dev" in caught.value.cure


def test_uv_lock() -> None:
    found = look(UV)
    assert found is not None
    assert (found.file, found.packages, found.is_exact, found.editables) == ("uv.lock", 2, True, (".", "libs/lib"))
    text = found.lines[0][1]
    assert text == (
        f"--extra-index-url https://other.example.org/simple\niniconfig==4 --hash={HASHES[0]}\nsix==5 --hash={HASHES[2]}\n"
    )
    assert (
        line_of(found, RunSpec("x"))
        == f"Environment from uv.lock: 2 packages, Python {OWN}, this project, libs/lib editable"
    )
    chosen = look(UV, asked=Asked(("docs",), ("more",)))
    assert lines(chosen)[1:] == ["attrs==2 ; sys_platform == 'win32'", "idna==3", "iniconfig==4", "six==5"]
    assert chosen is not None and chosen.packages == 3
    member = look(UV, "libs/lib")
    assert member is not None and (member.file, member.editables, member.packages) == ("uv.lock", ("libs/lib",), 0)
    # Its version and description do not matter, what it depends on does.
    assert look(UV | {"pyproject.toml": UV["pyproject.toml"].replace('"1"', '"2"\ndescription = "x"')}) == found


def test_packages_of_the_person_come_to_those_that_are_found() -> None:
    found = look(UV)
    assert found is not None
    spec = applied(RunSpec("x", pip=("SIX==6", "toml"), python=""), found, Asked(("dev",)))
    assert spec.pip == ("SIX==6", "toml")
    assert "six==5" not in spec.requirements[0].text and "iniconfig==4" in spec.requirements[0].text
    assert spec.source is not None and (spec.source.file, spec.source.groups) == ("uv.lock", ("dev",))


def test_the_nearest_folder_and_in_it_the_first_kind() -> None:
    files = {
        "requirements.txt": "six\n",
        "environment.yml": "junk: [",
        "sub/pyproject.toml": "[tool.x]\n",
        "sub/s.py": SCRIPT,
    }
    found = look(files, "sub")
    assert found is not None and found.file == "requirements.txt"
    script = look(files, "sub", "cd . && python -u ./s.py --x")
    assert script is not None and (script.file, lines(script)) == ("sub/s.py", ["six<2"])
    assert look(files, "sub", "python 'unclosed s.py") == script
    assert look(files, "", "python s.py") == found
    nearer = look(files | {"pylock.toml": PYLOCK, "libs/lib/a": ""}, "sub")
    assert nearer is not None and nearer.file == "pylock.toml"


@pytest.mark.parametrize(
    ("says", "pin", "typed", "wanted"),
    [
        ("", "", "", ""),
        (">=3.9", "", "", ""),
        (">=3.9", "3.12.4\n", "", "3.12.4"),
        (">=3.9", "my-env\n", "", ""),
        (">=3.9", "3.12", "3.13", "3.13"),
        (f">={OWN}.99,<4", "", "", f"3.{sys.version_info[1] + 1}"),
        (f"<{OWN}", "", "", f"3.{sys.version_info[1] - 1}"),
        (">=3.12", "3.9", "", InvalidConfig),
        (">=3.12", "", "3.9", InvalidConfig),
        (">=4", "", "", InvalidConfig),
        ("three", "", "", InvalidConfig),
    ],
)
def test_python(says: str, pin: str, typed: str, wanted: Any) -> None:
    text = '[project]\nname = "x"\nversion = "1"\n' + (f'requires-python = "{says}"\n' if says else "")
    files = {"pyproject.toml": text, **({".python-version": pin} if pin else {})}
    if isinstance(wanted, str):
        found = look(files, python=typed)
        assert found is not None and found.python == wanted
        image = look(files, has_image=True)
        assert image is not None and image.python == ""
    else:
        with pytest.raises(wanted, match=r"pyproject\.toml") as caught:
            look(files, python=typed)
        assert caught.value.cure


CHANGED = UV | {"pyproject.toml": UV["pyproject.toml"].replace('["six", "lib"]', '["six>=2", "lib", "toml"]')}
MAC = LOCK.replace("[manifest]", "supported-markers = [\"sys_platform == 'nowhere'\"]\n[manifest]")


@pytest.mark.parametrize(
    ("files", "more", "words", "cure"),
    [
        (CHANGED, {}, "uv.lock does not match pyproject.toml, which asks for six>=2, toml, and not for six.", "uv lock"),
        (UV | {"pyproject.toml": UV["pyproject.toml"].replace('["iniconfig"]', "[]")}, {}, "group 'dev' of pyproject.toml", "uv lock"),
        (UV | {"uv.lock": MAC}, {}, "uv.lock is for another platform: sys_platform == 'nowhere'.", "tool.uv.environments"),
        (UV | {"uv.lock": LOCK.replace("py3-none-any.whl", "py3-none-win32.whl")}, {}, "uv.lock has iniconfig==4 for other platforms only", "uv lock"),
        (UV | {"uv.lock": LOCK[:-20]}, {}, "uv.lock cannot be read: ", "--no-project"),
        (UV | {"uv.lock": LOCK.replace("version = 1\n", "version = 9\n", 1)}, {}, "uv.lock: uv says: ", "uv lock"),
        (UV | {"uv.lock": LOCK.replace(">=3.9", ">=3.12")}, {"python": "3.11"}, "uv.lock is for Python >=3.12,>=3.9, but --python says 3.11", "allows"),
        (UV, {"asked": Asked(("nope",))}, "pyproject.toml has no group 'nope'.", "It has: dev, docs."),
        (UV, {"asked": Asked((), ("nope",))}, "pyproject.toml has no extra 'nope'.", "It has: more."),
        ({"uv.lock": LOCK}, {}, "uv.lock has no pyproject.toml beside it", "tracked"),
        ({"pylock.toml": "lock-version = '2.0'\n"}, {}, "pylock.toml has no lock-version 1", "uv export"),
        ({"pylock.toml": "environments = [\"os_name == 'x'\"]\n" + PYLOCK}, {}, "pylock.toml is for another platform or Python", "uv export"),
        ({"pylock.toml": PYLOCK + "[[packages]]\nname = 'x'\nversion = '1'\nwheels = [{url = 'file:///nowhere/x-1-py3-none-any.whl'}]\n"}, {},
         "pylock.toml names '/nowhere/x-1-py3-none-any.whl', but there is no", "on this machine"),
        ({"pylock.toml": PYLOCK.replace('"1"', '"1"\nwheels = [{ name = "six-1-cp39-cp39-win32.whl" }]')}, {}, "pylock.toml has six for other platforms only", "uv export"),
        ({"poetry.lock": POETRY.replace('"2.1"', '"2.0"')}, {}, "poetry.lock (of version 2.0) does not say which packages", "poetry export"),
        ({"poetry.lock": POETRY, "pyproject.toml": PROJECT + 'dependencies = ["six>=2"]\n'}, {}, "asks for six>=2, but the lock has 1.", "poetry lock"),
        ({"pdm.lock": PDM, "pyproject.toml": PROJECT + 'dependencies = ["toml"]\n'}, {}, "asks for toml, which the lock does not have.", "pdm lock"),
        ({"Pipfile.lock": "{"}, {}, "Pipfile.lock cannot be read", "pipenv lock"),
        ({"Pipfile.lock": PIPFILE, "Pipfile": "[packages]\ntoml = '*'\n"}, {}, "Pipfile.lock does not match Pipfile, which asks for toml.", "pipenv lock"),
        ({"requirements.txt": "six\n-r nope.txt\n"}, {}, "requirements.txt, line 2: It refers to 'nope.txt'", "tracked"),
        ({"requirements.txt": "-e ./nope\n"}, {}, "requirements.txt, line 1: There is no project './nope'", "pyproject.toml"),
        ({"requirements.txt": "-e ../nope\n", "x/pyproject.toml": PROJECT}, {}, "There is no project '../nope'", "pyproject.toml"),
        ({"requirements.txt": "six\n"}, {"asked": Asked(("dev",))}, "requirements.txt has no groups or extras", "Leave"),
        ({"pyproject.toml": "[tool.poetry]\nname = 'x'\n[tool.poetry.dependencies]\nsix = '^1'\n"}, {}, "in Poetry's own form", "poetry lock"),
        ({"pyproject.toml": "[project\n"}, {}, "pyproject.toml cannot be read", "--no-project"),
        ({"pyproject.toml": PROJECT + "dependencies = ['six=1']\n"}, {}, "pyproject.toml: 'six=1' is not a requirement", ""),
        ({"pyproject.toml": PROJECT + "[dependency-groups]\na = [{include-group = 'a'}]\n"}, {}, "includes itself: a → a", ""),
        ({"environment.yml": "dependencies: [numpy, pip]\n"}, {}, "asks for packages of conda, which are not guessed to be those of PyPI: numpy.", "--no-project"),
        ({"environment.yml": "a: [\n"}, {}, "environment.yml cannot be read", "--no-project"),
        ({"s.py": SCRIPT.replace("['six<2']", "[")}, {"command": "python s.py"}, "The metadata of s.py cannot be read", "PEP 723"),
        ({"s.py": SCRIPT + SCRIPT}, {"command": "python s.py"}, "s.py has more than one block of metadata", "PEP 723"),
        ({"s.py": SCRIPT, "s.py.lock": "version = 1\n[manifest]\nrequirements = [{name='six'}]\n"}, {"command": "python s.py"},
         "s.py.lock does not match s.py, which asks for six<2, and not for six.", "uv lock --script s.py"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_file_reason_and_cure(
    files: dict[str, str], more: dict[str, Any], words: str, cure: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        look(files, **more)
    assert words in caught.value.message and cure in caught.value.cure


def test_code_from_elsewhere_names_no_file_of_this_machine(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels", "mydemo")
    files = {"requirements.txt": f"../wheels/{wheel.name}\n"}
    assert lines(look(files, root=str(tmp_path / "code"))) == [wheel.as_uri()]
    with pytest.raises(InvalidConfig, match="a file of the machine on which it was written"):
        look(files, root="")


def test_what_was_found_is_kept_as_long_as_it_holds(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = look(UV, cache=cache)
    place = next(cache.iterdir())
    kept = json.loads(place.read_text())
    kept["found"]["packages"] = 99
    place.write_text(json.dumps(kept))
    again = look(UV | {"train.py": "print()"}, cache=cache)
    assert first is not None and again == first._replace(packages=99)  # nothing was read anew
    assert look(UV | {"libs/other/pyproject.toml": PROJECT.replace("demo", "other")}, cache=cache) == first
    place.write_text("{")
    assert look(UV, cache=cache) == first


def test_a_script_with_a_lock_of_uv() -> None:
    lock = f"""version = 1\nrevision = 3\nrequires-python = ">=3.9"\n[manifest]\nrequirements = [{{ name = "six" }}]
[[package]]\nname = "six"\nversion = "1"\nsource = {{ registry = "https://pypi.org/simple" }}
sdist = {{ url = "{URL}/six-1.tar.gz", hash = "{HASHES[0]}" }}\n"""
    found = look({"a/s.py": SCRIPT.replace("six<2", "six"), "a/s.py.lock": lock}, "a", "python s.py")
    assert found is not None and (found.file, lines(found), found.is_exact) == ("a/s.py.lock", ["six==1"], True)


def test_runs_get_what_is_found(make_spell: Callable[..., Spell], repo: Path) -> None:
    """Cast, shown, kept by a rerun, exported; a code edit builds nothing."""
    write(
        repo,
        {
            "requirements.txt": "idna\n",
            "pyproject.toml": PROJECT,
            "sub/train.py": "import idna; print('yes', idna.__name__)\n",
        },
    )
    spell = make_spell(cwd=repo)
    before = spell("env", "--json").json()
    assert (before["source"]["file"], before["is_built"], before["requirements"]) == (
        "requirements.txt",
        False,
        ["idna"],
    )
    done = spell("run", "python train.py", cwd=repo / "sub")
    assert (
        done.code == 0
        and f"✨ Environment from requirements.txt: 1 requirement, Python {OWN}\n" in done.out
        and "yes idna" in done.out
    )
    write(repo, {"sub/train.py": "import idna; print('again')\n", "pyproject.toml": PROJECT.replace("demo", "other")})
    after = spell("env", "--json").json()
    assert (after["is_built"], after["key"], len(after["packages"])) == (True, before["key"], 1)
    run = spell("info", "latest", "--json").json()
    assert (run["environment"], run["spec"]["source"]["file"]) == (before["key"], "requirements.txt")
    again = spell("rerun", "latest", "-b")
    assert again.code == 0
    assert spell.ended(2).environment == before["key"] and spell.ended(2).spec["source"] == run["spec"]["source"]
    (repo / "uv.lock").write_text("")
    seen = spell("run", "-b", "true", cwd=repo / "sub")
    assert "uv.lock is not tracked by git, so the run does not have it" in seen.err
    (repo / "uv.lock").unlink()
    bare = spell("run", "--no-project", "python -c 'import idna'", "--json")
    assert bare.code == 1 and bare.json()["spec"]["source"] is None
    refused = spell("run", "--group", "dev", "true")
    assert refused.code == 3 and "requirements.txt has no groups" in refused.err
    beside = spell("run", "--pip-req", "requirements.txt", "--extra", "x", "true")
    assert beside.code == 3 and "takes the place of the project" in beside.err
    assert spell("ps", "--json").json()[-1]["number"] == 4  # nothing that was refused has a number
    assert spell("run", "--save-command", "saved.yaml", "--no-project", "true").code == 0
    assert "no-project: true" in (repo / "saved.yaml").read_text()
    assert spell("run", "--from-file", "saved.yaml", "--json").json()["spec"]["source"] is None
