"""Secrets: set, listed, removed, given to commands, and seen nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import secrets
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BIN, DEADLINE_S, Spell, wait_for
from engines import containers_of, engine_api
from launches import make_launch
from terminal import Terminal

from orchestrator.cli.secrets import MASKED_BYTES
from orchestrator.data.secrets import MAX_BYTES
from orchestrator.supervisor import masking, secrets_pipe

KINDS = ("process", pytest.param("docker", marks=pytest.mark.engine))


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Callable[[str], Spell]:
    """The home of this module whose runs are of this executor."""
    made: dict[str, Spell] = {}

    def get(kind: str) -> Spell:
        if kind not in made:
            made[kind] = make_shared(f"secrets-{kind}", docker=kind == "docker")
        return made[kind]

    return get


@pytest.fixture
def spell(shared: Callable[[str], Spell]) -> Spell:
    """A shared home; its runs are processes."""
    return shared("process")


def put(spell: Spell, name: str, value: bytes) -> str:
    """`spell secret set NAME`, the value on standard input. Returns what it says."""
    with spell.popen("secret", "set", name, stdin=subprocess.PIPE) as process:
        out, err = process.communicate(value, timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return out.decode()


def fresh() -> bytes:
    """A value that nobody else has."""
    return secrets.token_hex(16).encode()


# -- the verbs ----------------------------------------------------------------------------------------------------------


def test_set_list_overwrite_rm(spell: Spell) -> None:
    assert put(spell, "B_KEY", b"one-value\n") == "Secret B_KEY set\n"
    assert put(spell, "A.key-2", b"a-value") == "Secret A.key-2 set\n"
    assert put(spell, "B_KEY", b"another") == "Secret B_KEY overwritten\n"
    found = spell("secret", "list", "--json").json()
    assert [item["name"] for item in found] == ["A.key-2", "B_KEY"]
    assert found[1]["created_at"] < found[1]["updated_at"]
    table = spell("secret", "list").out
    assert table.splitlines()[0].split() == ["NAME", "CREATED", "SET"] and "A.key-2" in table
    assert spell("secret", "rm", "A.key-2", "B_KEY").out == "Secret A.key-2 removed\nSecret B_KEY removed\n"
    gone = spell("secret", "rm", "B_KEY")
    assert gone.code == 1 and "There is no secret 'B_KEY'" in gone.err and "spell secret list" in gone.err
    assert spell("secret", "list", "--json").json() == []
    assert "spell secret set NAME" in spell("secret", "list").err


@pytest.mark.parametrize("words", [("TOKEN", "hunter2"), ("TOKEN=hunter2",), ()])
def test_a_value_is_never_an_argument(spell: Spell, words: tuple[str, ...]) -> None:
    done = spell("secret", "set", *words)
    assert done.code == 2 and "spell secret set NAME < FILE" in done.err and "hunter2" not in done.err + done.out


@pytest.mark.parametrize("name", ["1A", "a b", "a/b", "..", "x" * 64, "é", "a\nb", "-"])
def test_names_that_cannot_be(spell: Spell, name: str) -> None:
    done = spell("secret", "set", "--", name)
    assert done.code == 3 and "Secret name" in done.err
    assert spell("secret", "rm", "--", name).code == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [(b"", "empty"), (b"\n", "empty"), (b"a\0b", "UTF-8"), (b"\xff\xfe", "UTF-8"), (b"x" * (MAX_BYTES + 1), "64 KiB")],
)
def test_values_that_cannot_be(spell: Spell, value: bytes, words: str) -> None:
    with spell.popen("secret", "set", "NOT_SO", stdin=subprocess.PIPE) as process:
        _, err = process.communicate(value)
    assert process.returncode == 3 and words in err.decode()
    assert "NOT_SO" not in spell("secret", "list").out


def test_a_short_value_is_warned_of(spell: Spell) -> None:
    assert MASKED_BYTES == masking.LEAST_BYTES
    with spell.popen("secret", "set", "SHORT", stdin=subprocess.PIPE) as process:
        _, err = process.communicate(b"abc")
    assert b"fewer than 4 bytes" in err
    assert spell.log(spell.run("echo is $SHORT", secrets={"SHORT": "SHORT"}).number) == b"is abc\n"


def test_on_a_terminal_it_is_asked_for_without_echo(spell: Spell) -> None:
    value = fresh().decode()
    with Terminal([str(BIN / "spell"), "secret", "set", "TYPED"], spell.cwd, spell.env) as terminal:
        terminal.sees("Value of TYPED")
        terminal.type(value + "\n")
        terminal.sees("Secret TYPED set")
        assert terminal.ends() == 0 and value.encode() not in terminal.raw
    length = spell.log(spell.run('printf "%s" "$TYPED" | wc -c', secrets={"TYPED": "TYPED"}).number)
    assert int(length) == len(value)


def test_casting_with_secrets(spell: Spell) -> None:
    value = fresh()
    put(spell, "API_KEY", value)
    digest = "printf %s \"$KEY\" | sha256sum; env | grep -c '^API_KEY='"
    done = spell("run", "--secret", "API_KEY=KEY", digest)
    assert hashlib.sha256(value).hexdigest() in done.out
    number = done.number
    assert spell("info", str(number), "--json").json()["spec"]["secrets"] == {"KEY": "API_KEY"}
    assert "API_KEY=KEY" in spell("info", str(number)).out
    again = spell("rerun", str(number))
    assert spell.log(again.number) == spell.log(number)
    last = spell.client.runs.list(limit=1)[-1].number
    unknown = spell("run", "--secret", "NONE_SUCH", "true")
    assert unknown.code == 1 and "There is no secret 'NONE_SUCH'" in unknown.err
    assert "spell secret set NONE_SUCH" in unknown.err and spell.client.runs.list(limit=1)[-1].number == last


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--secret", "API_KEY=PATH"], "set by spell"),
        (["--secret", "API_KEY=SPELL_RUN"], "set by spell"),
        (["--secret", "API.KEY"], "--secret API.KEY=VARIABLE"),
        (["--secret", "API_KEY=A", "-e", "A=b"], "twice"),
        (["--secret", "=A"], "NAME=VARIABLE"),
    ],
)
def test_secrets_that_cannot_be_given(spell: Spell, words: list[str], says: str) -> None:
    done = spell("run", *words, "true")
    assert done.code == 3 and says in done.err


def test_reuse_workflows_and_searches_know_names_only(spell: Spell, tmp_path: Path) -> None:
    value = fresh()
    put(spell, "SHARED", value)
    first = spell("run", "--secret", "SHARED", "echo once $SHARED").number
    put(spell, "SHARED", fresh())
    reused = spell("run", "--reuse", "--secret", "SHARED", "echo once $SHARED")
    assert (
        f"run {first}" in reused.out.lower() + reused.err.lower()
        and spell.client.runs.list(limit=1)[-1].number == first
    )
    (tmp_path / "step.yaml").write_text("command: 'echo step $SHARED'\nsecrets: [SHARED]\n")
    (tmp_path / "flow.yaml").write_text("steps:\n  one: {file: step.yaml}\n")
    flow = spell("workflow", "--json", "flow.yaml", cwd=tmp_path)
    assert flow.code == 0, flow
    assert spell.log(flow.json()["steps"][0]["run"]) == b"step ***\n"
    words = ["hyper", "grid", "--param", "N=1,2", "--secret", "SHARED", "--json", "echo :N: $SHARED"]
    trials = spell(*words).json()["trials"]
    assert sorted(spell.log(trial["run"]) for trial in trials) == [b"1 ***\n", b"2 ***\n"]
    refused = spell("hyper", "grid", "--param", "N=1,2", "--secret", "NONE_SUCH", "echo :N:")
    assert refused.code == 1 and "spell secret set NONE_SUCH" in refused.err
    assert value.decode() not in repr(flow) and in_files(spell, value) == []


# -- the key ------------------------------------------------------------------------------------------------------------


def test_the_key_is_the_owners_only_and_a_lost_one_is_told_of(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell()
    put(spell, "TOKEN", b"value-1")
    key = spell.home.secrets_key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o640)
    with spell.popen("secret", "set", "OTHER", stdin=subprocess.PIPE) as process:
        _, err = process.communicate(b"value-2")
    assert process.returncode == 1 and f"chmod 600 {key}" in err.decode()
    run = spell.run("true", secrets={"T": "TOKEN"})
    assert (run.state, run.reason) == ("failed", "secret_lost") and "chmod 600" in run.message
    key.chmod(0o600)
    assert spell.run("true", secrets={"T": "TOKEN"}).state == "complete"
    kept = key.read_bytes()
    key.unlink()
    assert "is gone" in spell.run("true", secrets={"T": "TOKEN"}).message
    key.write_bytes(b"short")
    key.chmod(0o600)
    assert "damaged" in spell.run("true", secrets={"T": "TOKEN"}).message
    key.unlink()
    put(spell, "OTHER", b"value-2")  # with a new key
    assert key.read_bytes() != kept
    lost = spell.run("true", secrets={"T": "TOKEN"})
    assert lost.reason == "secret_lost" and "another key" in lost.message and "spell secret set TOKEN" in lost.message
    put(spell, "TOKEN", b"value-1")
    assert spell.log(spell.run("[ $T = value-1 ] && echo same", secrets={"T": "TOKEN"}).number) == b"same\n"


def test_keys_made_at_once_are_one(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell()
    names = [f"N{number}" for number in range(6)]
    spell.client.server.get()
    threads = [threading.Thread(target=put, args=(spell, name, name.encode() * 4)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run = spell.run(" && ".join(f"[ ${name} = {name * 4} ]" for name in names), secrets={name: name for name in names})
    assert run.state == "complete", run.message


def test_a_secret_that_is_removed_before_the_start(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config="[machine_types.cpu]\ncpus = 1000\n[machine_types.whole]\ncpus = 1\n")
    spell.home.config.write_text(f"executor = 'process'\n[machine_types.cpu]\ncpus = {os.cpu_count()}\n")
    put(spell, "TOKEN", b"value-1")
    first = spell.cast("sleep 1000")
    spell.reaches(first, "running")
    waiting = spell.cast("true", secrets={"T": "TOKEN"}, retries=3)
    assert spell("secret", "rm", "TOKEN").code == 0
    spell.client.runs.kill(str(first))
    run = spell.ended(waiting)
    assert (run.state, run.reason) == ("failed", "secret_lost")
    assert "secret TOKEN was removed" in run.message and "spell secret set TOKEN" in run.message


# -- where they are -----------------------------------------------------------------------------------------------------


def in_processes(value: bytes) -> list[int]:
    """Whose command line or environment has this value."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                if value in (folder / name).read_bytes():
                    found.append(int(folder.name))
    return sorted(set(found))


