"""What a run leaves: which files become artifacts, how they are sealed and hashed, and who may mount them."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DEADLINE_S, Done, Spell, git, wait_for
from hub import check_links_are_followed
from wheels import make_broken_wheel

from orchestrator.content.files import remove_tree
from orchestrator.content.manifest import EXECUTABLE, FILE, LINK, Entry, Manifest, printable
from orchestrator.data import outputs
from orchestrator.data.outputs import Workspace
from orchestrator.errors import Conflict, InvalidConfig, NotFound
from orchestrator.records.files import ArtifactRecord
from orchestrator.spec.mounts import Mount

CONFIG = "grace_s = 0.4\n[machine_types.cpu]\ncpus = 0.05\n"
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"
NO_NAMESPACES = {"SPELL_NAMESPACES": "never"}


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that all tests share."""
    return make_shared(config=CONFIG)


@pytest.fixture(scope="module", params=["namespaces", "processes"])
def either(request: pytest.FixtureRequest, make_shared: Callable[..., Spell], spell: Spell) -> Spell:
    """The shared home, and one whose runs have no namespaces."""
    if request.param == "namespaces":
        return spell
    other = make_shared("processes", CONFIG, **NO_NAMESPACES)
    assert other("server", "start").code == 0
    return other


def kept(spell: Spell, number: int) -> dict[str, bytes]:
    """The files under `runs/N`, and what is in them; of links, where they lead."""
    root = spell.home.run_dir(number)
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, os.fsencode(root)).decode(errors="backslashreplace")
            found[shown] = os.readlink(path) if os.path.islink(path) else Path(os.fsdecode(path)).read_bytes()
    return found


def notes(spell: Spell, number: int) -> dict[str, str]:
    """What was not kept, and why."""
    return {item.path: item.note for item in spell.client.runs.artifacts(str(number)) if item.note}


def commit(repo: Path, **files: str) -> None:
    """Add files to the repository; `__` in a name is a dot, `___` a slash."""
    for name, text in files.items():
        path = repo / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "More")


def run_in(spell: Spell, folder: Path, command: str, *options: str) -> Done:
    """Run a command with the code of a folder; it must succeed."""
    done = spell("run", "-f", *options, command, cwd=folder)
    assert done.code == 0, done
    return done


# -- which files ---------------------------------------------------------------------------------------------------


def test_new_and_modified_files_are_kept(spell: Spell, repo: Path) -> None:
    commit(
        repo, same__txt="same", touched__txt="t", rewritten__txt="r", longer__txt="l", other__txt="abc", gone__txt="g"
    )
    command = """
        echo new > new.txt; mkdir -p deep/er; echo deep > deep/er/new.txt; : > empty
        touch touched.txt; printf r > rewritten.txt
        printf ll > longer.txt; printf abd > other.txt; rm gone.txt"""
    number = run_in(spell, repo, command).number
    assert kept(spell, number) == {
        "new.txt": b"new\n",
        "deep/er/new.txt": b"deep\n",
        "empty": b"",
        "longer.txt": b"ll",
        "other.txt": b"abd",
    }
    assert not notes(spell, number)


def test_code_that_turns_into_something_else_is_kept(spell: Spell, repo: Path) -> None:
    commit(repo, script__sh="echo", file="f", folder___inner="i", swapped="s", stays="s")
    (repo / "link").symlink_to("stays")
    (repo / "relinked").symlink_to("stays")
    (repo / "unlinked").symlink_to("stays")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "Links")
    command = """
        chmod +x script.sh
        rm file; mkdir file; echo in > file/new
        rm -r folder; echo flat > folder
        rm swapped; ln -s folder swapped
        rm relinked; ln -s folder relinked
        rm unlinked; cp stays unlinked"""
    number = run_in(spell, repo, command).number
    assert kept(spell, number) == {
        "script.sh": b"echo",
        "file/new": b"in\n",
        "folder": b"flat\n",
        "swapped": b"folder",
        "relinked": b"folder",
        "unlinked": b"s",
    }
    modes = {item.path: item.mode for item in spell.client.runs.artifacts(str(number))}
    assert modes["script.sh"] == EXECUTABLE
    assert modes["folder"] == FILE
    assert modes["swapped"] == LINK


