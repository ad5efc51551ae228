"""What assistants get: `spell skill`, and `spell mcp` as a real process that the SDK's own client speaks to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import BIN, Spell, git
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import Tool

from orchestrator.assistants import answers, skill
from orchestrator.errors import Conflict


class Assistant:
    """A session with `spell mcp`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tools(self) -> dict[str, Tool]:
        """Those that are offered, by name."""
        return {tool.name: tool for tool in (await self._client.list_tools()).tools}

    async def call(self, tool: str, /, **values: Any) -> str:
        """What a tool answers."""
        answer = await self._client.call_tool(tool, values)
        assert not answer.is_error, answer
        return answer.content[0].text

    async def refused(self, tool: str, /, **values: Any) -> str:
        """Why a tool refuses."""
        answer = await self._client.call_tool(tool, values)
        assert answer.is_error, answer
        return answer.content[0].text


def converse(spell: Spell, talk: Callable[[Assistant], Awaitable[None]], *words: str) -> None:
    """Let an assistant talk to `spell mcp WORDS…`."""
    server = StdioServerParameters(command=str(BIN / "spell"), args=["mcp", *words], env=spell.env, cwd=spell.cwd)

    async def session() -> None:
        async with Client(stdio_client(server)) as client:
            await talk(Assistant(client))

    anyio.run(session)


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell], tmp_path_factory: pytest.TempPathFactory) -> Spell:
    """A home with a complete run (1) that has a metric and outputs, and a failed one (2) with a long log."""
    project = tmp_path_factory.mktemp("project")
    spell = make_shared("assistants", cwd=project)
    git(project, "init", "-q")
    (project / "train.py").write_text("print('trained')\n")
    git(project, "add", ".")
    git(project, "-c", "user.email=a@example.org", "-c", "user.name=A", "commit", "-qm", "Train")
    send = "from orchestrator.runtime import send_metric; [send_metric('loss', 1/n, step=n) for n in range(1, 3001)]"
    write = "open('big.txt', 'w').write('0123456789' * 10_000); open('data.bin', 'wb').write(bytes(9))"
    spell.run(f'"{sys.executable}" -c "{send}; {write}"', name="first")
    spell.run(
        f"\"{sys.executable}\" -c \"print('x' * 79 + chr(10), end='') or [print(n, 'y' * 90) for n in range(20_000)]; exit(3)\""
    )
    return spell


def test_an_assistant_reads_and_nothing_reaches_it_whole(spell: Spell) -> None:
    async def talk(assistant: Assistant) -> None:
        tools = await assistant.tools()
        assert "list_runs" in tools and "cast_run" not in tools
        assert all(tool.annotations.read_only_hint and tool.description for tool in tools.values())
        runs = json.loads(await assistant.call("list_runs"))["runs"]
        assert [(run["number"], run["state"]) for run in runs] == [(1, "complete"), (2, "failed")]
        assert [run["number"] for run in json.loads(await assistant.call("list_runs", states=["failed"]))["runs"]] == [
            2
        ]
        assert json.loads(await assistant.call("run_info", run="first"))["outputs_count"] == 2
        assert json.loads(await assistant.call("wait_for_run", run="2"))["exit_code"] == 3
        loss = json.loads(await assistant.call("read_metrics", run="1", name="loss", points=3))
        assert [step for step, _ in loss["values"]] == [1, 1501, 3000]
        assert "3 of 3000" in loss["cut"]
        assert json.loads(await assistant.call("read_metrics", run="1"))["metrics"][0]["count"] == 3000
        assert [
            item["path"] for item in json.loads(await assistant.call("list_files", resource="runs/1"))["files"]
        ] == [
            "big.txt",
            "data.bin",
        ]
        assert json.loads(await assistant.call("diff_runs", before="1", after="2"))["differs"]
        assert json.loads(await assistant.call("run_lineage", run="1"))["root"] == "runs/1"
        assert json.loads(await assistant.call("doctor"))["checks"]
        # why it is refused reaches it
        assert "There is no run '99'" in await assistant.refused("run_info", run="99")
        assert "has no metric 'lss'" in (said := await assistant.refused("read_metrics", run="1", name="lss"))
        assert "It has: loss" in said
        assert "is not a regular expression" in await assistant.refused("read_log", run="1", search="/(/")
        assert "Use list_files" in await assistant.refused("read_file", resource="runs/1")

        await reads_large_things(assistant)

    async def reads_large_things(assistant: Assistant) -> None:
        log = await assistant.call("read_log", run="2", lines=2000)
        assert len(log.encode()) < answers.MOST_BYTES + 200
        assert log.startswith("[cut: the last 40000 of ") and log.endswith("y\n")
        found = await assistant.call("read_log", run="2", lines=3, search="/^7[0-9]+ Y/i")
        assert found.splitlines()[0] == "[the last 3 lines that match; there may be more]"
        assert found.splitlines()[-1].startswith("8001: 7999 yy")
        assert await assistant.call("read_log", run="2", search="(") == "[no line matches '(']"
        part = await assistant.call("read_file", resource="runs/1/big.txt", offset=99_990, most_bytes=100)
        assert part.startswith("0123456789\n[cut: bytes 99990 to 100000 of 100000")
        assert "go on with offset=20000]" in await assistant.call("read_file", resource="runs/1/big.txt")
        assert (await assistant.call("read_file", resource="runs/1/data.bin")).startswith(
            "[runs/1/data.bin is not text: 9"
        )

    converse(spell, talk)


