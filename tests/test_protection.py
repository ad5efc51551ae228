"""What a run cannot do: to the server, to its own records, to what other runs use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import Spell, wait_for

from orchestrator.content.files import remove_tree
from orchestrator.records.runs import RunRecord

NESTED = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')\nopen('deep.txt', 'w').write('here')"


@pytest.fixture
def isolated(make_spell: Callable[..., Spell]) -> Spell:
    """A home whose runs have private namespaces, as they have wherever the kernel allows it."""
    spell = make_spell()
    if spell.run("test $$ -lt 100").state != "complete":  # the shell is one of the first of its process namespace
        pytest.skip("this kernel gives no private namespaces")
    return spell


def test_folders_nested_too_deep_for_recursion(spell: Spell) -> None:
    run = spell.run(f'python -c "{NESTED}"')
    assert (run.state, run.outputs_count) == ("complete", 1)
    wait_for(lambda: not spell.home.work_dir(run.number).exists(), "the end of the work dir")
    spell.kill_server()
    assert spell.run("true").state == "complete", "the next server starts"
    remove_tree(spell.home.run_dir(run.number))  # pytest could not


def test_a_run_cannot_reach_its_claim_and_verdict(isolated: Spell) -> None:
    run = isolated.run('cd "$SPELL_HOME/store/records/$SPELL_RUN/attempt-1" && rm -f verdict.tmp claim.json; exit 5')
    assert (run.state, run.exit_code) == ("failed", 5)
    assert (isolated.home.attempt_dir(run.number, 1) / "claim.json").exists()


def test_root_cannot_undo_read_only_mounts(isolated: Spell) -> None:
    run = isolated.run(
        'umount "$SPELL_HOME/runs"; mount -o remount,rw "$SPELL_HOME/runs"; touch "$SPELL_HOME/runs/mine"'
    )
    assert run.state == "failed"
    assert not (isolated.home.runs / "mine").exists()


def test_an_environment_is_never_written_to(isolated: Spell) -> None:
    look = 'dirname $(python -c "import iniconfig; print(iniconfig.__file__)")'
    run = isolated.run(f'touch "$({look})/mine"', pip=("iniconfig",))
    assert run.state == "failed"
    assert isolated.run("python -c 'import iniconfig'", pip=("iniconfig",)).state == "complete"
    assert run.environment
    assert not (isolated.home.environment(run.environment) / "mine").exists()


def test_configuration_cannot_be_changed(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config="grace_s = 3\n")
    text = spell.home.config.read_text()
    spell.run('echo "grace_s = 0" > "$SPELL_HOME/config.toml"')
    assert spell.home.config.read_text() == text


def test_a_removed_and_remade_home_keeps_its_new_server(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell = make_spell("moving")
    assert spell.run("true").state == "complete"
    old = spell.server_pid
    spell.home.root.rename(tmp_path / "away")
    spell.home.root.mkdir()
    assert spell("run", "--executor", "process", "true").code == 0
    wait_for(lambda: not _lives(old), "the end of the old server")
    assert spell.server_pid != old
    assert spell("ps", "--json").json()[0]["state"] == "complete"


def test_a_damaged_snapshot_is_sent_again(spell: Spell, repo: Path) -> None:
    assert spell("run", "python hello.py", cwd=repo).code == 0
    for blob in spell.home.blobs.glob("*/*"):
        blob.write_bytes(b"damaged")
    assert spell("run", "python hello.py", cwd=repo).code == 1
    assert _ended(spell).message.endswith("damaged in the store; cast again")
    assert spell("run", "python hello.py", cwd=repo).code == 0


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ended(spell: Spell) -> RunRecord:
    return spell.client.runs.get("latest")