def test_code_that_only_lost_its_executable_bit_is_kept(spell: Spell, repo: Path) -> None:
    (repo / "tool").write_text("#!/bin/sh\n")
    (repo / "tool").chmod(0o755)
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "Tool")
    number = run_in(spell, repo, "chmod -x tool").number
    assert list(kept(spell, number)) == ["tool"]


def test_code_moved_elsewhere_is_a_new_file(spell: Spell, repo: Path) -> None:
    number = run_in(spell, repo, "mkdir lib; mv hello.py lib/; cp -p lib/hello.py copy.py").number
    assert set(kept(spell, number)) == {"lib/hello.py", "copy.py"}


def test_nothing_new_leaves_an_empty_folder(spell: Spell, repo: Path) -> None:
    number = run_in(spell, repo, "mkdir -p empty/folders; true").number
    assert kept(spell, number) == {}
    assert spell.home.run_dir(number).is_dir()
    assert spell("ls", f"runs/{number}").out == ""


def test_links(spell: Spell, repo: Path) -> None:
    (repo / "old").mkdir()
    (repo / "old" / "link").symlink_to("../hello.py")
    commit(repo)
    command = """
        mkdir data; echo one > data/file
        ln -s data/file inside; ln -s data folder; ln -s file data/beside; ln -s ../data/file data/around
        ln -s first chain; ln -s second first; ln -s data/file second
        ln -s a-chain-backwards z; ln -s inside a-chain-backwards
        ln -s hello.py code; ln -s data/gone broken; ln -s loop loop
        ln -s /etc/passwd absolute; ln -s $PWD/data/file own; ln -s ../../../../../../etc/passwd climbing; ln -s .. up
        mkdir ..dots; echo two > ..dots/file; ln -s ..dots/file dots; ln -s . here"""
    number = run_in(spell, repo, command).number
    inside = {
        "data/file": b"one\n",
        "inside": b"data/file",
        "folder": b"data",
        "data/beside": b"file",
        "data/around": b"../data/file",
        "chain": b"first",
        "first": b"second",
        "second": b"data/file",
        "z": b"a-chain-backwards",
        "a-chain-backwards": b"inside",
        "..dots/file": b"two\n",
        "dots": b"..dots/file",
        "own": b"data/file",
    }
    assert kept(spell, number) == inside
    told = notes(spell, number)
    assert set(told) == {"code", "broken", "loop", "absolute", "climbing", "up", "here"}
    assert told["absolute"] == "a link to a file that is not an output: /etc/passwd"
    for path in inside:
        place = (spell.home.run_dir(number) / path).resolve()
        assert place.exists() and place.is_relative_to(spell.home.run_dir(number))


def test_caches_that_say_so_are_not_kept(spell: Spell, repo: Path) -> None:
    """Neither a virtual environment, nor a folder with a tag; but downloads of huggingface_hub, which are tagged, too."""
    commit(repo, __spellignore="!wanted/", data___CACHEDIR__TAG=SIGNATURE, data___in="code")
    command = f"""
        for name in .venv deep/.tool/cache wanted hub; do mkdir -p $name; echo x > $name/file; done
        touch .venv/pyvenv.cfg
        for name in deep/.tool/cache wanted hub; do echo '{SIGNATURE}' > $name/CACHEDIR.TAG; done
        mkdir -p hub/models--a--b no pipe; echo w > hub/models--a--b/weights; echo new > data/new
        echo 'not the signature' > no/CACHEDIR.TAG; mkfifo pipe/CACHEDIR.TAG"""
    done = run_in(spell, repo, command)
    assert set(kept(spell, done.number)) == {
        *("wanted/file", "wanted/CACHEDIR.TAG", "hub/file", "hub/CACHEDIR.TAG", "hub/models--a--b/weights"),
        *("data/new", "no/CACHEDIR.TAG"),
    }
    told = notes(spell, done.number)
    assert told.pop("pipe/CACHEDIR.TAG") == "a named pipe, not a file"
    assert told == {
        ".venv/": "a virtual environment, as its pyvenv.cfg says",
        "deep/.tool/cache/": "a cache, as its CACHEDIR.TAG says",
    }
    said = done.out + done.err
    assert [said.count(f"{kind}, as its") for kind in ("a cache", "a virtual environment")] == [1, 1]


