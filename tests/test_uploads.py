"""upload, rm, and mounts of what was uploaded: real folders, the real server and the real command line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BIN, Spell, wait_for
from terminal import Terminal

from orchestrator import datatree, manifest, uploading
from orchestrator.errors import Conflict, InvalidConfig, NotFound, SpellError
from orchestrator.manifest import Entry, make
from orchestrator.packs import MOST_BYTES, pack, unpack
from orchestrator.remote.uploads import Uploads
from orchestrator.spec import Mount

MIB = 1 << 20


@pytest.fixture(scope="module")
def home(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("uploads")


@pytest.fixture
def spell(home: Spell, tmp_path: Path) -> Iterator[Spell]:
    """A home that all tests share, without active runs and uploads."""
    home.cwd = tmp_path
    yield home
    home.clear()
    for name in {*os.listdir(home.home.uploads), *os.listdir(home.home.incoming)}:
        uploads_of(home).remove(name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of everything that can be uploaded."""
    root = tmp_path / "cifar"
    (root / "train" / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("alpha")
    (root / "again.txt").write_text("alpha")
    (root / "empty").write_bytes(b"")
    (root / "train" / "big.bin").write_bytes(os.urandom(3 * MIB))
    (root / "train" / "tool.sh").write_text("#!/bin/sh\necho tool\n")
    (root / "train" / "tool.sh").chmod(0o755)
    (root / "train" / "deep" / "日本 語\\x5c").write_text("odd")
    Path(os.fsdecode(os.fsencode(root) + b"/byte\xff")).write_text("not UTF-8")
    (root / "link").symlink_to("train/tool.sh")
    (root / "train" / "up").symlink_to("../a.txt")
    (root / "to-folder").symlink_to("train")
    return root


def contents(root: Path) -> dict[bytes, tuple[str, bytes]]:
    """Kind and content of everything below a folder."""
    found = {}
    for folder, folders, names in os.walk(os.fsencode(root)):
        for name in [*names, *[item for item in folders if os.path.islink(os.path.join(folder, item))]]:
            place = os.path.join(folder, name)
            path = os.path.relpath(place, os.fsencode(root))
            status = os.lstat(place)
            if stat.S_ISLNK(status.st_mode):
                found[path] = ("link", os.readlink(place))
            else:
                found[path] = ("x" if status.st_mode & 0o100 else "-", Path(os.fsdecode(place)).read_bytes())
    return found


def uploads_of(spell: Spell) -> Uploads:
    return Uploads(spell.client.transport)


def leftovers(spell: Spell) -> list[str]:
    return sorted(os.listdir(spell.home.incoming))


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_a_folder_is_kept_as_it_is_and_sealed(spell: Spell, data: Path) -> None:
    done = spell("upload", str(data))
    assert (done.code, done.err) == (0, "")
    assert done.out == f"Total upload size: 3.0M\nUpload of cifar ({data}) to 'uploads/cifar' complete.\n"
    kept = spell.home.uploads / "cifar"
    assert contents(kept) == contents(data)
    assert leftovers(spell) == []
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in [kept, *kept.rglob("*")] if not path.is_symlink()}
    assert modes == {0o444, 0o555}, "nobody may write there"