def test_with_write_an_assistant_casts_and_stops(spell: Spell) -> None:
    async def talk(assistant: Assistant) -> None:
        tools = await assistant.tools()
        assert not [name for name in tools if "kill" in name or "remove" in name or name in ("rm", "gc")]
        assert not tools["cast_run"].annotations.read_only_hint and tools["stop_run"].annotations.destructive_hint
        said = await assistant.call("cast_run", command="python train.py --lr :lr:", options=["--param", "lr=1"])
        assert "Casting spell #3" in said
        assert json.loads(await assistant.call("wait_for_run", run="3", timeout_s=60))["state"] == "complete"
        assert await assistant.call("read_log", run="3") == "trained\n"
        assert "Casting spell #4" in await assistant.call("rerun_run", run="3", options=["--param", "lr=2"])
        assert "has the labels: best" in await assistant.call("label_run", run="3", labels=["best"])
        assert "Casting spell #5" in await assistant.call("cast_run", command="sleep 900")
        assert "Run 5 is" in await assistant.call("stop_run", run="5")
        ended = json.loads(await assistant.call("wait_for_run", run="5", timeout_s=60))
        assert ended["state"] == "stopped" and ended["has_ended"]
        assert "No such option" in await assistant.refused("cast_run", command="true", options=["--nonsense"])
        assert "is not for casts" in await assistant.refused("cast_run", command="true", options=["--save-command=x"])
        assert "No such file" in await assistant.refused("cast_run", command="true", folder="/nonsense")

    converse(spell, talk, "--write")
    assert spell.client.runs.get(4).spec["params"] == {"lr": "2"}


def test_without_the_package_mcp_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['mcp'] = None; sys.argv = ['spell', 'mcp']; from orchestrator.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "pip install 'spell-orchestrator[mcp]'" in done.stderr


def test_the_skill_is_installed_where_assistants_look(tmp_path: Path) -> None:
    words = [str(BIN / "spell"), "skill", "install"]
    for _ in range(2):  # the second time is an update
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    pages = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert pages == [".agents/skills/spell/SKILL.md", ".claude/skills/spell/SKILL.md"]
    shown = subprocess.run([*words[:-1], "show"], check=True, capture_output=True, text=True).stdout
    assert shown == skill.page() == (tmp_path / pages[0]).read_text()
    (tmp_path / pages[0]).write_text("mine\n")
    with pytest.raises(Conflict, match="is not spell's page"):
        skill.install(tmp_path / ".agents/skills")
    assert skill.install(tmp_path / ".agents/skills", replace=True).read_text() == skill.page()


def test_long_answers_are_cut_and_say_so() -> None:
    many = json.loads(answers.listing("runs", [{"text": "x" * 1000}] * 100, "Ask for fewer."))
    assert 30 < len(many["runs"]) < 40 and many["cut"].endswith("of 100 are shown. Ask for fewer.")
    record = json.loads(answers.record({"a": ["x" * 1000] * 100, "b": [1], "c": "y" * 9000}))
    assert len(record["a"]) == 25 and record["b"] == [1] and record["cut"] == {"a": "the first 25 are shown"}
    assert record["c"].endswith("[cut: 9000 characters]")
    assert len(answers.record({f"k{n}": "z" * 3000 for n in range(50)}).encode()) < answers.MOST_BYTES + 200
    assert answers.thinned(range(11), 3) == [0, 5, 10]