def test_links_to_other_files_of_the_run_are_followed(spell: Spell, either: Spell, tmp_path: Path) -> None:
    check_links_are_followed(either, tmp_path, guarded=either is spell)


def test_what_is_not_a_file_is_noted(spell: Spell, repo: Path) -> None:
    command = """mkfifo pipe; echo yes > kept
        python -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
        [ $(id -u) = 0 ] && mknod null c 1 3 || true"""
    number = run_in(spell, repo, command).number
    assert list(kept(spell, number)) == ["kept"]
    told = notes(spell, number)
    assert told.pop("null", "a device, not a file") == "a device, not a file"
    assert told == {"pipe": "a named pipe, not a file", "socket": "a socket, not a file"}


def test_hard_links_are_kept_and_cut(spell: Spell, repo: Path, tmp_path: Path) -> None:
    """Another name of a file may lie anywhere; an artifact does not change through it."""
    outside = tmp_path / "outside"
    outside.write_text("shared")
    command = f"echo two > a; ln a b; ln {outside} linked 2>/dev/null || cp {outside} linked; chmod 444 linked"
    number = run_in(spell, repo, command).number
    outside.chmod(0o644)
    outside.write_text("changed afterwards")
    assert kept(spell, number) == {"a": b"two\n", "b": b"two\n", "linked": b"shared"}
    assert spell.client.runs.get(str(number)).outputs_bytes == 14


@pytest.mark.parametrize("place", ["work dir", "temporary folder"])
def test_modes_that_the_run_gave_do_not_matter(spell: Spell, repo: Path, place: str) -> None:
    folder = "shut" if place == "work dir" else "a/b/shut"
    command = f"mkdir -p {folder}/in; echo x > {folder}/in/file; chmod 0 {folder}/in/file {folder}/in {folder}; umask 077; echo y > open"
    number = run_in(spell, repo, command).number
    assert kept(spell, number) == {f"{folder}/in/file": b"x\n", "open": b"y\n"}
    wait_for(lambda: not spell.home.work_dir(number).exists(), "its work dir is gone")


NAMES = [
    b"with space",
    b" leading and trailing ",
    b"new\nline",
    b"-rf",
    b"quote'\"`$(x)",
    b"back\\slash",
    b"\xff\xfe not utf-8",
    b"latin \xe9",
    b"back\\xff",
    b"back\xff",
    b"back\\x5cxff",
    b"back\\x41",
    "жук 🪲".encode(),
    b"nfd e\xcc\x81",
    b"n" * 255,
    b"*.glob[x]?",
    b"#comment",
    b"!negated",
]


def test_names_of_all_kinds(spell: Spell, repo: Path, tmp_path: Path) -> None:
    script = tmp_path / "make.py"
    script.write_text(f"for name in {NAMES!r}:\n    open(name, 'wb').write(b'content of ' + name)\n")
    number = run_in(
        spell, repo, f"python {script}; mkdir $(printf 'dir\\377'); echo in > $(printf 'dir\\377')/file"
    ).number
    root = os.fsencode(spell.home.run_dir(number))
    assert set(os.listdir(root)) == {*NAMES, b"dir\xff"}
    for name in NAMES:
        with open(os.path.join(root, name), "rb") as file:
            assert file.read() == b"content of " + name
    listed = {item.path: item for item in hashed(spell, number)}
    assert set(listed) == {printable(os.fsdecode(name)) for name in [*NAMES, b"dir\xff/file"]}
    for name in NAMES:
        digest = hashlib.sha256(b"content of " + name).hexdigest()
        assert listed[printable(os.fsdecode(name))].sha256 == digest, name
    assert len(spell.client.resources.list(f"runs/{number}")) == len(NAMES) + 1
    assert spell("ls", f"runs/{number}").code == 0
    for name in NAMES:
        if b"\n" not in name:
            shown = printable(os.fsdecode(name))
            assert b"".join(spell.client.resources.download(f"runs/{number}/{shown}").chunks) == b"content of " + name
            assert shown.isprintable()
    (tmp_path / "copy").mkdir()
    assert spell("cp", f"runs/{number}", str(tmp_path / "copy")).code == 0
    assert set(os.listdir(os.fsencode(tmp_path / "copy"))) == {*NAMES, b"dir\xff"}