def in_files(spell: Spell, value: bytes) -> list[Path]:
    """The files of the home that have this value."""
    found = []
    for folder, _, names in os.walk(spell.home.root):  # which goes on where a folder is removed meanwhile
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode) and value in path.read_bytes():
                    found.append(path)
    return found


def told(spell: Spell, number: int) -> Iterator[str]:
    """All that commands say of a run, and of all else."""
    for words in (
        ("ps", "--json", "--all"), ("ps", "--verbose"), ("info", str(number)), ("info", str(number), "--json"), ("logs", "-v", str(number)),
        ("secret", "list"), ("secret", "list", "--json"), ("server", "logs"), ("server", "status", "--json"), ("stats", "--json"),
    ):  # fmt: skip
        done = spell(*words)
        yield done.out + done.err
    for part in ("events", "artifacts", "samples", "metrics"):
        yield json.dumps(spell.client.transport.call("GET", f"/runs/{number}/{part}"))


@pytest.mark.parametrize("kind", KINDS)
def test_f50_a_secret_is_in_the_environment_of_its_command_and_nowhere_else(
    shared: Callable[[str], Spell], kind: str
) -> None:
    spell, value = shared(kind), fresh()
    put(spell, "RANDOM_KEY", value)
    number = spell.cast("echo key=$KEY; echo $KEY >&2; exec sleep 1000", secrets={"KEY": "RANDOM_KEY"}, retries=1)
    spell.says(number, b"key=***\n***\n")
    bearers = in_processes(value)
    assert bearers, "its command has it"
    for pid in bearers:
        assert b"sleep\x001000" in Path(f"/proc/{pid}/cmdline").read_bytes()
    for text in told(spell, number):
        assert value.decode() not in text
    assert in_files(spell, value) == []
    if kind == "docker":
        (container,) = containers_of(spell.home)
        inspected = engine_api().inspect_container(container["Id"])
        assert value.decode() not in json.dumps(inspected, default=str)
        assert value not in engine_api().logs(container["Id"])
        assert value.decode() not in json.dumps(engine_api().history(inspected["Image"]))
    spell.client.runs.stop(str(number))
    assert spell.ended(number).state == "stopped"
    assert in_files(spell, value) == [] and in_processes(value) == []


