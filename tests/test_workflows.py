"""`spell workflow`: steps are cast when what they need is complete, side by side, each once, whatever dies meanwhile.

A command that waits does so for a file outside of the home; one that counts its executions appends a line to such a file.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BIN, Done, Spell, git, wait_for
from terminal import Terminal

from orchestrator import machine
from orchestrator.client.workflows import Workflows
from orchestrator.controllers import workflows as server_workflows
from orchestrator.errors import Conflict, InvalidConfig, NotFound, SnapshotMissing, SpellError
from orchestrator.records.workflows import StepRecord, WorkflowRecord
from orchestrator.service import Who
from orchestrator.spec.mounts import parse_mount
from orchestrator.spec.run import Code, RunSpec
from orchestrator.spec.workflow import Step, WorkflowSpec
from orchestrator.states import StopRequest, WorkflowState
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

CONFIG = f"""
grace_s = 1

[machine_types.cpu]
cpus = {machine.detect().cpus / 20}
"""


@pytest.fixture
def own(make_spell: Callable[..., Spell], repo: Path) -> Spell:
    """A fresh home, on whose machine many runs have room; the caller is in a repository."""
    return make_spell(config=CONFIG, cwd=repo)


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests that leave nothing in the way."""
    return make_shared("workflows", config=CONFIG)


def written(folder: Path, steps: Mapping[str, Any], name: str = "flow") -> str:
    """The path of a workflow file with these steps; a text is a command."""
    fields = {key: {"command": value} if isinstance(value, str) else value for key, value in steps.items()}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"steps": fields}, sort_keys=False))
    return str(path)


def flows(spell: Spell) -> Workflows:
    return spell.client.workflows


def cast(spell: Spell, *steps: Step) -> int:
    """Cast a workflow through the API. Returns its number."""
    return flows(spell).cast(WorkflowSpec("flow", steps, reuse=False)).number


def step(name: str, command: str, *needs: str, mounts: tuple[str, ...] = (), **fields: Any) -> Step:
    parsed = tuple(parse_mount(text) for text in mounts)
    return Step(name, RunSpec(command, mounts=parsed, **fields), needs)


def ended(spell: Spell, number: int) -> WorkflowRecord:
    """The workflow, when it has ended."""

    def final() -> WorkflowRecord | None:
        found = flows(spell).get(str(number))
        return found if found.state != WorkflowState.RUNNING else None

    return wait_for(final, f"the end of workflow {number}")


def steps_of(found: WorkflowRecord) -> dict[str, StepRecord]:
    return {item.name: item for item in found.steps}


def states(found: WorkflowRecord) -> dict[str, str]:
    return {item.name: item.state for item in found.steps}


def reaches(spell: Spell, number: int, **wanted: str) -> WorkflowRecord:
    """The workflow, when these steps are in these states."""

    def there() -> WorkflowRecord | None:
        found = flows(spell).get(str(number))
        return found if wanted.items() <= states(found).items() else None

    return wait_for(there, f"{wanted} in workflow {number}")


def waiting_for(gate: Path) -> str:
    return f"while [ ! -e {gate} ]; do sleep 0.02; done"


# -- the order of things ----------------------------------------------------------------------------------------------


def test_steps_get_what_they_refer_to(own: Spell, repo: Path) -> None:
    file = written(
        repo,
        {
            "join": {"command": "cat data.txt more/b.txt > c.txt", "mounts": ["${runs.a}/data.txt", "${runs.b}:more"]},
            "a": "echo one > data.txt",
            "b": "echo two > b.txt",
            "look": {"command": "cat join/c.txt; cat hello.py", "mounts": ["${runs.join}"]},
        },
    )
    done = own("workflow", file)
    assert done.code == 0, done
    found = flows(own).get("latest")
    assert (found.name, found.state, found.steps_complete) == ("flow", "complete", 4)
    assert [item.run for item in found.steps] == [3, 1, 2, 4], "cast when what they need is complete"
    assert own.log(4) == b"one\ntwo\nprint('hello')\n"
    assert [mount["resource"] for mount in own.client.runs.get("3").mounts] == ["runs/1/data.txt", "runs/2"]
    trees = {own.client.runs.get(str(number)).spec["code"]["tree"] for number in (1, 2, 3, 4)}
    assert len(trees) == 1, "one snapshot for all"
    lines = done.out.splitlines()
    assert lines[:2] == ["💫 Casting workflow #1…", "✨ Stop viewing with ^C"]
    assert lines[-1] == "🎉 Workflow 1 complete"
    assert [line.split("(")[0] for line in lines if line.startswith("🎉 join")] == ["🎉 join  run 3: complete "]


