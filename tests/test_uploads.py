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
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import BIN, Spell, wait_for
from terminal import Terminal

from orchestrator.capture import datatree
from orchestrator.client import upload as uploading
from orchestrator.client.uploads import Uploads
from orchestrator.content import files, manifest
from orchestrator.content.files import remove_tree
from orchestrator.content.manifest import Entry, Manifest, make
from orchestrator.content.packs import MOST_BYTES, pack, unpack
from orchestrator.data import incoming
from orchestrator.data import uploads as server_uploads
from orchestrator.data.incoming import Incoming
from orchestrator.errors import Conflict, DiskFull, InvalidConfig, NotFound, SpellError
from orchestrator.home import Home
from orchestrator.records.uploads import UploadNeeds, UploadRecord
from orchestrator.spec.mounts import Mount
from orchestrator.store import Store
from orchestrator.store.database import Database
from orchestrator.store.uploads import UploadStore

MIB = 1 << 20


@pytest.fixture(scope="module")
def home(make_shared: Callable[..., Spell]) -> Spell:
    made = make_shared("uploads")
    made.client.server.get()  # makes the home's folders, whichever test comes first
    return made


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
    return spell.client.uploads


def read(root: Path) -> datatree.DataTree:
    """A folder, all of it hashed."""
    tree = datatree.DataTree(datatree.look(str(root)))
    for portion in tree.portions:
        tree.read(portion)
    return tree


def announced(spell: Spell, name: str, found: Manifest, *, replace: bool = False) -> tuple[str, UploadNeeds]:
    """An upload of these files, begun and announced."""
    opened = uploads_of(spell).open(name, 1, found.tree, replace=replace)
    return opened.session, uploads_of(spell).announce(name, opened.session, found.to_json())


def content_of(root: Path) -> dict[str, bytes]:
    """The content of each digest."""
    return {hashlib.sha256(data).hexdigest(): data for _, data in texts(root)}