def test_link_with_a_name_that_is_not_utf8(spell: Spell, repo: Path) -> None:
    number = run_in(
        spell, repo, "ln -s $(printf '/gone\\377') out; echo x > $(printf 'in\\377'); ln -s $(printf 'in\\377') in"
    ).number
    assert spell.client.runs.get(str(number)).state == "complete"
    assert notes(spell, number) == {"out": "a link to a file that is not an output: /gone\\xff"}
    assert kept(spell, number) == {"in\\xff": b"x\n", "in": b"in\xff"}
    assert {item.path: item.link for item in spell.client.resources.list(f"runs/{number}")}["in"] == "in\\xff"


def test_ignored_files_are_not_kept(spell: Spell, repo: Path) -> None:
    commit(repo, __spellignore="*.tmp\nbuild/\n!keep.tmp\n/root-only\n", hello__py="print(1)\n")
    command = """python -c 'import hello'; git init -q sub; echo x > sub/file
        mkdir -p build deep/build deep/cache; touch a.tmp keep.tmp build/x deep/build/y deep/b.tmp root-only deep/root-only
        touch deep/cache/c big.bin kept"""
    number = run_in(spell, repo, command, "--ignore", "*.bin", "--ignore", "deep/cache").number
    assert set(kept(spell, number)) == {"keep.tmp", "deep/root-only", "kept", "sub/file"}
    assert not notes(spell, number)


def test_ignored_by_the_configuration(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config='ignore = ["*.tmp"]')
    number = spell.run("touch a.tmp b.txt c.log", ignore=("*.log",)).number
    assert set(kept(spell, number)) == {"b.txt"}


def test_pattern_that_cannot_be_read_is_refused(spell: Spell) -> None:
    before = len(spell.client.runs.list(limit=10_000))
    with pytest.raises(InvalidConfig, match="--ignore"):
        spell.cast("true", ignore=("!",))
    assert len(spell.client.runs.list(limit=10_000)) == before


def test_run_from_a_subfolder(spell: Spell, repo: Path) -> None:
    """Paths are those of the repository, wherever in it the run was cast."""
    commit(repo, sub___data__txt="in sub")
    number = run_in(
        spell, repo / "sub", "cat data.txt > copy.txt; echo up > ../up.txt; mkdir out; echo o > out/file"
    ).number
    assert kept(spell, number) == {"sub/copy.txt": b"in sub", "up.txt": b"up\n", "sub/out/file": b"o\n"}


def test_files_outside_of_the_work_dir_are_not_kept(spell: Spell, tmp_path: Path) -> None:
    number = spell.run(f"echo x > {tmp_path}/elsewhere; echo y > here").number
    assert kept(spell, number) == {"here": b"y\n"}
    assert (tmp_path / "elsewhere").read_text() == "x\n"


# -- sealed, listed, hashed ----------------------------------------------------------------------------------------


def hashed(spell: Spell, number: int) -> list[ArtifactRecord]:
    """The artifacts of a run, when all are hashed."""

    def found() -> list[ArtifactRecord] | None:
        items = [item for item in spell.client.runs.artifacts(str(number)) if not item.note]
        return items if all(item.sha256 is not None for item in items) else None

    items = wait_for(found, f"hashes of run {number}")
    assert items is not None
    return items