def test_f50_errors_and_crashes_say_nothing(make_spell: Callable[..., Spell]) -> None:
    spell, value = make_spell(), fresh()
    put(spell, "KEY", value)
    wrong = spell.run("exec /no/such/$KEY", secrets={"KEY": "KEY"})
    assert wrong.exit_code == 127 and b"/no/such/***" in spell.log(wrong.number)
    put(spell, "LONG1", value * 1900)
    many = {f"V{number}": "LONG1" for number in range(60)}  # more than the kernel takes
    failed = spell.run("true", secrets=many)
    assert failed.state == "failed" and value.decode() not in failed.message
    with pytest.raises(Exception, match="UTF-8") as raised:
        spell.client.transport.call("PUT", "/secrets/KEY", content=value + b"\xff")
    assert value.decode() not in repr(raised.value)
    for number in (wrong.number, failed.number):
        assert not any(value.decode() in text for text in told(spell, number))
    assert in_files(spell, value) == []


@pytest.mark.parametrize("kind", KINDS)
def test_f50_a_server_killed_while_it_starts_a_run_leaves_nothing_and_the_run_is_made_again(
    make_spell: Callable[..., Spell], kind: str
) -> None:
    spell, value = make_spell(docker=kind == "docker"), fresh()
    put(spell, "KEY", value)
    numbers = []
    for _ in range(3):
        numbers.append(spell.cast("echo $KEY done", secrets={"KEY": "KEY"}))
        wait_for(lambda: spell.stored(numbers[-1])[0] != "machine_requested", "the build")
        spell.kill_server()
        spell.client.server.get()
    for number in numbers:
        assert spell.ended(number, 60).state == "complete"
        assert spell.log(number) == b"*** done\n"
    assert in_files(spell, value) == []


