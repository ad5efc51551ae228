"""`spell exec` beside runs of the process executor: in their namespaces, and where the kernel gives none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest
from conftest import BIN, Spell, bearing, wait_for
from terminal import Terminal, uses_a_shell

from orchestrator.executors.process import ProcessExecutor

CONFIG = "grace_s = 1\n[machine_types.cpu]\ncpus = 0.1\n[machine_types.one]\ncpus = 1\n"
PERSON = ("unshare", "--user", "--map-user=4242", "--map-group=4242", "--")
MODES = {"namespaces": (PERSON, {}), "processes": ((), {"SPELL_NAMESPACES": "never"})}
"""As one who is not root, so that a run has a namespace of users, too; without namespaces."""


@pytest.fixture(scope="module", params=MODES)
def shared(request: pytest.FixtureRequest, make_shared: Callable[..., Spell]) -> Spell:
    """A home with a run that goes on; it has a mount and a variable."""
    prefix, env = MODES[request.param]
    if not env and ProcessExecutor().isolation == "none":
        pytest.skip("the kernel gives no private namespaces here")
    if prefix and (not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False).returncode):
        pytest.skip("nobody can become another user here: no user namespaces")
    spell = make_shared(f"exec-{request.param}", config=CONFIG, prefix=prefix, **env)
    assert spell.run("echo data > data").state == "complete"
    words = ("run", "-b", "--name", "sleeper", "-m", "runs/1/data:in", "-e", "COLOUR=green", "-t", "one")
    assert spell(*words, "echo up; sleep 1000").number == 2
    spell.says(2, b"up")
    return spell


@pytest.fixture
def spell(shared: Spell) -> Spell:
    return shared


@pytest.fixture
def is_inside(request: pytest.FixtureRequest) -> bool:
    """Whether runs have private namespaces."""
    return "processes" not in request.node.callspec.id


def test_a_command_sees_what_the_run_sees(spell: Spell, is_inside: bool) -> None:
    """Variables, work dir, environment, cores, mounts; two streams, an exit code, input; and the log has none of it."""
    script = "echo $COLOUR $SPELL_RUN; pwd; which python; nproc; cat in; ulimit -c; echo aside >&2; exit 7"
    done = spell("exec", "sleeper", script)
    code, layer = spell.home.work_dir(2) / "code", spell.home.layer(2)
    assert (done.code, done.out, done.err) == (7, f"green 2\n{code}\n{layer}/bin/python\n1\ndata\n0\n", "aside\n")
    words = "import os, sys; print(os.environ['COLOUR'], sys.argv[1:])"
    assert spell("exec", "2", "python", "-c", words, "-x", "a b").out == "green ['-x', 'a b']\n"
    if is_inside:
        done = spell("exec", "2", "echo x > in; umount in; tr '\\0' ' ' < /proc/1/cmdline")
        assert "Read-only file system" in done.err and "umount" in done.err and done.out.endswith("forkserver "), done
    data = os.urandom(3 << 20)
    command = [str(BIN / "spell"), "exec", "2", "cat", "-"]
    echo = subprocess.run(command, env=spell.env, input=data, capture_output=True, timeout=60, check=False)
    assert (echo.returncode, echo.stdout == data, echo.stderr) == (0, True, b"")
    shell = subprocess.run(
        command[:3], env=spell.env, input=b"echo ${BASH_VERSION:+bash}\nexit 9\n", capture_output=True, check=False
    )
    assert (shell.returncode, shell.stdout) == (9, b"bash\n")
    lost = spell("exec", "2", "no-such-program", "x")
    assert (lost.code, "no-such-program" in lost.err) == (127, True)
    assert spell("exec", "2", "kill -9 $$").code == 137
    assert spell.log(2) == b"up\n"


def test_a_shell_on_a_terminal(spell: Spell) -> None:
    script = f"before=$(stty -g); {BIN}/spell exec 2; code=$?; [ $before = $(stty -g) ] && echo same $code"
    with Terminal(["sh", "-c", script], spell.cwd, spell.env, columns=91) as terminal:
        terminal.sees("code")  # the prompt
        terminal.type("PS1=ready-; stty size; echo $((40 + 2))-$COLOUR-$TERM\r")
        uses_a_shell(terminal, "ready-")


@pytest.mark.parametrize("command", ["trap '' INT HUP TERM; sleep {}", "exec env -i /bin/sleep {}"])
def test_nothing_lingers_when_the_client_is_gone(spell: Spell, token: str, command: str) -> None:
    client = spell.popen("exec", "2", f"echo up; {command.format(token)}", stdin=subprocess.PIPE)
    assert client.stdout is not None and client.stdout.readline() == b"up\n"
    wait_for(lambda: len(bearing(token)) > 1, "the command")
    client.kill()
    client.communicate()
    wait_for(lambda: not bearing(token), "the end of the command")


def test_the_end_of_the_run_ends_all_that_was_started(spell: Spell, token: str) -> None:
    """Also what an exec has left behind, and what hides; who listens is told. A stop gives it the grace of the run."""
    number = spell.cast("echo up; sleep 1000")
    spell.says(number, b"up")
    left = f"setsid nohup sleep {token} >/dev/null 2>&1 &"
    assert spell("exec", str(number), left).code == 0
    assert bearing(token)
    client = spell.popen("exec", str(number), f"trap '' TERM HUP; echo up; while :; do sleep {token}; done")
    assert client.stdout is not None and client.stdout.readline() == b"up\n"
    spell.client.runs.stop(number)
    assert spell.ended(number).state == "stopped"
    assert (client.wait(20), client.communicate()) == (
        137,
        (b"", f"Run {number} has ended, so this command was ended too.\n".encode()),
    )
    wait_for(lambda: not bearing(token), "the end of all")
    done = spell("exec", str(number), "true")
    assert (done.code, done.err.startswith(f"ERROR: Run {number} is not running: it is stopped.\n")) == (1, True)


def test_a_server_that_is_killed_takes_its_execs_with_it_and_not_the_run(
    spell: Spell, token: str, is_inside: bool
) -> None:
    client = spell.popen("exec", "2", f"echo up; sleep {token}")
    assert client.stdout is not None and client.stdout.readline() == b"up\n"
    spell.kill_server()
    assert client.wait(20) == 1
    client.communicate()
    wait_for(lambda: not bearing(token), "the end of the command")
    again = spell("exec", "2", "echo again")  # by the next server: as this person it is in another user namespace
    assert (again.out == "again\n") != is_inside, again
    assert spell.client.runs.get(2).state == "running"
