"""ls, cat, cp: outputs, looked at and copied."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BIN, Spell, has_written, wait_for
from terminal import Terminal

from orchestrator.cli.files import _Stream
from orchestrator.content.files import remove_tree

MAKE = (
    "mkdir -p deep/er 'odd names'; printf 12345 > data.txt; head -c 1500 /dev/zero > deep/zeros; "
    "printf '#!/bin/sh\\n' > deep/er/tool; chmod 755 deep/er/tool; ln -s er/tool deep/link; ln -s ../../data.txt deep/er/up; "
    "touch 'odd names/日本 語' 'odd names/a:b' \"odd names/$(printf 'tab\\there')\" 'odd names/%2e%2e' 'odd names/-f' "
    "\"odd names/$(printf 'byte\\377')\" 'odd names/?#&'"
)


@pytest.fixture(scope="module")
def home(make_shared: Callable[..., Spell]) -> Spell:
    """A home whose run 1 left some files."""
    spell = make_shared("cli-files")
    assert spell.run(MAKE, name="made").state == "complete"
    return spell


@pytest.fixture
def spell(home: Spell) -> Iterator[Spell]:
    """That home, without active runs."""
    yield home
    home.clear()


# -- ls ---------------------------------------------------------------------------------------------------------------


def listed(spell: Spell, *words: str) -> list[str]:
    """The last column of a listing."""
    done = spell("ls", *words)
    assert done.code == 0, done
    return [line[line.index("   ", 14) + 3 :] for line in done.out.splitlines()]


def test_ls_from_the_top(spell: Spell) -> None:
    assert listed(spell) == listed(spell, "/") == listed(spell, ".") == ["runs/", "uploads/"]
    assert listed(spell, "runs")[0] == "1/"
    assert listed(spell, "runs/1") == ["data.txt", "deep/", "odd names/"]
    assert listed(spell, "runs/1/deep/") == ["er/", "link → er/tool", "zeros"]
    assert listed(spell, "runs/made/data.txt") == ["data.txt"]


def test_ls_columns(spell: Spell) -> None:
    line, folder = spell("ls", "runs/1").out.splitlines()[:2]
    assert line.split()[0] == "5" and folder.split()[0] == "-"
    assert len(line.split()) == 5  # size, month, day, time, name
    assert spell("ls", "-h", "runs/1/deep/zeros").out.split()[0] == "1.5K"
    found = {item["path"]: item for item in spell("ls", "runs/1/deep", "--json").json()}
    assert (found["zeros"]["size"], found["er"]["is_dir"], found["link"]["link"]) == (1500, True, "er/tool")


def test_ls_of_odd_names_cannot_hurt_the_terminal(spell: Spell) -> None:
    names = listed(spell, "runs/1/odd names")
    assert names == ["%2e%2e", "-f", "?#&", "a:b", "byte\\xff", "tab\\there", "日本 語"]
    assert listed(spell, "runs/1/odd names/日本 語") == ["日本 語"]
    assert listed(spell, "runs/1/odd names/%2e%2e") == ["%2e%2e"]
    assert listed(spell, "runs/1/odd names/?#&") == ["?#&"]


def test_one_file_is_one_line_whatever_its_name(spell: Spell, tmp_path: Path) -> None:
    """A name with a line feed poses as no other file, nor as a line of spell: in listings, notices, copies and checks."""
    forged = "a\n          99 Jan  1 00:00   forged"
    make = f"printf x > {shlex.quote(forged)}; ln -s {shlex.quote(forged)} link; mkfifo 'pipe\n🎉 Run 9 complete'"
    done = spell("run", "-f", make)
    number = done.number
    assert "pipe\\n🎉 Run 9 complete" in done.out and done.out.count("\n🎉 Run 9 complete") == 0
    folder = spell("ls", f"runs/{number}").out.splitlines()
    assert len(folder) == 2 and folder[0].endswith("   a\\n          99 Jan  1 00:00   forged")
    names = [item["path"] for item in spell("ls", f"runs/{number}", "--json").json()]
    assert names == [forged, "link"]
    (spell.home.run_dir(number) / forged).chmod(0o644)
    (spell.home.run_dir(number) / forged).write_text("y")
    said = spell("verify", str(number))
    assert (said.code, len(said.out.splitlines())) == (1, 2) and "\\n" in said.out
    assert len(spell("lineage", str(number)).out.splitlines()) == 3
    done = spell("cp", f"runs/{number}", str(tmp_path / "copy"))
    assert (done.code, (tmp_path / "copy" / forged).read_text()) == (0, "y")


@pytest.mark.parametrize(
    ("resource", "code", "said"),
    [
        ("runs/99", 1, "There is no run '99'."),
        ("runs/1/nothing", 1, "There is no 'runs/1/nothing'.\n       See what is there: spell ls runs/1"),
        (
            "1",
            1,
            "'1' is not a valid resource.\n       A resource is runs/NUMBER/…, uploads/NAME/… or an alias; see: spell link\n       Did you mean runs/1?",
        ),
        ("store/spell.db", 1, "'store/spell.db' is not a valid resource."),
        ("runs/../store", 3, "must not contain '..'"),
        ("runs/1/../../store", 3, "must not contain '..'"),
        ("/etc", 3, "'/etc' must be a relative path."),
    ],
)
def test_what_cannot_be_listed_printed_or_copied(
    spell: Spell, tmp_path: Path, resource: str, code: int, said: str
) -> None:
    for verb in ("ls", "cat", "cp"):
        done = spell(verb, resource, cwd=tmp_path)
        if verb == "cp" and resource == "/etc":
            code, said = 3, f"{resource!r} is not a resource."
        assert (done.code, said in done.err, done.out) == (code, True, ""), done
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_a_run_that_goes_on(spell: Spell) -> None:
    number = spell.cast("echo begun; sleep 1000")
    spell.says(number, b"begun")
    done = spell("ls", f"runs/{number}")
    assert (done.code, done.out) == (0, ""), "see tests/test_unsaved.py"
    assert done.err == f"Run {number} is still running: it has written no file yet.\n"
    done = spell("link", "goes-on", f"runs/{number}")
    assert done.code == 1
    assert done.err == (
        f"ERROR: Run {number} is still running; its outputs appear when it has ended.\n"
        f"       Wait for it: spell wait {number}\n"
    )


def test_outputs_of_a_run_that_kept_none(spell: Spell) -> None:
    number = spell.cast("echo x > data.txt; sleep 1000")
    spell.reaches(number, "running")
    spell.client.runs.kill(str(number))
    spell.ended(number)
    for words in (["ls", f"runs/{number}"], ["cat", f"runs/{number}/data.txt"], ["cp", f"runs/{number}"]):
        done = spell(*words)
        said = f"ERROR: Run {number} kept no outputs (killed).\n       See why: spell info {number}\n"
        assert (done.code, done.out, done.err) == (1, "", said)


# -- cat --------------------------------------------------------------------------------------------------------------


def test_cat(spell: Spell) -> None:
    assert spell("cat", "runs/made/data.txt", "runs/1/deep/link").out == "12345#!/bin/sh\n"
    done = spell("cat", "runs/1/deep")
    assert (done.code, done.err) == (2, "ERROR: 'runs/1/deep' is a folder.\n       Copy it: spell cp runs/1/deep\n")
    assert spell("cat").code == 2


def test_cat_is_byte_for_byte(spell: Spell) -> None:
    number = spell.run("head -c 3000000 /dev/urandom > noise; sha256sum < noise > sum").number
    cat = spell.popen("cat", f"runs/{number}/noise")
    out, _ = cat.communicate(timeout=60)
    assert out == (spell.home.run_dir(number) / "noise").read_bytes()


# -- cp ---------------------------------------------------------------------------------------------------------------


def test_cp_of_one_file(spell: Spell, tmp_path: Path) -> None:
    done = spell("cp", "runs/1/data.txt", cwd=tmp_path)
    assert (done.code, done.out) == (0, "✔ Copied 1 file.\n")
    assert (tmp_path / "data.txt").read_text() == "12345"
    assert os.access(tmp_path / "data.txt", os.W_OK)
    spell("cp", "runs/1/data.txt", "renamed.txt", cwd=tmp_path)
    spell("cp", "runs/1/data.txt", "new/folder/", cwd=tmp_path)
    spell("cp", "runs/1/data.txt", "new/folder", cwd=tmp_path)
    spell("cp", "runs/made/deep/link", str(tmp_path / "a/b"), cwd=tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["a/b", "data.txt", "new/folder/data.txt", "renamed.txt"]


def test_cp_to_where_nothing_can_be(spell: Spell, tmp_path: Path) -> None:
    done = spell("cp", "runs/1/data.txt", "/proc/x", cwd=tmp_path)
    assert (done.code, done.err) == (1, "ERROR: /proc/x: No such file or directory\n")
    done = spell("cp", "runs/1/data.txt", "", cwd=tmp_path)
    assert done.code == 2 and "DESTINATION is empty." in done.err


def test_cp_of_a_folder_copies_what_is_in_it(spell: Spell, tmp_path: Path) -> None:
    done = spell("cp", "runs/1", "copy", cwd=tmp_path)
    assert done.code == 0, done
    copy = tmp_path / "copy"
    assert (copy / "deep/zeros").read_bytes() == b"\0" * 1500
    assert os.readlink(copy / "deep/link") == "er/tool"
    assert stat.S_IMODE((copy / "deep/er/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((copy / "data.txt").stat().st_mode) == 0o644
    names = sorted(os.listdir(os.fsencode(copy / "odd names")))
    assert names == sorted([b"a:b", b"byte\xff", b"tab\there", b"%2e%2e", b"-f", b"?#&", "日本 語".encode()])
    assert "✔ Copied 12 files." in done.out


def test_cp_of_a_part_follows_links_that_lead_elsewhere(spell: Spell, tmp_path: Path) -> None:
    done = spell("cp", "runs/1/deep/er", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "✔ Copied 2 files.\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"tool", "up"}
    assert (tmp_path / "up").read_text() == "12345" and not (tmp_path / "up").is_symlink()


def test_cp_says_and_shows_by_its_code_what_it_left_out(spell: Spell, tmp_path: Path) -> None:
    """Outside of the run only the person can have let a link lead."""
    number = spell.run("mkdir d; echo x > d/f; ln -s f d/l").number
    folder = spell.home.run_dir(number) / "d"
    folder.chmod(0o755)
    (folder / "out\nside").symlink_to("/etc/passwd")
    done = spell("cp", f"runs/{number}/d", cwd=tmp_path)
    assert (done.code, done.out) == (1, "✔ Copied 2 files. Skipped 1 file.\n")
    assert done.err == "WARNING: out\\nside was skipped: it leads out of the copied folder.\n"
    assert {path.name for path in tmp_path.iterdir()} == {"f", "l"}


def test_cp_over_what_is_there(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("mine")
    done = spell("cp", "-i", "runs/1", cwd=tmp_path)
    assert "Skipped 1 file." in done.out
    assert (tmp_path / "data.txt").read_text() == "mine"
    os.link(tmp_path / "data.txt", tmp_path / "other-name")
    for words in (["-f"], []):  # without a terminal nobody can be asked
        (tmp_path / "data.txt").write_text("mine")
        assert spell("cp", *words, "runs/1", cwd=tmp_path).code == 0
        assert (tmp_path / "data.txt").read_text() == "12345"
    assert (tmp_path / "other-name").read_text() == "mine"  # the file was replaced, not written into
    assert not list(tmp_path.rglob(".spell-part-*"))


def test_cp_where_a_folder_is_in_the_way(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "data.txt").mkdir()
    done = spell("cp", "runs/1", cwd=tmp_path)
    assert (done.code, done.err) == (1, "ERROR: data.txt: A folder has that name\n")
    (tmp_path / "file").write_text("")
    done = spell("cp", "runs/1", "file", cwd=tmp_path)
    assert (done.code, "ERROR: file: " in done.err, "Traceback" in done.err) == (1, True, False)
    done = spell("cp", "runs/1/data.txt", "/proc/nowhere/x", cwd=tmp_path)
    assert (done.code, "ERROR: /proc/nowhere" in done.err) == (1, True)


def test_cat_onto_a_full_disk(spell: Spell) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is not here")
    with open("/dev/full", "wb") as full:
        cat = spell.popen("cat", "runs/1/data.txt", stdout=full)
        _, err = cat.communicate(timeout=60)
    assert (cat.returncode, err) == (1, b"ERROR: The output: No space left on device\n")


def test_a_long_copy_has_a_progress_bar(spell: Spell, tmp_path: Path) -> None:
    number = spell.run("head -c 20000000 /dev/zero > big").number
    with Terminal([str(BIN / "spell"), "cp", f"runs/{number}/big"], tmp_path, spell.env) as terminal:
        assert terminal.ends() == 0
        assert f"Copying runs/{number}/big (19M)" in terminal.raw.decode()
        assert "20.0/20.0 MB" in terminal.raw.decode() or "19.1/19.1 MiB" in terminal.raw.decode()
        assert terminal.screen.lines[-1] == "✔ Copied 1 file."
    assert (tmp_path / "big").stat().st_size == 20_000_000
    quiet = spell("cp", f"runs/{number}/big", cwd=tmp_path)
    assert (quiet.out, quiet.err) == ("✔ Copied 1 file.\n", "")
    with Terminal([str(BIN / "spell"), "cp", f"runs/{number}/big"], tmp_path, spell.env) as terminal:
        terminal.sees("File 'big' already exists. Are you sure you want to overwrite? [y/N]:")
        terminal.type("y\n")
        assert terminal.ends() == 0
        assert terminal.screen.lines[-1] == "✔ Copied 1 file."


def test_a_sparse_file_is_copied_as_fast_as_it_has_data(spell: Spell, tmp_path: Path) -> None:
    """3 GiB with two bytes in the middle: alone, in a folder, over what was there, on a terminal, and with a killed copy."""
    number = spell.run("truncate -s 3G big; printf xy | dd of=big bs=1 seek=1500000000 conv=notrunc; : > empty").number
    source = spell.home.run_dir(number) / "big"
    if not _is_sparse(source):
        pytest.skip("the disk of the home keeps no holes")
    began = time.monotonic()
    for words in ([f"runs/{number}/big", "alone"], ["-f", f"runs/{number}/big", "alone"], [f"runs/{number}", "folder"]):
        assert spell("cp", *words, cwd=tmp_path).code == 0
    assert time.monotonic() - began < 30
    for copy in (tmp_path / "alone", tmp_path / "folder" / "big"):
        assert (copy.stat().st_size, _is_sparse(copy)) == (3 << 30, True)
        with copy.open("rb") as file:
            file.seek(1_499_999_998)
            assert file.read(6) == b"\0\0xy\0\0"
    with Terminal([str(BIN / "spell"), "cp", "-f", f"runs/{number}/big", "alone"], tmp_path, spell.env) as terminal:
        assert terminal.ends() == 0
        assert "3.0/3.0 GiB" in terminal.raw.decode() or "3.2/3.2 GB" in terminal.raw.decode()
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "folder"}


def _is_sparse(path: Path) -> bool:
    return path.stat().st_blocks * 512 < path.stat().st_size // 100


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_copy_that_is_ended_leaves_nothing(spell: Spell, tmp_path: Path, end: signal.Signals) -> None:
    number = spell.run("head -c 500000000 /dev/urandom > big").number
    cp = spell.popen("cp", f"runs/{number}", str(tmp_path))
    wait_for(lambda: has_written(cp.pid, tmp_path), "its first bytes")
    cp.send_signal(end)
    cp.communicate(timeout=30)
    assert cp.returncode == (-end if end == signal.SIGKILL else 128 + end)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_spell_left_is_removed_by_the_next(spell: Spell, tmp_path: Path) -> None:
    """Where a disk has no nameless files, and of exports. What another spell holds stays."""
    for name in ("1", "2", "held"):
        (tmp_path / f".spell-part-{name}").mkdir()
    (tmp_path / ".spell-part-2" / "new").mkdir()
    (tmp_path / ".spell-part-file").write_text("half of it")
    held = os.open(tmp_path / ".spell-part-held", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert spell("cp", "runs/1/data.txt", cwd=tmp_path).code == 0
    finally:
        os.close(held)
    assert {path.name for path in tmp_path.iterdir()} == {"data.txt", ".spell-part-held"}
    assert spell("export", "1", "-o", str(tmp_path / "it")).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data.txt", "it"}


@pytest.mark.parametrize("sizes", [[], [0, 5], [1, 2, 3], [10], [3, 0, 0, 4]])
@pytest.mark.parametrize("asked", [1, 2, 7, -1])
def test_chunks_read_as_a_file(sizes: list[int], asked: int) -> None:
    chunks = [bytes([65 + index]) * size for index, size in enumerate(sizes) if size]
    stream, read = _Stream(iter(chunks)), b""
    while piece := stream.read(asked):
        assert asked < 0 or len(piece) <= asked
        read += piece
    assert read == b"".join(chunks)


def test_folders_as_deep_as_a_run_likes_are_copied(spell: Spell, tmp_path: Path) -> None:
    command = (
        "python3 -c \"import os; [(os.mkdir('d'), os.chdir('d')) for _ in range(1200)]; open('f', 'w').write('x')\""
    )
    number = spell.run(command).number
    try:
        assert spell("cp", f"runs/{number}", str(tmp_path / "copy")).code == 0
        assert (tmp_path / "copy" / ("d/" * 1200) / "f").read_text() == "x"
    finally:  # pytest cannot remove such folders
        remove_tree(tmp_path / "copy")
        remove_tree(spell.home.run_dir(number))