@pytest.mark.parametrize("said", [b"", b'{"KEY": "val'])
def test_f50_what_was_not_told_to_its_end_is_not_taken(said: bytes) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, said)
    os.close(write_fd)
    assert secrets_pipe.read_secrets(read_fd) is None


def test_f50_who_was_gone_before_the_pipe_was_opened_is_not_waited_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets_pipe, "_SILENCE_MS", 50)
    os.mkfifo(tmp_path / "secrets")
    assert secrets_pipe.read_secrets(os.open(tmp_path / "secrets", os.O_RDONLY | os.O_NONBLOCK)) is None


def test_f50_the_words_of_a_launch_hide_them(tmp_path: Path) -> None:
    assert "hidden-value" not in repr(make_launch(tmp_path, "true", secrets={"KEY": "hidden-value"}))


def test_exec_sees_them(shared: Callable[[str], Spell]) -> None:
    spell, value = shared("docker"), fresh()
    put(spell, "KEY_OF_EXEC", value)
    number = spell.cast("echo on; sleep 1000", secrets={"KEY": "KEY_OF_EXEC"})
    spell.says(number, b"on\n")
    assert spell("exec", str(number), "echo $KEY").out.strip() == value.decode()
    spell.client.runs.kill(str(number))
    spell.ended(number)