def test_outputs_are_sealed(spell: Spell) -> None:
    number = spell.run("mkdir -p d/e; echo 1 > f; echo 2 > d/e/g; chmod 777 f; chmod 4711 d/e/g; chmod 1777 d").number
    root = spell.home.run_dir(number)
    modes = {path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
    assert modes == {"f": 0o555, "d": 0o555, "d/e": 0o555, "d/e/g": 0o555}
    assert stat.S_IMODE(root.stat().st_mode) == 0o555
    number = spell.run("echo 1 > f; chmod 600 f").number
    assert stat.S_IMODE((spell.home.run_dir(number) / "f").stat().st_mode) == 0o444


def test_manifest_has_sizes_and_hashes(spell: Spell) -> None:
    command = (
        "head -c 3000000 /dev/urandom > big; : > empty; mkdir d; echo text > d/small; ln -s big link; chmod +x d/small"
    )
    number = spell.run(command).number
    items = hashed(spell, number)
    root = spell.home.run_dir(number)
    expected = [
        ("big", 3_000_000, FILE, hashlib.sha256((root / "big").read_bytes()).hexdigest()),
        ("d/small", 5, EXECUTABLE, hashlib.sha256(b"text\n").hexdigest()),
        ("empty", 0, FILE, hashlib.sha256(b"").hexdigest()),
        ("link", 3, LINK, hashlib.sha256(b"big").hexdigest()),
    ]
    assert [(item.path, item.size, item.mode, item.sha256) for item in items] == expected
    run = spell.client.runs.get(str(number))
    assert (run.outputs_count, run.outputs_bytes) == (4, 3_000_008)


def test_hashing_goes_on_after_a_restart(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config=CONFIG)
    number = spell.cast("head -c 9000000 /dev/urandom | split -a 3 -b 30000")
    spell.ended(number)
    spell.kill_server()
    items = hashed(spell, number)
    root = spell.home.run_dir(number)
    assert len(items) == 300
    assert all(item.sha256 == hashlib.sha256((root / item.path).read_bytes()).hexdigest() for item in items)


def test_failed_run_keeps_its_outputs(spell: Spell) -> None:
    run = spell.run("echo partly > result; exit 3")
    assert (run.state, run.outputs_count) == ("failed", 1)
    assert kept(spell, run.number) == {"result": b"partly\n"}


def test_many_files(spell: Spell) -> None:
    """The cost is of the number of files, and is small; the run's machine is free before they are moved."""
    script = "import os\nfor i in range(5000):\n    os.makedirs(f'd{i % 50}', exist_ok=True); open(f'd{i % 50}/{i}', 'w').close()"
    number = spell.cast(f'python -c "{script}"')
    run = spell.ended(number, DEADLINE_S * 2)
    assert (run.state, run.outputs_count) == ("complete", 5000)
    assert len(kept(spell, number)) == 5000


def test_outputs_of_a_store_that_was_lost_are_not_taken_for_ones_own(
    make_spell: Callable[..., Spell], tmp_path: Path
) -> None:
    """Somebody removed `store/` and kept `runs/`: the numbers begin again, and meet what is there."""
    old = tmp_path / "home" / "runs" / "1"
    old.mkdir(parents=True)
    (old / "precious").write_text("of another run 1")
    spell = make_spell(config=CONFIG)
    first = spell.run("echo new > new")
    assert (first.state, first.reason, first.outputs_count) == ("failed", "save_failed", 0)
    assert f"{old} existed before the run" in first.message
    assert [path.name for path in old.iterdir()] == ["precious"]
    second = spell.run("echo new > new")
    assert (second.state, kept(spell, second.number)) == ("complete", {"new": b"new\n"})


# -- a save that was interrupted -----------------------------------------------------------------------------------


def _workspace(root: Path, count: int) -> Workspace:
    code = root / "work" / "code"
    for index in range(count):
        path = code / f"d{index % 7}" / "in" / str(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {index}")
    (code / "same").write_text("same")
    (code / "link").symlink_to("d0/in/0")
    os.mkfifo(code / "pipe")
    same = Entry("same", FILE, hashlib.sha256(b"same").hexdigest(), 4)
    return Workspace(code, Manifest((same,)), frozenset(), ())


def _check_saved(target: Path, count: int, found: list[ArtifactRecord]) -> None:
    paths = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()}
    assert paths == {f"d{index % 7}/in/{index}" for index in range(count)} | {"link"}
    assert all((target / f"d{index % 7}" / "in" / str(index)).read_text() == f"file {index}" for index in range(count))
    assert {item.path for item in found if not item.note} == paths
    assert not [path for path in target.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o222]


def test_save_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """Some files are in the staging folder already, as a killed server leaves them."""
    workspace = _workspace(tmp_path, 100)
    staging, target = tmp_path / "work" / "outputs", tmp_path / "runs-1"
    for index in range(0, 100, 3):
        moved = staging / f"d{index % 7}" / "in" / str(index)
        moved.parent.mkdir(parents=True, exist_ok=True)
        (workspace.code / f"d{index % 7}" / "in" / str(index)).rename(moved)
    found = outputs.save(1, workspace, staging, target)
    _check_saved(target, 100, found)
    assert [(item.path, item.note) for item in found if item.note] == [("pipe", "a named pipe, not a file")]
    assert not staging.exists()


def test_save_that_was_done_can_be_done_again(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, 10)
    staging, target = tmp_path / "work" / "outputs", tmp_path / "runs-1"
    first = outputs.save(1, workspace, staging, target)
    (target / "d0" / "in" / "0").chmod(0o644)  # it was cut off before all was sealed
    second = outputs.save(1, workspace, staging, target)
    _check_saved(target, 10, second)
    assert [item for item in first if not item.note] == [item for item in second if not item.note]


SAVE = """
import sys
from pathlib import Path
from orchestrator.data import outputs
from orchestrator.content.manifest import Entry, FILE, Manifest
root = Path(sys.argv[1])
same = Entry("same", FILE, sys.argv[2], 4)
workspace = outputs.Workspace(root / "work" / "code", Manifest((same,)), frozenset(), ())
print("ready", flush=True)
outputs.save(1, workspace, root / "work" / "outputs", root / "runs-1")
"""


def test_save_that_is_killed_at_any_moment_goes_on(tmp_path: Path) -> None:
    """Killed again and again, a little later each time: until it has appeared there is no `runs/N`, then it is whole."""
    count = 3000
    workspace = _workspace(tmp_path, count)
    staging, target = tmp_path / "work" / "outputs", tmp_path / "runs-1"
    digest = workspace.manifest.entries[0].digest

    def moved() -> int:
        return sum(len(files) for _, _, files in os.walk(staging))

    cut_off = 0
    for goal in (1, 500, 1500, 2900):
        process = subprocess.Popen([sys.executable, "-c", SAVE, str(tmp_path), digest], stdout=subprocess.PIPE)
        wait_for(lambda goal=goal: moved() >= goal or target.exists(), f"{goal} files were moved")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        cut_off += not target.exists()
    assert cut_off >= 1, "it was always faster"
    _check_saved(target, count, outputs.save(1, workspace, staging, target))


# -- mounts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(either: Spell) -> int:
    """A run that left a file, a folder and a tool."""
    return either.run(
        "echo data > data.txt; mkdir -p model/deep; echo w > model/deep/w; printf '#!/bin/sh\necho ran' > tool; chmod +x tool"
    ).number


def test_mounted_inputs_are_not_outputs(either: Spell, source: int, repo: Path) -> None:
    commit(repo, data__txt="of the code", folder___keep="k")
    command = """cat data.txt m/deep/w; ./tool; cat folder/there/deep/w
        echo own > folder/new; echo beside > m2; mkdir -p x; echo in > x/y"""
    done = run_in(
        either, repo, command, "-m", f"runs/{source}/data.txt", "-m", f"runs/{source}/model:m",
        "-m", f"runs/{source}/tool", "-m", f"runs/{source}/model:folder/there",
    )  # fmt: skip
    assert "data\nw\nran" in done.out and done.out.count("w\n") >= 2
    assert kept(either, done.number) == {"folder/new": b"own\n", "m2": b"beside\n", "x/y": b"in\n"}
    assert not notes(either, done.number)
    run = either.client.runs.get(str(done.number))
    assert run.mounts[1] == {"resource": f"runs/{source}/model", "path": "m"}
    assert done.number in either.client.runs.get(str(source)).mounted_by
    assert (either.home.run_dir(source) / "data.txt").read_text() == "data\n"


def test_mounts_from_a_subfolder(either: Spell, source: int, repo: Path) -> None:
    commit(repo, sub___file="f")
    done = run_in(either, repo / "sub", "cat data.txt; ls ..; echo o > out", "-m", f"runs/{source}/data.txt")
    assert "data\n" in done.out and "data.txt" not in done.out.split("data\n")[1]
    assert kept(either, done.number) == {"sub/out": b"o\n"}


def test_mounted_whole_run(either: Spell, source: int) -> None:
    number = either.run("ls -R pages; cat pages/data.txt", mounts=(Mount(f"runs/{source}", "pages"),)).number
    assert b"data.txt" in either.log(number) and either.log(number).endswith(b"data\n")
    assert kept(either, number) == {}


def test_mount_costs_the_same_whatever_its_size(make_spell: Callable[..., Spell]) -> None:
    """Nothing is copied: the mounted file is the very same one. And a server that hashes it can be ended all the same."""
    spell = make_spell(config=CONFIG)
    number = spell.run("truncate -s 50G sparse").number
    again = spell.run("stat -L -c '%i %s' sparse", mounts=(Mount(f"runs/{number}/sparse", "sparse"),)).number
    status = (spell.home.run_dir(number) / "sparse").stat()
    assert spell.log(again).decode().split() == [str(status.st_ino), str(50 << 30)]
    assert kept(spell, again) == {}
    assert spell("server", "stop", timeout=15).code == 0


def test_f41_of_a_run_that_goes_on_is_refused(spell: Spell) -> None:
    number = spell.cast("echo early > data.txt; sleep 1000")
    spell.reaches(number, "running")
    before = len(spell.client.runs.list(limit=10_000))
    done = spell("run", "-f", "-m", f"runs/{number}/data.txt", "cat data.txt")
    assert done.code == 1
    assert f"Cannot mount resource 'runs/{number}/data.txt': run {number} is still running." in done.err
    assert f"spell wait {number}" in done.err
    assert len(spell.client.runs.list(limit=10_000)) == before, "no run was made of it"
    spell.client.runs.stop(str(number))
    assert spell.ended(number).state == "stopped"
    assert spell("run", "-f", "-m", f"runs/{number}/data.txt", "cat data.txt").code == 0, (
        "a stopped run keeps its outputs"
    )


def test_f41_of_a_failed_run_is_allowed(spell: Spell) -> None:
    number = spell.run("echo checkpoint > last.txt; exit 1").number
    done = spell("run", "-f", "-m", f"runs/{number}/last.txt", "cat last.txt")
    assert done.code == 0 and "\ncheckpoint\n" in done.out


def test_f41_of_a_killed_run_is_refused(spell: Spell) -> None:
    number = spell.cast("echo early > data.txt; sleep 1000")
    spell.reaches(number, "running")
    spell.client.runs.kill(str(number))
    spell.ended(number)
    with pytest.raises(Conflict, match=f"run {number} kept no outputs"):
        spell.cast("true", mounts=(Mount(f"runs/{number}/data.txt", "data.txt"),))


def test_f41_of_a_run_that_was_never_built_is_refused(spell: Spell, tmp_path: Path) -> None:
    number = spell.run("true", pip=(str(make_broken_wheel(tmp_path)),)).number
    assert spell.client.runs.get(str(number)).state == "build_failed"
    with pytest.raises(Conflict, match=f"run {number} kept no outputs"):
        spell.cast("true", mounts=(Mount(f"runs/{number}/data.txt", "data.txt"),))


@pytest.mark.parametrize(
    "resource", ["runs/{0}/gone", "runs/{0}/data.txt/x", "runs/99999/x", "uploads/none/x", "nonsense/1/x"]
)
def test_f41_of_what_is_not_there_is_refused(spell: Spell, resource: str) -> None:
    number = spell.run("echo data > data.txt").number
    before = len(spell.client.runs.list(limit=10_000))
    done = spell("run", "-f", "-m", resource.format(number) + ":here", "true")
    assert done.code == 1
    assert done.err.count("ERROR") == 1 and "Traceback" not in done.err
    assert len(spell.client.runs.list(limit=10_000)) == before


def test_f41_of_deleted_outputs_is_refused(spell: Spell) -> None:
    number = spell.run("echo data > data.txt").number
    remove_tree(spell.home.run_dir(number))
    with pytest.raises(NotFound, match="not a valid resource"):
        spell.cast("true", mounts=(Mount(f"runs/{number}/data.txt", "data.txt"),))


def test_f41_outputs_deleted_after_casting_fail_the_mount(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config=f"[machine_types.cpu]\ncpus = {len(os.sched_getaffinity(0))}")
    number = spell.run("echo data > data.txt").number
    first = spell.cast("sleep 1000")
    spell.reaches(first, "running")
    second = spell.cast("cat data.txt; echo ran", mounts=(Mount(f"runs/{number}/data.txt", "data.txt"),))
    remove_tree(spell.home.run_dir(number))
    spell.client.runs.kill(str(first))
    run = spell.ended(second)
    assert (run.state, run.reason) == ("mount_failed", "mount_failed")
    assert "data.txt" in run.message
    assert spell.log(second) == b""


@pytest.mark.parametrize(
    "resource", ["runs/{0}/../{0}/data.txt", "runs/{0}/./../../config.toml", "/etc/passwd", "runs/../store/spell.db"]
)
def test_f41_nothing_outside_of_the_outputs_can_be_mounted(spell: Spell, resource: str) -> None:
    number = spell.run("echo data > data.txt").number
    done = spell("run", "-f", "-m", resource.format(number) + ":here", "cat here")
    assert done.code in (1, 3) and "ERROR" in done.err


def test_f41_names_and_latest_mean_a_run_once_and_for_all(spell: Spell) -> None:
    old = spell.run("echo old > data.txt", name="jokes-data").number
    new = spell.run("echo new > data.txt", name="jokes-data").number
    for resource, meant in (
        ("runs/jokes-data/data.txt", new),
        (f"runs/{old}/data.txt", old),
        ("runs/latest~2/data.txt", new),
    ):
        done = spell("run", "-f", "-m", f"{resource}:in.txt", "cat in.txt")
        assert done.code == 0, done
        assert spell.client.runs.get(str(done.number)).mounts == [
            {"resource": f"runs/{meant}/data.txt", "path": "in.txt"}
        ]
        assert spell.log(done.number) == (b"new\n" if meant == new else b"old\n")
    last = spell.run("echo last > data.txt").number
    done = spell("run", "-f", "-m", "runs/latest/data.txt", "cat data.txt")
    assert spell.client.runs.get(str(done.number)).mounts[0]["resource"] == f"runs/{last}/data.txt"
    assert spell("run", "-f", "-m", "runs/no-such-name/data.txt", "true").code == 1


def test_f41_uploads_can_be_mounted(spell: Spell) -> None:
    folder = spell.home.uploads / "cifar"
    folder.mkdir(exist_ok=True)
    (folder / "x").write_text("image")
    number = spell.run(
        "cat data/x; cat x", mounts=(Mount("uploads/cifar", "data"), Mount("uploads/cifar/x", "x"))
    ).number
    assert spell.log(number) == b"imageimage"


@pytest.mark.parametrize("second", ["data", "data/in", "./data/"])
def test_f41_two_mounts_in_one_place_are_refused(spell: Spell, second: str) -> None:
    number = spell.run("echo data > data.txt").number
    done = spell("run", "-f", "-m", f"runs/{number}/data.txt:data", "-m", f"runs/{number}/data.txt:{second}", "true")
    assert done.code == 3 and "Two mounts have the same path" in done.err


def test_f41_bad_mounts_are_explained(spell: Spell) -> None:
    for text in ("runs/1/a:b:c", "runs/1/a:", ":b", "runs/1/a:../b"):
        done = spell("run", "-f", "-m", text, "true")
        assert done.code == 3, (text, done)
    assert spell("run", "-f", "-m", "runs", "true").code == 1, "no resource at all, as one that is not there"


def test_mount_of_a_folder_in_the_place_of_a_file_fails_with_words(either: Spell, source: int, repo: Path) -> None:
    done = either("run", "-f", "-m", f"runs/{source}/model:hello.py/in", "true", cwd=repo)
    run = either.client.runs.get(str(done.number))
    assert (run.state, done.code) == ("mount_failed", 1)
    assert "hello.py/in" in run.message


def test_copied_outputs_may_be_written_to(spell: Spell, tmp_path: Path) -> None:
    number = spell.run("mkdir d; echo 1 > d/f; echo run > d/x; chmod +x d/x; ln -s d/f link").number
    (tmp_path / "copy").mkdir()
    assert spell("cp", f"runs/{number}", str(tmp_path / "copy")).code == 0
    (tmp_path / "copy" / "d" / "f").write_text("2\n")
    assert os.access(tmp_path / "copy" / "d" / "x", os.X_OK)
    assert os.readlink(tmp_path / "copy" / "link") == "d/f"
    shutil.rmtree(tmp_path / "copy")
    assert (spell.home.run_dir(number) / "d" / "f").read_text() == "1\n"