def test_the_example_of_the_docs(shared: Spell, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "workflows.md").read_text()
    (tmp_path / "words.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    (tmp_path / "download.yaml").write_text("command: printf 'b\\na\\n' > data.txt\n")
    (tmp_path / "count.yaml").write_text("command: wc -l < data.txt > count.txt\nmachine_type: none-such\n")
    done = shared("workflow", "words.yaml", cwd=tmp_path)
    assert done.code == 0, done
    run = steps_of(flows(shared).get("words"))["report"].run
    assert shared("cat", f"runs/{run}/report.txt").out.split() == ["2", "a", "b"]


def test_independent_steps_run_side_by_side(shared: Spell, tmp_path: Path) -> None:
    def meet(mine: str, other: str) -> str:
        return f"touch {tmp_path}/{mine}; {waiting_for(tmp_path / other)}"

    number = cast(shared, step("a", meet("a", "b")), step("b", meet("b", "a")), step("c", "true", "a", "b"))
    found = ended(shared, number)
    assert found.state == "complete", "each was there while the other waited for it"
    runs = {name: shared.client.runs.get(str(item.run)) for name, item in steps_of(found).items()}
    assert runs["c"].created_at >= max(runs["a"].ended_at or 0, runs["b"].ended_at or 0)


def test_a_failed_step_stops_what_needs_it_and_nothing_else(shared: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    number = cast(
        shared,
        step("bad", "exit 3"),
        step("slow", waiting_for(gate)),
        step("after-bad", "true", "bad", "slow"),
        step("after-that", "true", mounts=("runs/${after-bad}/x",)),
        step("after-slow", "true", "slow"),
    )
    found = reaches(shared, number, bad="failed", slow="running")
    assert states(found)["after-slow"] == "waiting"
    reaches(shared, number, **{"after-bad": "skipped", "after-that": "skipped"})
    gate.touch()
    found = ended(shared, number)
    assert found.state == "failed"
    assert states(found) == {
        "bad": "failed",
        "slow": "complete",
        "after-bad": "skipped",
        "after-that": "skipped",
        "after-slow": "complete",
    }
    said = {name: item.message for name, item in steps_of(found).items()}
    assert said["after-bad"] == "it needs bad, which did not complete"
    assert said["after-that"] == "it needs after-bad, which was skipped"
    assert (steps_of(found)["bad"].exit_code, steps_of(found)["after-bad"].run) == (3, None)


def test_a_step_that_cannot_be_cast_fails_with_words(shared: Spell) -> None:
    number = cast(shared, step("a", "true"), step("b", "true", mounts=("runs/${a}/data.txt",)), step("c", "true", "b"))
    found = ended(shared, number)
    assert states(found) == {"a": "complete", "b": "failed", "c": "skipped"}
    resource = f"runs/{steps_of(found)['a'].run}/data.txt"
    assert f"Cannot mount resource '{resource}'" in steps_of(found)["b"].message
    assert steps_of(found)["b"].run is None


def test_a_run_that_somebody_stops_is_not_complete(shared: Spell, tmp_path: Path) -> None:
    number = cast(shared, step("a", waiting_for(tmp_path / "never")), step("b", "true", "a"))
    found = reaches(shared, number, a="running")
    shared.client.runs.stop(str(steps_of(found)["a"].run))
    found = ended(shared, number)
    assert (found.state, found.wish) == ("failed", None)
    assert states(found) == {"a": "stopped", "b": "skipped"}


def test_what_latest_means_is_settled_when_the_workflow_is_cast(shared: Spell) -> None:
    before = shared.run("echo before > x.txt")
    number = cast(shared, step("a", "echo a > x.txt"), step("b", "cat x.txt", "a", mounts=("runs/latest/x.txt",)))
    run = steps_of(ended(shared, number))["b"].run
    assert [mount["resource"] for mount in shared.client.runs.get(str(run)).mounts] == [f"runs/{before.number}/x.txt"]


# -- again ------------------------------------------------------------------------------------------------------------


def counting(folder: Path, name: str, then: str = "true") -> str:
    return f"echo {name} >> {folder}/count; {then}"


def counted(folder: Path) -> list[str]:
    """The steps that were run since the last time, in no order."""
    path = folder / "count"
    found = sorted(path.read_text().split()) if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def chain(folder: Path, **changes: str) -> dict[str, Any]:
    """Three steps one after another, and one beside them."""
    commands = {
        "first": counting(folder, "first", "echo 1 > x.txt"),
        "second": counting(folder, "second", f"[ -e {folder}/mended ] && cat x.txt > y.txt"),
        "third": counting(folder, "third", "cat y.txt"),
        "beside": counting(folder, "beside"),
    } | changes
    return {
        "first": {"command": commands["first"]},
        "second": {"command": commands["second"], "mounts": ["${runs.first}/x.txt"]},
        "third": {"command": commands["third"], "mounts": ["${runs.second}/y.txt"]},
        "beside": {"command": commands["beside"]},
    }


def test_cast_again_it_reuses_what_is_complete(own: Spell, tmp_path: Path) -> None:
    file = written(tmp_path, chain(tmp_path))
    done = own("workflow", file)
    assert done.code == 1, done
    assert "💥 Workflow 1 failed: 2 of 4 steps complete, 1 failed, 1 skipped" in done.out
    assert "Use 'spell logs -v 3' to see what happened in second." in done.out
    assert counted(tmp_path) == ["beside", "first", "second"]

    (tmp_path / "mended").touch()
    done = own("workflow", file)
    assert done.code == 0, done
    assert "🎉 first   reused run 1" in done.out.splitlines()
    assert counted(tmp_path) == ["second", "third"]
    again = own("workflow", file, "--json").json()
    assert [item["reused"] for item in again["steps"]] == [True] * 4
    assert counted(tmp_path) == []

    changed = written(tmp_path, chain(tmp_path, second=counting(tmp_path, "second", "cat x.txt x.txt > y.txt")))
    assert own("workflow", changed).code == 0
    assert counted(tmp_path) == ["second", "third"], "what was changed, and what follows it"

    assert own("workflow", changed, "--fresh").code == 0
    assert counted(tmp_path) == ["beside", "first", "second", "third"]


def test_changed_code_is_another_step(own: Spell, repo: Path, tmp_path: Path) -> None:
    file = written(tmp_path, {"a": "python hello.py"})
    for text, reused in (("'hello'", False), ("'hello'", True), ("'changed'", False)):
        (repo / "hello.py").write_text(f"print({text})\n")
        found = own("workflow", file, "--json").json()
        assert [item["reused"] for item in found["steps"]] == [reused]


# -- the server dies --------------------------------------------------------------------------------------------------


def test_a_killed_server_goes_on_where_it_was(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    steps = {
        "a": counting(tmp_path, "a", waiting_for(gate)),
        "b": counting(tmp_path, "b"),
        "c": {"command": counting(tmp_path, "c"), "needs": ["a", "b"]},
        "d": {"command": counting(tmp_path, "d"), "needs": "c"},
    }
    process = own.popen("workflow", written(tmp_path, steps), "-f")
    wait_for(lambda: own.home.socket.exists() and own.client.runs.list(), "the first runs")
    reaches(own, 1, a="running", b="complete")
    own.kill_server()
    gate.touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    assert out.decode().endswith("🎉 Workflow 1 complete\n")
    assert counted(tmp_path) == ["a", "b", "c", "d"], "each once"
    assert len(own.client.runs.list()) == 4


def test_a_server_that_is_killed_again_and_again_casts_each_step_once(own: Spell, tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(6)]
    steps = [
        step(name, counting(tmp_path, name), *names[max(0, index - 1) : index]) for index, name in enumerate(names)
    ]
    number = cast(own, *steps)
    for name in names[:4]:
        wait_for(lambda name=name: steps_of(flows(own).get(str(number)))[name].run, f"a run of {name}")
        own.kill_server()
    assert ended(own, number).state == "complete"
    assert counted(tmp_path) == names
    assert [run.number for run in own.client.runs.list()] == [1, 2, 3, 4, 5, 6]


def test_a_stop_request_outlives_the_server(own: Spell, tmp_path: Path) -> None:
    number = cast(own, step("a", waiting_for(tmp_path / "never")), step("b", "true", "a"))
    reaches(own, number, a="running")
    flows(own).kill(str(number))
    own.kill_server()
    found = ended(own, number)
    assert (found.state, states(found)) == ("killed", {"a": "killed", "b": "skipped"})


def test_a_run_and_its_step_are_recorded_together_or_not_at_all(tmp_path: Path) -> None:
    store = Store(Database(tmp_path / "spell.db"))
    spec = RunSpec("true")
    number = store.workflows.add(WorkflowSpec("flow", (Step("a", spec), Step("b", spec))))

    def cast(name: str) -> int:
        new = NewRun(spec, "process", 1.0, None, 0)
        return store.add(new, lambda connection, run: store.workflows.cast(connection, number, name, run))

    def waiting() -> list[str]:
        return [step.name for step in store.workflows.record(number).steps if step.state == "waiting"]

    assert waiting() == ["a", "b"]
    first = cast("a")
    with pytest.raises(Conflict, match="no longer waits"):
        cast("a")
    assert waiting() == ["b"]
    store.workflows.request_stop(number, StopRequest.STOP)
    assert waiting() == []
    with pytest.raises(Conflict, match="no longer waits"):
        cast("b")
    store.workflows.reuse(number, "b", first)
    assert [run.number for run in store.summaries()] == [first]
    found = store.workflows.record(number)
    assert [(item.run, item.state) for item in found.steps] == [(first, "machine_requested"), (None, "skipped")]


def test_one_workflow_that_cannot_be_led_holds_up_no_other(tmp_path: Path) -> None:
    store = Store(Database(tmp_path / "spell.db"))
    led: list[int] = []

    class Service:
        """Casts nothing."""

        def __init__(self) -> None:
            self.runs = self

        def cast(self, _who: Who, spec: RunSpec, **_options: Any) -> Any:
            led.append(int(spec.command))
            raise OSError if spec.command == "1" else InvalidConfig("It cannot be.", "Cure it.")

    for number in (1, 2):
        assert store.workflows.add(WorkflowSpec("flow", (Step("a", RunSpec(str(number))),))) == number
    flows = server_workflows.WorkflowController(store, Service())  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup):
        flows.advance()
    assert led == [1, 2]
    assert [store.workflows.record(number).state for number in (1, 2)] == ["running", "failed"]
    assert store.workflows.record(2).steps[0].message == "It cannot be. Cure it."
    assert store.workflows.running() == [1], "which is tried again"


# -- ending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "state"), [("stop", "stopped"), ("kill", "killed")])
def test_stop_and_kill(shared: Spell, tmp_path: Path, verb: str, state: str) -> None:
    command = f"echo kept > x.txt; {waiting_for(tmp_path / 'never')}"
    number = cast(shared, step("a", command), step("done", "true"), step("b", "true", "a"))
    run = steps_of(reaches(shared, number, a="running", done="complete"))["a"].run
    wait_for(lambda: list(shared.home.work_dir(run or 0).rglob("x.txt")), "what the command writes")
    done = shared("workflow", verb, str(number))
    assert done.code == 0, done
    assert done.out.startswith(f"{'Stopping' if verb == 'stop' else 'Killing'} workflow {number}.")
    found = ended(shared, number)
    assert found.state == state
    assert states(found) == {"a": state, "done": "complete", "b": "skipped"}
    assert steps_of(found)["b"].message == f"the workflow was {state}"
    assert (shared.home.run_dir(run or 0) / "x.txt").exists() == (verb == "stop")
    again = shared("workflow", verb, str(number))
    assert (again.code, f"Workflow {number} is already finished: {state}." in again.err) == (1, True)


def test_kill_replaces_stop(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    own = make_spell(config="grace_s = 600")
    ignoring = f"trap '' TERM; touch {tmp_path}/begun; {waiting_for(tmp_path / 'never')}"
    number = cast(own, step("a", ignoring))
    wait_for((tmp_path / "begun").exists, "the command")
    flows(own).stop(str(number))
    wait_for(lambda: own.client.runs.get("1").wish == "stop", "the stop request")
    assert flows(own).get(str(number)).wish == "stop"
    flows(own).kill(str(number))
    assert ended(own, number).state == "killed"
    with pytest.raises(Conflict, match="already finished: killed"):
        flows(own).stop(str(number))


# -- the command line -------------------------------------------------------------------------------------------------


def test_interrupt_only_detaches(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    file = written(tmp_path, {"a": waiting_for(gate), "b": {"command": "true", "needs": "a"}})
    process = own.popen("workflow", file, "-f", start_new_session=True)
    assert process.stdout
    said = b""
    while b"a  run 1: running (its log: spell logs -f 1)\n" not in said:
        said += process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out.decode().splitlines()[1:] == [
        "✨ Your workflow goes on without this terminal.",
        "✨ Use 'spell workflow info -f 1' to follow it again.",
        "✨ Use 'spell workflow stop 1' to save outputs and stop it, 'spell workflow kill 1' to lose them.",
    ]
    assert b"Traceback" not in err
    following = own.popen("workflow", "info", "-f", "1")
    gate.touch()
    out, _ = following.communicate(timeout=30)
    assert (following.returncode, out.decode().splitlines()[-1]) == (0, "🎉 Workflow 1 complete")


def test_background_list_and_info(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    file = written(tmp_path, {"a": waiting_for(gate), "b": {"command": "exit 4", "needs": "a"}}, name="two words")
    assert own("workflow", "list").out == "There are no workflows yet. Try: spell workflow FILE.yaml\n"
    done = own("workflow", "run", "-b", file)
    assert done.out.splitlines()[-2:] == ["💫 Casting workflow #1…", "Show it with `spell workflow info 1`"]
    assert own("workflow", "list").out.splitlines()[1].split() == "1 two words 0/2 *Running just now".split()
    gate.touch()
    ended(own, 1)
    shown = own("workflow", "info", "two words").out.splitlines()
    assert shown[:2] == ["Workflow 1: two words", "Status    Failed"]
    assert shown[-2].split()[:5] == "a - 1 Complete (0)".split()
    assert shown[-1].split()[:5] == "b a 2 Failed (4)".split()
    assert shown[-1].endswith("the command ended with exit code 4")
    assert own("workflow", "info", "latest", "--json").json() == own("workflow", "info", "1", "-f", "--json").json()
    assert own("workflow", "info", "-f", "1").code == 1
    assert [item["number"] for item in own("workflow", "list", "--json").json()] == [1]
    cast_again = own("workflow", "-b", "--json", file).json()
    assert (cast_again["number"], cast_again["state"]) == (2, "running")


def test_a_terminal_shows_what_goes_on_now(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    file = written(tmp_path, {"a": waiting_for(gate), "b": "true"})
    with Terminal([str(BIN / "spell"), "workflow", "-f", file], own.cwd, own.env, 100) as terminal:
        terminal.sees(lambda lines: lines[-1][2:] == "1 of 2 steps complete; a")
        gate.touch()
        assert terminal.ends() == 0
        lines = terminal.screen.lines
    assert {"🎉 a  run 1: complete", "🎉 b  run 2: complete"} <= {line.split(" (")[0] for line in lines}
    assert lines[-1] == "🎉 Workflow 1 complete"
    assert not [line for line in lines if "steps complete;" in line], "the moving line leaves no trace"


def test_completion_offers_commands_and_files(shared: Spell) -> None:
    def offered(*words: str) -> list[str]:
        env = {
            "_SPELL_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("spell", *words)),
            "COMP_CWORD": str(len(words)),
        }
        done = shared(env=env)
        assert done.err == ""
        return done.out.split()

    assert offered("workflow", "in") == ["plain,info", "file,in"]
    assert "plain,--fresh" in offered("workflow", "flow.yaml", "--fr")


def test_nothing_is_left_of_an_ascii_terminal(own: Spell, tmp_path: Path) -> None:
    done = own("workflow", written(tmp_path, {"a": "true"}), env={"LC_ALL": "C"})
    assert done.code == 0
    assert done.out.isascii()
    assert "a  run 1: complete" in done.out


@pytest.mark.parametrize(
    ("steps", "code", "words"),
    [
        ({"a": {"command": "x", "needs": "a"}}, 3, "flow.yaml: Step 'a' needs itself."),
        ({"a": {"command": "x :LR:", "params": {"B": 1}}}, 3, "flow.yaml: step 'a': The command has no ':B:'"),
        ({"a": {"file": "none.yaml"}}, 3, "file: no such file: "),
        ({"a": {"command": "x", "pip_req": "none.txt"}}, 3, "none.txt cannot be read"),
        (
            {"a": "true", "b": {"command": "x", "machine_type": "giant"}},
            2,
            "Step 'b': There is no machine type 'giant'.",
        ),
        ({"a": "true", "b": {"command": "x", "executor": "none"}}, 3, "Step 'b': There is no executor 'none'."),
        ({"a": "true", "b": {"command": "x", "mounts": ["runs/77/x"]}}, 1, "Step 'b': There is no run '77'."),
        ({"a": "true", "b": {"command": "x", "mounts": ["nothing/x"]}}, 1, "Step 'b': 'nothing/x' is not a valid"),
        ({"a": "true", "b": {"command": "x", "mounts": ["${runs.a}:/abs"]}}, 3, "Step 'b': "),
        ({"a": "true", "b": {"command": "x", "pip": "six=="}}, 3, "Step 'b': "),
    ],
)
def test_nothing_is_cast_of_what_is_wrong(
    shared: Spell, tmp_path: Path, steps: dict[str, Any], code: int, words: str
) -> None:
    shared.client.server.get()
    before = shared.client.runs.list(limit=1)
    done = shared("workflow", written(tmp_path, steps))
    assert (done.code, words in done.err) == (code, True), done
    assert "Casting" not in done.out
    assert shared.client.runs.list(limit=1) == before


def test_what_is_typed_wrong(shared: Spell, tmp_path: Path) -> None:
    def said(*words: str) -> Done:
        done = shared("workflow", *words, cwd=tmp_path)
        assert done.code != 0
        assert "Traceback" not in done.err
        return done

    assert "No such file" in said("none.yaml").err
    assert "There is no file and no command 'lst'. Did you mean 'list'?" in said("lst").err
    assert "There is no workflow '77'." in said("info", "77").err
    assert "There is no workflow 'a/b'." in said("stop", "a/b").err
    assert "There is no workflow 'none'." in said("kill", "none").err
    assert "is a workflow file" in shared("run", "--file", written(tmp_path, {"a": "true"})).err


def test_the_api_refuses_what_makes_no_sense(shared: Spell) -> None:
    def refused(body: Any) -> str:
        with pytest.raises(SpellError) as caught:
            shared.client.transport.call("POST", "/workflows", json=body)
        assert not isinstance(caught.value, Conflict)
        return caught.value.message

    good = {"name": "a", "spec": {"command": "true"}}
    assert "'colour'" in refused({"name": "x", "steps": [good], "colour": 1})
    assert "'colour'" in refused({"name": "x", "steps": [{**good, "colour": 1}]})
    assert "'colour'" in refused({"name": "x", "steps": [{**good, "spec": {"command": "true", "colour": 1}}]})
    assert "needs itself" in refused({"name": "x", "steps": [{**good, "needs": ["a"]}]})
    assert refused({"name": "x", "steps": [{"name": "../a", "spec": {"command": "true"}}]}).startswith("A step cannot")
    assert refused({"name": "x", "steps": []}).startswith("A workflow must have at least one step")
    assert refused({"name": "x", "steps": [1]})
    assert refused({"name": "x"})
    with pytest.raises(NotFound):
        flows(shared).get("no such")
    with pytest.raises(InvalidConfig):
        WorkflowSpec("x\ny", (step("a", "true"),))
    with pytest.raises(SnapshotMissing, match="Step 'a'"):
        cast(shared, step("a", "true", code=Code("0" * 64)))


def test_code_of_a_url_is_of_that_step_alone(own: Spell, repo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(repo), "other")
    (other / "only-there.txt").write_text("x")
    git(other, "add", ".")
    git(other, "-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-q", "-m", "More")
    file = written(tmp_path, {"here": "ls", "there": {"command": "ls", "github_url": f"file://{other}"}})
    found = own("workflow", file, "--json", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert found.code == 0, found
    here, there = (own.log(item["run"]) for item in json.loads(found.out)["steps"])
    assert (here, there) == (b"hello.py\n", b"hello.py\nonly-there.txt\n")