# -- the masked log -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_f20_bytes_of_a_masked_log_are_exact_and_the_last_are_there(shared: Callable[[str], Spell], kind: str) -> None:
    spell, value = shared(kind), fresh()
    put(spell, "KEY", value + b"\nsecond-line\n")
    code = (
        "import os; k=os.environ['KEY'].split()[0].encode(); w=os.write; w(1, bytes(range(256))*500); w(1, k[:9]); w(2, k[9:]);"
        "w(1, b'\\n\\xff second-line '); w(1, k[:-1])"
    )
    run = spell.run(f'python -c "{code}"', secrets={"KEY": "KEY"})
    assert run.exit_code == 0
    assert spell.log(run.number) == bytes(range(256)) * 500 + b"***\n\xff *** " + value[:-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_f20_what_is_held_back_is_told_soon_and_at_the_end(shared: Callable[[str], Spell], kind: str, how: str) -> None:
    spell, value = shared(kind), fresh()
    put(spell, "KEY", value)
    command = "trap 'printf bye${KEY%?}; exit 3' TERM; printf ${KEY%??}; while :; do sleep 0.01; done"
    number = spell.cast(command, secrets={"KEY": "KEY"})
    spell.says(number, value[:-2])
    getattr(spell.client.runs, how)(str(number))
    spell.ended(number)
    log = spell.log(number)
    assert log.startswith(value[:-2]) and (how == "kill" or log.endswith(b"bye" + value[:-1]))


@pytest.mark.parametrize("namespaces", ["", "never"])
def test_what_outlives_a_command_has_its_last_words_masked(make_spell: Callable[..., Spell], namespaces: str) -> None:
    spell, value = make_spell(SPELL_NAMESPACES=namespaces), fresh()
    put(spell, "KEY", value)
    number = spell.cast("trap '' TERM; (while :; do echo $KEY; done) & sleep 0.2; exit 4", secrets={"KEY": "KEY"})
    assert spell.ended(number).exit_code == 4
    log = spell.log(number)
    assert log.startswith(b"***\n***\n") and value not in log
    assert set(log.splitlines()[:-1]) == {b"***"}


def test_a_run_without_secrets_writes_into_its_log_itself(spell: Spell) -> None:
    run = spell.run("readlink /proc/self/fd/1")
    assert spell.log(run.number).decode().strip() == str(spell.home.log(run.number))


def plainly(patterns: list[bytes], data: bytes) -> bytes:
    """The same as a masker says, found in the slowest way."""
    covered = sorted((at, at + len(item)) for item in patterns for at in range(len(data)) if data.startswith(item, at))
    out, at, end = [], 0, 0
    for begin, stop in covered:
        if begin >= end:
            out += [data[at:begin], b"***"]
        end = max(end, stop)
        at = end
    return b"".join([*out, data[at:]])


def test_masked_whatever_the_pieces() -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    for _ in range(3000):
        letters = rng.choice([b"ab", b"abc\n"])
        values = [bytes(rng.choices(letters, k=rng.choice([4, 5, 7, 8, 9, 12, 30]))) for _ in range(rng.randint(1, 3))]
        patterns = masking.patterns_of(values)
        parts = [
            rng.choice([bytes(rng.choices(letters, k=3)), *values, values[0][:7]]) for _ in range(rng.randint(0, 9))
        ]
        data, masker, said, at = b"".join(parts), masking.Masker(patterns), b"", 0
        while at < len(data):
            size = rng.choice([1, 2, 3, 7, 20])
            said += masker.feed(data[at : at + size])
            at += size
        assert said + masker.flush() == plainly(patterns, data), (seed, patterns, data)


def test_a_secret_that_begins_another_one_is_never_told() -> None:
    masker = masking.Masker(masking.patterns_of([b"line-one\nline-two"]))
    assert masker.feed(b"line-one\n") == b"" and masker.holds
    assert masker.flush() == b"***\n"
    assert masking.patterns_of([b"  ab \n  long enough\nab"]) == sorted(
        [b"  ab \n  long enough\nab", b"long enough"], key=len
    )


def test_the_log_takes_no_more_on_a_full_disk(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    log = masking.MaskedLog(os.open("/dev/full", os.O_WRONLY), masking.patterns_of([b"secret"]))
    writer = subprocess.Popen(["sh", "-c", "while echo words; do :; done"], stdout=log.fd, stderr=subprocess.DEVNULL)
    log.begin()
    assert writer.wait(DEADLINE_S) in (-signal.SIGPIPE, 0, 1, 2)
    log.end()


def test_a_crash_leaves_no_core(spell: Spell) -> None:
    """It would be an output, with the secrets in it."""
    put(spell, "CORE", b"hunter2-of-the-core")
    number = spell.run("ulimit -c; ulimit -Hc", secrets={"CORE": "CORE"}).number
    assert spell.log(number) == b"0\n0\n"