def texts(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in root.rglob("*"):
        if path.is_symlink():
            yield path.name, os.fsencode(os.readlink(path))
        elif path.is_file():
            yield path.name, path.read_bytes()


def entry(path: str, text: bytes, mode: str = manifest.FILE) -> Entry:
    return Entry(path, mode, hashlib.sha256(text).hexdigest(), len(text))


def packed(*texts: bytes) -> bytes:
    return pack((hashlib.sha256(text).hexdigest(), text) for text in texts)


def remains(spell: Spell) -> list[str]:
    return sorted(os.listdir(spell.home.incoming))


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_a_folder_is_kept_as_it_is_and_sealed(spell: Spell, data: Path) -> None:
    done = spell("upload", str(data))
    assert (done.code, done.err) == (0, "")
    assert done.out == f"Total upload size: 3.0M\nUpload of cifar ({data}) to 'uploads/cifar' complete.\n"
    kept = spell.home.uploads / "cifar"
    assert contents(kept) == contents(data)
    assert remains(spell) == []
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
    long = data / ("l" * 60) / ("o" * 60) / "ng"
    long.parent.mkdir(parents=True)
    long.write_bytes(bytes(5000) + b"x" + bytes(5000))
    long.with_name("ü").symlink_to("ng")
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
    done = spell("run", "--no-code", "-m", "uploads/nothing", "true")
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
    assert done.code == 1  # "out" leads to a file that the upload lacks
    assert "WARNING: 'pipe' is left out: it is a named pipe.\n" in done.err
    assert "WARNING: 'sock' is left out: it is a socket.\n" in done.err
    assert "ERROR: Links that lead out of the folder are left out: 'out'.\n" in done.err
    for name in ("out", "up", "nothing"):
        assert f"'{name}'" in done.err
    assert list(contents(spell.home.uploads / "odd")) == [b"file"]
    (root / "out").unlink()
    assert spell("upload", "-f", "odd").code == 0


def test_links_are_kept_or_followed(spell: Spell, tmp_path: Path) -> None:
    """A snapshot of a Hugging Face cache has links only, to files that lie outside of it."""
    hub = tmp_path / "hub"
    for folder in ("blobs", "snapshots/rev", "other/deep"):
        (hub / folder).mkdir(parents=True)
    (hub / "blobs" / "1").write_text("weights")
    (hub / "other" / "deep" / "file").write_text("other")
    snapshot = hub / "snapshots" / "rev"
    for name, text in {
        "model": "../../blobs/1",
        "same": "model",
        "folder": "../../other",
        "gone": "../nothing",
    }.items():
        (snapshot / name).symlink_to(text)
    (snapshot / "absolute").symlink_to(snapshot / "model")
    (hub / "absolute").symlink_to(hub / "blobs" / "1")

    done = spell("upload", str(snapshot))
    assert (done.code, "has no files to upload" in done.err, "--follow-links" in done.err) == (3, True, True)
    assert spell("upload", "--follow-links", str(snapshot)).code == 0
    there = spell.home.uploads / "rev"
    assert (
        (there / "model").read_text() == (there / "same").read_text() == (there / "absolute").read_text() == "weights"
    )
    assert (there / "folder" / "deep" / "file").read_text() == "other"
    assert not (there / "model").is_symlink() and not (there / "gone").is_symlink()
    assert spell("upload", str(hub)).code == 0
    there = spell.home.uploads / "hub"
    assert os.readlink(there / "absolute") == "blobs/1"
    assert os.readlink(there / "snapshots" / "rev" / "absolute") == "../../blobs/1"
    assert spell("cp", "uploads/hub/snapshots/rev", str(tmp_path / "copy")).code == 0
    assert (tmp_path / "copy" / "absolute").read_text() == "weights"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["empty"], 3, "'empty' has no files to upload."),
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
        ([""], 2, "PATH is empty."),
    ],
)
def test_what_is_refused(spell: Spell, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a\nb").write_text("x")
    done = spell("upload", *words)
    assert (done.code, said in done.err) == (code, True), done
    assert remains(spell) == os.listdir(spell.home.uploads) == []


def test_an_upload_is_only_replaced_with_force(spell: Spell, data: Path) -> None:
    assert spell("upload", str(data)).code == 0
    assert spell("upload", str(data)).code == 0, "it is there already, just so"
    (data / "a.txt").write_text("beta!")
    done = spell("upload", str(data))
    assert done.code == 1
    assert done.err == (
        "ERROR: An upload 'cifar' already exists, with other content.\n"
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
    assert remains(spell) == []


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
    spell.client.runs.stop(str(number))
    spell.ended(number)
    assert wait_for(lambda: spell("upload", "-f", str(data)).code == 0, "its machine is given back")
    assert (spell.home.uploads / "cifar" / "a.txt").read_text() == "other"


@pytest.mark.parametrize("moment", ["before it is read", "after"])
def test_what_changes_meanwhile_is_noticed(spell: Spell, data: Path, moment: str) -> None:
    tree = datatree.DataTree(datatree.look(str(data)))
    if moment == "after":
        for portion in tree.portions:
            tree.read(portion)
    (data / "train" / "big.bin").write_bytes(os.urandom(3 * MIB))
    with pytest.raises(Conflict, match="changed while"):
        uploading.upload(uploads_of(spell), "changed", tree)
    tree = datatree.DataTree(datatree.look(str(data)))
    (data / "a.txt").write_text("alphA")  # as long as it was
    with pytest.raises(Conflict, match=r"'a\.txt' changed while it was being read"):
        uploading.upload(uploads_of(spell), "changed", tree)
    tree = datatree.DataTree(datatree.look(str(data)))
    (data / "again.txt").unlink()
    with pytest.raises(Conflict, match=r"'again\.txt' vanished while"):
        uploading.upload(uploads_of(spell), "changed", tree)
    assert os.listdir(spell.home.uploads) == []
    uploads_of(spell).remove("changed")
    assert remains(spell) == []


def test_small_files_are_uploaded_as_they_were_read(spell: Spell, data: Path) -> None:
    tree = datatree.DataTree(datatree.look(str(data)))
    tree.read(tree.portions[-1])
    (data / "a.txt").write_text("alphA")
    (data / "again.txt").unlink()
    uploading.upload(uploads_of(spell), "read", tree)
    assert (spell.home.uploads / "read" / "a.txt").read_text() == "alpha"
    assert (spell.home.uploads / "read" / "again.txt").exists()


def test_a_file_that_was_given_up_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(data := os.urandom(5 * MIB))
    tree = datatree.DataTree(datatree.look(str(tmp_path / "big")))
    tree.read(tree.portions[0], lambda: True)
    assert tree.portions[0].entries == []
    tree.read(tree.portions[0])
    assert tree.manifest.digests == {hashlib.sha256(data).hexdigest()}


# -- cut off, and gone on with ----------------------------------------------------------------------------------------


def test_interrupted_uploads_go_on_where_they_were(
    spell: Spell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my data").mkdir()
    for number in range(4):
        (tmp_path / "my data" / f"big{number}").write_bytes(os.urandom(40 * MIB))
    spell.client.server.get()
    begun = spell.popen("upload", "my data", "-n", "big", start_new_session=True)
    parts = spell.home.incoming / "big" / "parts"
    wait_for(lambda: parts.exists() and any(part.stat().st_size for part in parts.iterdir()), "something has come")
    begun.send_signal(signal.SIGINT)
    _, err = begun.communicate(timeout=30)
    assert begun.returncode == 130
    assert err.decode() == "\nUpload aborted. To resume this upload, run:\nspell upload -n 'big' 'my data'\n"
    assert os.listdir(spell.home.uploads) == []
    tree = read(tmp_path / "my data")
    _, needs = announced(spell, "big", tree.manifest)
    missing = 4 if needs.missing is None else len(needs.missing)
    there_bytes = (4 - missing) * 40 * MIB + sum(needs.begun.values())
    assert there_bytes > 0
    told: list[int] = []
    sent: list[int] = []
    spell.kill_server()
    uploads = uploads_of(spell)
    add_chunk = uploads.add_chunk

    def counted(name: str, session: str, digest: str, offset: int, data: bytes) -> None:
        sent.append(len(data))
        add_chunk(name, session, digest, offset, data)

    monkeypatch.setattr(uploads, "add_chunk", counted)
    uploading.upload(uploads, "big", tree, on_progress=told.append)
    assert sum(told) == 160 * MIB
    assert sum(sent) == 160 * MIB - there_bytes, "what was there is not sent again"
    assert contents(spell.home.uploads / "big") == contents(tmp_path / "my data")


def test_a_killed_server_is_waited_for(spell: Spell, data: Path) -> None:
    sent: list[int] = []

    class Killing(Uploads):
        killed: ClassVar[set[str]] = set()

        def kill(self, moment: str) -> None:
            if moment not in Killing.killed:
                Killing.killed.add(moment)
                spell.kill_server()

        def add_chunk(self, name: str, session: str, digest: str, offset: int, data: bytes) -> None:
            self.kill("sending")
            super().add_chunk(name, session, digest, offset, data)
            sent.append(len(data))

        def publish(self, name: str, session: str, tree: str, *, replace: bool = False) -> UploadRecord:
            self.kill("publishing")
            return super().publish(name, session, tree, replace=replace)

    tree = datatree.DataTree(datatree.look(str(data)))
    assert uploading.upload(Killing(spell.client.transport), "killed", tree).count == 10
    assert Killing.killed == {"sending", "publishing"}
    assert sent == [3 * MIB], "what is there is not sent again"
    assert contents(spell.home.uploads / "killed") == contents(data)


def test_damaged_and_foreign_files_of_a_cut_off_upload_are_not_taken(spell: Spell, data: Path) -> None:
    uploads, found = uploads_of(spell), read(data).manifest
    session, needs = announced(spell, "x", found)
    assert needs.missing is None
    big = hashlib.sha256((data / "train" / "big.bin").read_bytes()).hexdigest()
    small = {digest: text for digest, text in content_of(data).items() if digest != big}
    uploads.add_pack("x", session, pack(small.items()))
    [came] = (spell.home.incoming / "x" / "trees").iterdir()
    (came / "a.txt").unlink()
    (came / "a.txt").write_text("omega")
    (came / "a.txt").chmod(0o444)
    (came / "foreign").mkdir()
    (came / "foreign" / "file").write_text("x")
    _, again = announced(spell, "x", found)
    assert again.missing == [big], "of two that are alike one is whole"
    with pytest.raises(Conflict, match="Another client uploads"):
        uploads.publish("x", session, found.tree)
    uploading.upload(uploads, "x", read(data))
    assert contents(spell.home.uploads / "x") == contents(data)
    assert remains(spell) == []


def test_a_cut_off_upload_of_other_files_is_no_hindrance(spell: Spell, tmp_path: Path) -> None:
    """What was a folder is a file now, what was a link a folder; what is outside is neither taken nor removed."""
    outside = spell.home.root / "outside"
    outside.mkdir()
    (outside / "same").write_bytes(b"same")
    (outside / "other").write_bytes(b"other")
    before = make([entry("a/b", b"1"), entry("c", b"2"), entry("p/q/x", b"..", manifest.LINK)])
    session, _ = announced(spell, "x", before)
    uploads_of(spell).add_pack("x", session, packed(b"1", b"2", b".."))
    [came] = (spell.home.incoming / "x" / "trees").iterdir()
    (came / "out").symlink_to(outside)
    root = tmp_path / "now"
    for path, text in {"a": b"1", "c/d": b"2", "p/q/x/y": b"3", "out/same": b"same", "out/other": b"changed"}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text)
    uploading.upload(uploads_of(spell), "x", read(root))
    assert contents(spell.home.uploads / "x") == contents(root)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"same": b"same", "other": b"other"}
    assert remains(spell) == []


def test_of_two_senders_the_later_wins(spell: Spell, data: Path) -> None:
    uploads, found = uploads_of(spell), read(data).manifest
    first, _ = announced(spell, "x", found)
    second, needs = announced(spell, "x", found)
    for refused in (
        lambda: uploads.announce("x", first, found.to_json()),
        lambda: uploads.add_pack("x", first, packed(b"alpha")),
        lambda: uploads.publish("x", first, found.tree),
    ):
        with pytest.raises(Conflict, match="Another client uploads"):
            refused()
    texts = content_of(data)
    for digest in needs.missing or texts:
        if len(texts[digest]) > MIB:
            uploads.add_chunk("x", second, digest, 0, texts[digest])
        else:
            uploads.add_pack("x", second, pack([(digest, texts[digest])]))
    assert uploads.publish("x", second, found.tree).count == 10
    assert contents(spell.home.uploads / "x") == contents(data)


@pytest.mark.parametrize("size", [5, 2 * MIB])
def test_what_is_alike_is_sent_once(spell: Spell, size: int) -> None:
    """Announced at the same time, before and after it came, with other modes, and more often than a file has names."""
    uploads, data = uploads_of(spell), os.urandom(size)
    digest = hashlib.sha256(data).hexdigest()
    found = [entry("a", data), entry("b/b", data), entry("c", data, manifest.EXECUTABLE)]
    later = [entry("d", data), entry("e/x", data, manifest.EXECUTABLE)]
    session, needs = announced(spell, "alike", make(found[:1]))
    assert needs.missing is None
    assert uploads.announce("alike", session, make(found[1:]).to_json()).missing == []
    if size > MIB:
        uploads.add_chunk("alike", session, digest, 0, data)
    else:
        uploads.add_pack("alike", session, pack([(digest, data)]))
    assert uploads.announce("alike", session, make(later).to_json()).missing == []
    assert uploads.publish("alike", session, make(found + later).tree).count == 5
    kept = contents(spell.home.uploads / "alike")
    assert kept == {
        os.fsencode(item.path): ("x" if item.mode == manifest.EXECUTABLE else "-", data) for item in found + later
    }


def test_many_portions_with_files_that_are_alike(spell: Spell, tmp_path: Path) -> None:
    root = tmp_path / "many"
    for number in range(7000):
        (root / str(number % 7)).mkdir(parents=True, exist_ok=True)
        (root / str(number % 7) / str(number)).write_bytes(b"%d" % (number % 50) if number % 3 else b"")
    told: list[int] = []
    tree = datatree.DataTree(datatree.look(str(root)))
    assert len(tree.portions) == 6
    uploading.upload(uploads_of(spell), "many", tree, on_progress=told.append)
    assert contents(spell.home.uploads / "many") == contents(root)
    assert sum(told) == tree.total_bytes


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_server_killed_while_it_publishes(make_spell: Callable[..., Spell], data: Path, moment: str) -> None:
    spell = make_spell()
    assert spell("upload", str(data)).code == 0
    old = contents(data)
    (data / "a.txt").write_text("gamma")
    uploads, tree = uploads_of(spell), read(data)
    session, needs = announced(spell, "cifar", tree.manifest, replace=True)
    changed = {b"gamma", b"train/tool.sh", b"../a.txt", b"train"}  # links are always sent: they are small
    assert set(needs.missing or ()) == {hashlib.sha256(text).hexdigest() for text in changed}
    uploads.add_pack("cifar", session, packed(*changed))
    spell.kill_server()  # as if in the moment of publishing: its marker is there, its row is not
    came, place = spell.home.incoming / "cifar", spell.home.uploads / "cifar"
    record = {"name": "cifar", "tree": tree.manifest.tree, "count": 10, "bytes": 1, "created_at": 1.0}
    (came / "manifest.json").write_text(tree.manifest.to_json())
    marker = f'{{"upload": {json.dumps(record)}, "inode": {(came / "trees" / session).stat().st_ino}}}'
    (came / "publishing.json").write_text(marker)
    if moment == "after":
        place.chmod(0o755)
        place.rename(came / "old")
        (came / "trees" / session).rename(place)
    [found] = uploads.list()
    assert (found.tree == tree.manifest.tree) == (moment == "after")
    assert contents(place) == (contents(data) if moment == "after" else old)
    assert spell("upload", "-f", str(data)).code == 0
    assert contents(place) == contents(data)
    assert remains(spell) == []


def test_what_is_never_gone_on_with_can_be_collected(spell: Spell, data: Path) -> None:
    announced(spell, "left", read(data).manifest)
    assert remains(spell) == ["left"]
    assert "left" not in spell("gc", "--older-than", "0").out, "somebody may be going on with it"
    two_hours_ago = time.time() - 7200
    os.utime(spell.home.incoming / "left", (two_hours_ago, two_hours_ago))
    assert "incomplete upload left" in spell("gc", "--older-than", "0").out
    assert remains(spell) == []
    announced(spell, "left", read(data).manifest)
    assert spell("rm", "-f", "uploads/left").code == 0
    assert remains(spell) == []


def test_while_one_file_is_hashed_others_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.create()
    kept = server_uploads.Uploads(home, Store(Database(home.database)).uploads)
    first = make([entry("old", b"old")])
    session = kept.open("x", 3, first.tree, replace=False).session
    kept.announce("x", session, first.to_json().encode())
    kept.add_pack("x", session, packed(b"old"))
    kept.publish("x", session, first.tree, replace=False)

    is_hashing, is_allowed, sha256 = threading.Event(), threading.Event(), files.sha256

    def slow(path: Path) -> str | None:
        is_hashing.set()
        assert is_allowed.wait(30)
        return sha256(path)

    monkeypatch.setattr(incoming, "sha256", slow)
    old, new = make([entry("kept", b"old")]), make([entry("new", b"new")])
    both = make([*old.entries, *new.entries])
    session = kept.open("x", 6, both.tree, replace=True).session
    with ThreadPoolExecutor(1) as pool:
        needs = pool.submit(kept.announce, "x", session, old.to_json().encode())
        try:
            assert is_hashing.wait(30)
            kept.announce("x", session, new.to_json().encode())
            kept.add_pack("x", session, packed(b"new"))
            with pytest.raises(Conflict, match="missing"):
                kept.publish("x", session, new.tree, replace=True)
        finally:
            is_allowed.set()
        assert needs.result().missing == []
    assert kept.publish("x", session, both.tree, replace=True).count == 2


def test_what_is_whole_takes_nothing_more(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "coming", tmp_path / "nothing", None)
    incoming.announce(found := make([entry("a", b"a")]))
    incoming.add(unpack(packed(b"a")))
    incoming.seal(found.tree)
    with pytest.raises(Conflict, match="takes no more files"):
        incoming.announce(make([entry("b", b"b")]))
    with pytest.raises(Conflict, match="takes no more files"):
        incoming.add(unpack(packed(b"a")))
    with pytest.raises(Conflict, match="takes no more files"):
        incoming.append(entry("", b"a").digest, 0, b"a")


def test_what_is_not_recorded_does_not_stay(tmp_path: Path) -> None:
    """The disk is full in the moment of the commit: the files are those of the record that is there."""
    home = Home(tmp_path)
    home.create()
    store = Store(Database(home.database)).uploads
    is_full = threading.Event()

    class Full(UploadStore):
        """Fails when its transaction is to be committed."""

        def publish(self, upload: UploadRecord, place: Callable[[], object]) -> None:
            if not is_full.is_set():
                return store.publish(upload, place)
            place()
            raise DiskFull("The disk is full.")

        def find(self, name: str) -> UploadRecord | None:
            return store.find(name)

    kept = server_uploads.Uploads(home, Full(store._db))

    def send(text: bytes) -> None:
        found = make([entry("f", text)])
        opened = kept.open("name", len(text), found.tree, replace=True)
        kept.announce("name", opened.session, found.to_json().encode())
        kept.add_pack("name", opened.session, packed(text))
        kept.publish("name", opened.session, found.tree, replace=True)

    is_full.set()
    with pytest.raises(DiskFull):
        send(b"first")
    assert not (home.uploads / "name").exists()
    is_full.clear()
    send(b"first")
    is_full.set()
    with pytest.raises(DiskFull):
        send(b"second")
    assert (home.uploads / "name" / "f").read_bytes() == b"first"
    is_full.clear()
    send(b"second")
    assert (home.uploads / "name" / "f").read_bytes() == b"second"
    assert list(home.incoming.iterdir()) == []


def test_a_record_without_files_can_be_removed(spell: Spell, data: Path) -> None:
    assert spell("upload", str(data)).code == 0
    remove_tree(spell.home.uploads / "cifar")
    assert spell("rm", "-f", "uploads/cifar").code == 0
    with contextlib.closing(sqlite3.connect(spell.home.database)) as store:
        assert store.execute("SELECT count(*) FROM uploads WHERE name = 'cifar'").fetchone() == (0,)
    assert spell("rm", "-f", "uploads/cifar").code == 1


# -- who means no good ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"/etc/passwd", b"..", b"../../store/spell.db", b"a/../../../x", b""])
def test_links_that_lead_out_are_refused(spell: Spell, target: bytes) -> None:
    uploads = uploads_of(spell)
    session, _ = announced(spell, "bad", make([entry("link", target, manifest.LINK), entry("a/f", b"x")]))
    with pytest.raises(Conflict, match="leads out"):
        uploads.add_pack("bad", session, packed(target))
    uploads.remove("bad")


def test_links_that_lead_out_together_are_refused(spell: Spell) -> None:
    uploads, links = uploads_of(spell), {"p/q/x": b"..", "p/q/b": b"x/../../.."}
    found = make(entry(path, text, manifest.LINK) for path, text in links.items())
    session, _ = announced(spell, "bad", found)
    uploads.add_pack("bad", session, packed(*links.values()))
    for path in ("p/q/b/store/spell.db", "p/q/x/y", "p", "p/q", "p/q/x"):
        with pytest.raises(InvalidConfig, match=r"below a file|announced twice"):
            uploads.announce("bad", session, make([entry(path, b"x")]).to_json())
    with pytest.raises(Conflict, match="leads out"):
        uploads.publish("bad", session, found.tree)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a//b", "", "a\nb", "a/.", "\\xc3\\xa4/evil"])
def test_paths_that_lead_out_are_refused(spell: Spell, path: str) -> None:
    text = make([entry("ok", b"x")]).to_json().replace('"ok"', json.dumps(path))
    opened = uploads_of(spell).open("bad", 1)
    with pytest.raises(InvalidConfig):
        uploads_of(spell).announce("bad", opened.session, text)
    assert contents(spell.home.incoming / "bad") == {}


def test_wrong_bytes_are_refused(spell: Spell) -> None:
    uploads, big = uploads_of(spell), os.urandom(2 * MIB)
    wanted = [entry("a", b"right"), entry("big", big)]
    found = make(wanted)
    session, _ = announced(spell, "bad", found)
    digest, sha256 = wanted[0].digest, wanted[1].digest
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
        uploads.publish("bad", session, found.tree)
    for refused in (uploads.add_pack, uploads.announce):
        with pytest.raises(SpellError, match="at most 32 MiB"):
            refused("bad", session, bytes(MOST_BYTES + 1))
    uploads.add_chunk("bad", session, sha256, 0, big[:MIB])
    uploads.add_chunk("bad", session, sha256, MIB, big[MIB:])
    uploads.add_pack("bad", session, pack([(digest, b"right")]))
    with pytest.raises(Conflict, match="The files that arrived differ from those of the upload"):
        uploads.publish("bad", session, make(wanted[:1]).tree)
    assert uploads.publish("bad", session, found.tree).count == 2


def test_nothing_and_nonsense_are_refused(spell: Spell) -> None:
    uploads = uploads_of(spell)
    opened = uploads.open("bad", 0)
    with pytest.raises(InvalidConfig, match="nothing to upload"):
        uploads.publish("bad", opened.session, make([]).tree)
    with pytest.raises(SpellError):
        uploads.open("bad", -1)
    uploads.announce("bad", opened.session, make([entry("a", b"12345")]).to_json())
    odd = Entry("b", manifest.FILE, entry("a", b"12345").digest, 7)
    with pytest.raises(InvalidConfig, match="size"):
        uploads.announce("bad", opened.session, make([odd]).to_json())
    with pytest.raises(DiskFull, match="There is no room for 'full'"):
        uploads.open("full", 1 << 60)
    opened = uploads.open("full", 1)
    huge = Entry("huge", manifest.FILE, entry("", b"huge").digest, 1 << 60)
    with pytest.raises(DiskFull, match="There is no room for 'full'"):
        uploads.announce("full", opened.session, make([huge]).to_json())


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
    assert os.listdir(spell.home.uploads) == remains(spell) == os.listdir(spell.home.upload_manifests) == []
    with contextlib.closing(sqlite3.connect(spell.home.database)) as store:
        assert store.execute("SELECT count(*) FROM uploads").fetchone() == (0,)


@pytest.mark.parametrize(
    ("resource", "code", "said"),
    [
        ("runs/3", 2, "Archive the run instead: spell archive 3"),
        ("runs/3/data.txt", 2, "Archive the run instead: spell archive 3"),
        ("uploads", 2, "The name of the upload is missing."),
        ("uploads/x/y", 2, "Remove it: spell rm uploads/x"),
        ("uploads/none", 1, "There is no upload 'none'."),
        ("uploads/..", 1, "There is no upload '..'."),
        ("cifar", 1, "To remove an upload, type: spell rm uploads/cifar"),
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
