"""What README and docs say: every command that they show exists, every field of the JSON is told, every link leads somewhere."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from orchestrator import config, jobfile, records
from orchestrator.cli.main import spell
from orchestrator.states import ENDS, State

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "runs" / "README.md"])
LISTED = ("RunSummary", "RunRecord", "FileRecord", "MetricRecord", "MachineRecord", "ServerRecord")


def _commands() -> list[tuple[str, str]]:
    """Every `spell …` that is shown, in a console block or inline."""
    found = []
    for page in PAGES:
        text = page.read_text()
        joined = re.sub(r"\\\n\s*", " ", text)
        found += [(page.name, line[2:]) for line in joined.splitlines() if line.startswith("$ spell ")]
        found += [(page.name, shown) for shown in re.findall(r"`(spell [^`]+)`", text)]
    return found


def _check(words: list[str]) -> None:
    command: click.Command = spell
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        group, name = command, words.pop(0)
        found = group.get_command(click.Context(group), name)
        assert found, f"there is no verb {name!r}"
        command = found
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    known |= {"--help", "-h", "--version"}
    for word in words[: words.index("--") if "--" in words else None]:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in known, f"{command.name} has no option {word!r}"


@pytest.mark.parametrize(("page", "text"), _commands())
def test_shown_commands_exist(page: str, text: str) -> None:
    words = shlex.split(text.replace("…", " "))
    assert words.pop(0) == "spell"
    _check(words)


def test_there_are_commands_to_check() -> None:
    assert len(_commands()) > 20


@pytest.mark.parametrize("name", LISTED)
def test_json_is_told_field_by_field(name: str) -> None:
    page = (ROOT / "docs" / "json.md").read_text()
    section = page.partition(f"## {name}:")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    fields = [item.name for item in dataclasses.fields(getattr(records, name))]
    if name == "RunRecord":
        fields = [field for field in fields if field not in {f.name for f in dataclasses.fields(records.RunSummary)}]
    assert told == fields


def test_json_tells_all_states_and_reasons() -> None:
    page = (ROOT / "docs" / "json.md").read_text()
    assert [state for state in State if f"`{state}`" not in page] == []
    assert [reason for reason in ENDS if f"`{reason}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_configuration_is_told() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    block = page.partition("```toml\n")[2].partition("```")[0]
    fields = {item.name for item in dataclasses.fields(config.Config)}
    told = set(re.findall(r"^(\w+) = ", block.partition("\n[")[0], re.MULTILINE)) | {"frameworks", "machine_types"}
    assert told == fields


def test_the_shown_configuration_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    path = tmp_path / "config.toml"
    path.write_text(page.partition("```toml\n")[2].partition("```")[0])
    assert config.load(path).types()["big"].gpus == 1


def test_the_shown_job_file_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "job-files.md").read_text()
    text = page.partition("```yaml\n")[2].partition("```")[0]
    path = tmp_path / "job.yaml"
    path.write_text(text)
    assert jobfile.load(path).name == "train"
    assert set(yaml.safe_load(text)) == set(jobfile.FIELDS)


def test_every_failure_mode_has_a_test() -> None:
    page = (ROOT / "docs" / "failure-modes.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    numbers = [int(number) for number in re.findall(r"^\| F(\d+) \|", page, re.MULTILINE)]
    assert len(numbers) == 27
    assert [number for number in numbers if f"def test_f{number:02d}_" not in tests] == []