def test_one_file_lies_in_a_folder_of_its_name(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2\n")
    assert spell("upload", "data.csv", "-n", "numbers").code == 0
    assert spell("cat", "uploads/numbers/data.csv").out == "1,2\n"
    assert spell("upload", "data.csv").code == 0
    assert spell("cat", "uploads/data.csv/data.csv").out == "1,2\n"


def test_on_a_terminal_a_file_is_asked_its_name(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2\n")
    with Terminal([str(BIN / "spell"), "upload", "data.csv"], tmp_path, spell.env) as terminal:
        terminal.sees("Upload data.csv to uploads/")
        terminal.type("numbers\r")
        assert terminal.ends() == 0
    assert spell("cat", "uploads/numbers/data.csv").out == "1,2\n"


def test_json_and_listings(spell: Spell, data: Path) -> None:
    found = spell("upload", "--json", str(data)).json()
    assert (found["name"], found["count"]) == ("cifar", 10)
    assert found["bytes"] == sum(
        path.lstat().st_size for path in data.rglob("*") if not path.is_dir() or path.is_symlink()
    )
    [listed] = uploads_of(spell).list()
    assert (listed.name, listed.tree) == ("cifar", found["tree"])
    assert spell("ls", "uploads").out.split()[-1] == "cifar/"
    assert spell("ls", "-h", "uploads/cifar/train/big.bin").out.split()[0] == "3.0M"


def test_copied_back_it_is_the_same(spell: Spell, data: Path, tmp_path: Path) -> None:
    assert spell("upload", str(data)).code == 0
    assert spell("cp", "uploads/cifar", "back").code == 0
    assert contents(tmp_path / "back") == contents(data)


def test_runs_mount_uploads_and_cannot_change_them(spell: Spell, data: Path) -> None:
    assert spell("upload", str(data)).code == 0
    mounts = (Mount("uploads/cifar", "data"), Mount("uploads/cifar/a.txt", "a.txt"))
    run = spell.run(
        "cat data/a.txt a.txt; ./data/link; echo x > data/a.txt; rm -rf data/train; echo x > data/new", mounts=mounts
    )
    assert spell.log(run.number).startswith(b"alphaalphatool\n")
    assert contents(spell.home.uploads / "cifar") == contents(data)
    done = spell("run", "-f", "-m", "uploads/nothing", "true")
    assert done.code == 1 and "Cannot mount resource 'uploads/nothing': not a valid resource." in done.err


# -- what is left out, and what is refused ----------------------------------------------------------------------------


def test_what_is_no_file_is_left_out_with_a_warning(spell: Spell, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    (root / "file").write_text("kept")
    os.mkfifo(root / "pipe")
    (root / "out").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../../x")
    (root / "nothing").symlink_to("no-such")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(os.path.relpath(root / "sock"))
        done = spell("upload", "odd")
    assert done.code == 0
    assert "WARNING: 'pipe' is left out: it is a named pipe.\n" in done.err
    assert "WARNING: 'sock' is left out: it is a socket.\n" in done.err
    for name in ("out", "up", "nothing"):
        assert f"'{name}'" in done.err
    assert list(contents(spell.home.uploads / "odd")) == [b"file"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["empty"], 3, "There is nothing to upload in 'empty'."),
        (["no-such"], 1, "'no-such' cannot be uploaded: No such file or directory."),
        (["file", "-n", "../x"], 3, "'../x' cannot be the name of an upload"),
        (["file", "-n", "a/b"], 3, "cannot be the name"),
        (["file", "-n", ".hidden"], 3, "cannot be the name"),
        (["file", "-n", "a:b"], 3, "cannot be the name"),
        (["file", "-n", "x" * 64], 3, "63 at most"),
        (["file", "-n", "two\nlines"], 3, "cannot be the name"),
        (["lines"], 3, "contains a line break"),
        (["/dev/null"], 3, "neither a folder nor a file"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_is_refused(spell: Spell, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a\nb").write_text("x")
    done = spell("upload", *words)
    assert (done.code, said in done.err) == (code, True), done
    assert leftovers(spell) == os.listdir(spell.home.uploads) == []


def test_an_upload_is_only_replaced_with_force(spell: Spell, data: Path) -> None:
    assert spell("upload", str(data)).code == 0
    assert spell("upload", str(data)).code == 0, "it is there already, just so"
    (data / "a.txt").write_text("beta!")
    done = spell("upload", str(data))
    assert done.code == 1
    assert done.err == (
        "ERROR: There is an upload 'cifar' already, with other content.\n"
        "       Replace it with -f, or choose another name with -n.\n"
    )
    assert (spell.home.uploads / "cifar" / "a.txt").read_text() == "alpha"
    big = (spell.home.uploads / "cifar" / "train" / "big.bin").stat().st_ino
    (data / "again.txt").unlink()
    assert spell("upload", "-f", str(data)).code == 0
    assert contents(spell.home.uploads / "cifar") == contents(data)
    assert (spell.home.uploads / "cifar" / "train" / "big.bin").stat().st_ino == big, (
        "what was there was not sent again"
    )
    assert leftovers(spell) == []


def test_f41_an_upload_that_an_active_run_mounts_stays(spell: Spell, data: Path) -> None:
    assert spell("upload", str(data)).code == 0
    number = spell.cast("echo begun; sleep 1000", mounts=(Mount("uploads/cifar/a.txt", "a"),))
    spell.says(number, b"begun")
    (data / "a.txt").write_text("other")
    said = f"ERROR: Run {number} mounts 'uploads/cifar', and has not ended.\n"
    for words in (["upload", "-f", str(data)], ["rm", "-f", "uploads/cifar"]):
        done = spell(*words)
        assert done.code == 1 and done.err.startswith(said), done
    assert (spell.home.uploads / "cifar" / "a.txt").read_text() == "alpha"
    spell.client.stop(str(number))
    spell.ended(number)
    assert wait_for(lambda: spell("upload", "-f", str(data)).code == 0, "its machine is given back")
    assert (spell.home.uploads / "cifar" / "a.txt").read_text() == "other"


def test_what_changes_meanwhile_is_noticed(spell: Spell, data: Path) -> None:
    tree = datatree.digest(datatree.look(str(data)))
    (data / "train" / "big.bin").write_bytes(os.urandom(3 * MIB))
    with pytest.raises(Conflict, match="changed while"):
        uploading.upload(uploads_of(spell), "changed", tree)
    tree = datatree.digest(datatree.look(str(data)))
    (data / "a.txt").unlink()
    with pytest.raises(Conflict, match=r"'a\.txt' changed while it was being uploaded"):
        uploading.upload(uploads_of(spell), "changed", tree)
    assert os.listdir(spell.home.uploads) == []
    uploads_of(spell).remove("changed")
    assert leftovers(spell) == []


# -- cut off, and gone on with ----------------------------------------------------------------------------------------


def test_interrupted_uploads_go_on_where_they_were(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "my data").mkdir()
    for number in range(4):
        (tmp_path / "my data" / f"big{number}").write_bytes(os.urandom(40 * MIB))
    spell.client.server()
    begun = spell.popen("upload", "my data", "-n", "big", start_new_session=True)
    parts = spell.home.incoming / "big" / "parts"
    wait_for(lambda: parts.exists() and any(part.stat().st_size for part in parts.iterdir()), "something has come")
    begun.send_signal(signal.SIGINT)
    _, err = begun.communicate(timeout=30)
    assert begun.returncode == 130
    assert err.decode() == "\nUpload aborted. To resume this upload, run:\nspell upload -n 'big' 'my data'\n"
    assert os.listdir(spell.home.uploads) == []
    tree = datatree.digest(datatree.look(str(tmp_path / "my data")))
    opened = uploads_of(spell).open("big", tree.manifest.to_json())
    assert sum(opened.begun.values()) > 0 or len(opened.missing) < 4
    told: list[int] = []
    spell.kill_server()
    uploading.upload(uploads_of(spell), "big", tree, said=told.append)
    assert sum(told) == 160 * MIB
    assert told[0] > 0, "what was there is not sent again"
    assert contents(spell.home.uploads / "big") == contents(tmp_path / "my data")


def test_a_killed_server_is_waited_for(spell: Spell, data: Path) -> None:
    tree = datatree.digest(datatree.look(str(data)))

    class Killing(Uploads):
        killed = False

        def publish(self, name: str, session: str, *, replace: bool = False) -> object:
            if not Killing.killed:
                Killing.killed = True
                spell.kill_server()
            return super().publish(name, session, replace=replace)

    assert uploading.upload(Killing(spell.client.transport), "killed", tree).count == 10
    assert contents(spell.home.uploads / "killed") == contents(data)


def test_damaged_and_foreign_files_of_a_cut_off_upload_are_not_taken(spell: Spell, data: Path) -> None:
    uploads, tree = uploads_of(spell), datatree.digest(datatree.look(str(data)))
    opened = uploads.open("x", tree.manifest.to_json())
    small = [
        digest
        for digest in opened.missing
        if digest != hashlib.sha256((data / "train" / "big.bin").read_bytes()).hexdigest()
    ]
    sizes = {entry.digest: entry.size for entry in tree.manifest.entries}
    uploads.add_pack("x", opened.session, pack((digest, tree.content(digest, sizes[digest])) for digest in small))
    came = spell.home.incoming / "x" / "tree"
    (came / "a.txt").chmod(0o644)
    (came / "a.txt").write_text("omega")
    (came / "a.txt").chmod(0o444)
    (came / "foreign").mkdir()
    (came / "foreign" / "file").write_text("x")
    again = uploads.open("x", tree.manifest.to_json())
    assert set(again.missing) == set(opened.missing) - set(small) | {hashlib.sha256(b"alpha").hexdigest()}
    with pytest.raises(Conflict, match="Somebody else uploads"):
        uploads.publish("x", opened.session)
    uploading.upload(uploads, "x", tree)
    assert contents(spell.home.uploads / "x") == contents(data)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_server_killed_while_it_publishes(make_spell: Callable[..., Spell], data: Path, moment: str) -> None:
    spell = make_spell()
    assert spell("upload", str(data)).code == 0
    old = contents(data)
    (data / "a.txt").write_text("gamma")
    uploads, tree = uploads_of(spell), datatree.digest(datatree.look(str(data)))
    opened = uploads.open("cifar", tree.manifest.to_json(), replace=True)
    data_of = {entry.digest: tree.content(entry.digest, entry.size) for entry in tree.manifest.entries}
    uploads.add_pack("cifar", opened.session, pack((digest, data_of[digest]) for digest in opened.missing))
    spell.kill_server()  # as if in the moment of publishing: its marker is there, its row is not
    came, place = spell.home.incoming / "cifar", spell.home.uploads / "cifar"
    record = {"name": "cifar", "tree": tree.manifest.tree, "count": 10, "bytes": 1, "created_at": 1.0}
    (came / "manifest.json").write_text(tree.manifest.to_json())
    marker = f'{{"upload": {json.dumps(record)}, "inode": {(came / "tree").stat().st_ino}}}'
    (came / "publishing.json").write_text(marker)
    if moment == "after":
        place.chmod(0o755)
        place.rename(came / "old")
        (came / "tree").rename(place)
    [found] = uploads.list()
    assert (found.tree == tree.manifest.tree) == (moment == "after")
    assert contents(place) == (contents(data) if moment == "after" else old)
    assert spell("upload", "-f", str(data)).code == 0
    assert contents(place) == contents(data)
    assert leftovers(spell) == []


def test_what_is_never_gone_on_with_can_be_collected(spell: Spell, data: Path) -> None:
    uploads, tree = uploads_of(spell), datatree.digest(datatree.look(str(data)))
    uploads.open("left", tree.manifest.to_json())
    assert leftovers(spell) == ["left"]
    assert spell("rm", "-f", "uploads/left").code == 0
    assert leftovers(spell) == []


# -- who means no good ------------------------------------------------------------------------------------------------


def entry(path: str, text: bytes, mode: str = manifest.FILE) -> Entry:
    return Entry(path, mode, hashlib.sha256(text).hexdigest(), len(text))


@pytest.mark.parametrize("target", [b"/etc/passwd", b"..", b"../../store/spell.db", b"a/../../../x", b""])
def test_links_that_lead_out_are_refused(spell: Spell, target: bytes) -> None:
    uploads = uploads_of(spell)
    opened = uploads.open("bad", make([entry("link", target, manifest.LINK), entry("a/f", b"x")]).to_json())
    with pytest.raises(Conflict, match="leads out"):
        uploads.add_pack("bad", opened.session, pack([(hashlib.sha256(target).hexdigest(), target)]))
    uploads.remove("bad")


def test_links_that_lead_out_together_are_refused(spell: Spell) -> None:
    uploads, links = uploads_of(spell), {"p/q/x": b"..", "p/q/b": b"x/../../.."}
    entries = [entry(path, text, manifest.LINK) for path, text in links.items()]
    opened = uploads.open("bad", make(entries).to_json())
    uploads.add_pack("bad", opened.session, pack((hashlib.sha256(text).hexdigest(), text) for text in links.values()))
    with pytest.raises(Conflict, match="leads out"):
        uploads.publish("bad", opened.session)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a//b", "", "a\nb", "a/.", "\\xc3\\xa4/evil"])
def test_paths_that_lead_out_are_refused(spell: Spell, path: str) -> None:
    text = make([entry("ok", b"x")]).to_json().replace('"ok"', json.dumps(path))
    with pytest.raises(InvalidConfig):
        uploads_of(spell).open("bad", text)
    assert leftovers(spell) == []


def test_wrong_bytes_are_refused(spell: Spell) -> None:
    uploads, big = uploads_of(spell), os.urandom(2 * MIB)
    wanted = [entry("a", b"right"), entry("big", big)]
    opened = uploads.open("bad", make(wanted).to_json())
    session, digest, sha256 = opened.session, wanted[0].digest, wanted[1].digest
    with pytest.raises(Conflict):
        uploads.add_pack("bad", session, pack([(digest, b"wrong")]))
    with pytest.raises(InvalidConfig, match="cut off"):
        uploads.add_pack("bad", session, pack([(digest, b"right")])[:-1])
    with pytest.raises(NotFound):
        uploads.add_pack("bad", session, pack([(hashlib.sha256(b"x").hexdigest(), b"x")]))
    with pytest.raises(Conflict):
        uploads.add_chunk("bad", session, sha256, 5, b"x")
    with pytest.raises(Conflict):
        uploads.add_chunk("bad", session, sha256, 0, bytes(3 * MIB))
    with pytest.raises(InvalidConfig):
        uploads.add_chunk("bad", session, "../../x", 0, b"x")
    with pytest.raises(Conflict, match="changed"):
        uploads.add_chunk("bad", session, sha256, 0, bytes(2 * MIB))
    with pytest.raises(Conflict, match="missing"):
        uploads.publish("bad", session)
    with pytest.raises(SpellError, match="MiB at most"):
        uploads.add_pack("bad", session, bytes(MOST_BYTES + 1))
    uploads.add_chunk("bad", session, sha256, 0, big[:MIB])
    uploads.add_chunk("bad", session, sha256, MIB, big[MIB:])
    uploads.add_pack("bad", session, pack([(digest, b"right")]))
    assert uploads.publish("bad", session).count == 2


def test_packs() -> None:
    blobs = [(hashlib.sha256(text).hexdigest(), text) for text in (b"", b"a", bytes(5000))]
    assert [(digest, bytes(data)) for digest, data in unpack(pack(blobs))] == blobs
    with pytest.raises(InvalidConfig):
        list(unpack(b"x" * 39))


# -- rm ---------------------------------------------------------------------------------------------------------------


def test_rm(spell: Spell, data: Path) -> None:
    for name in ("one", "two"):
        assert spell("upload", str(data), "-n", name).code == 0
    done = spell("rm", "uploads/one/", "uploads/two")
    assert (done.code, done.out) == (0, "Removed uploads/one\nRemoved uploads/two\n")
    assert os.listdir(spell.home.uploads) == leftovers(spell) == os.listdir(spell.home.upload_manifests) == []
    with contextlib.closing(sqlite3.connect(spell.home.database)) as store:
        assert store.execute("SELECT count(*) FROM uploads").fetchone() == (0,)


@pytest.mark.parametrize(
    ("resource", "code", "said"),
    [
        ("runs/3", 2, "Put the run away instead: spell archive 3"),
        ("runs/3/data.txt", 2, "Put the run away instead: spell archive 3"),
        ("uploads", 2, "Say which upload is to go."),
        ("uploads/x/y", 2, "Remove it: spell rm uploads/x"),
        ("uploads/none", 1, "There is no upload 'none'."),
        ("uploads/..", 1, "There is no upload '..'."),
        ("cifar", 1, "An upload is meant so: spell rm uploads/cifar"),
        ("/etc/passwd", 1, "'/etc/passwd' is not an upload."),
    ],
)
def test_rm_of_what_is_no_upload(spell: Spell, resource: str, code: int, said: str) -> None:
    done = spell("rm", "-f", resource)
    assert (done.code, said in done.err) == (code, True), done


def test_rm_asks_on_a_terminal(spell: Spell, data: Path, tmp_path: Path) -> None:
    assert spell("upload", str(data)).code == 0
    for answer, left in (("n", ["cifar"]), ("y", [])):
        with Terminal([str(BIN / "spell"), "rm", "uploads/cifar"], tmp_path, spell.env) as terminal:
            terminal.sees("Remove uploads/cifar (10 files, 3.0M) for good? [y/N]")
            terminal.type(f"{answer}\r")
            assert terminal.ends() == 0
        assert os.listdir(spell.home.uploads) == left


def test_progress_on_a_terminal(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "file").write_bytes(os.urandom(20 * MIB))
    with Terminal([str(BIN / "spell"), "upload", "big"], tmp_path, spell.env) as terminal:
        assert terminal.ends() == 0
        assert b"Uploading to uploads/big" in terminal.raw
        assert b"complete." in terminal.raw
    assert (
        subprocess.run(["cmp", "big/file", spell.home.uploads / "big" / "file"], cwd=tmp_path, check=False).returncode
        == 0
    )
