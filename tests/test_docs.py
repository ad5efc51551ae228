"""The README and the documents: every `spell` line can be typed, every link leads somewhere, every job file can be read."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from orchestrator import config
from orchestrator.cli.main import VERBS
from orchestrator.cli.main import spell as group
from orchestrator.config import Config
from orchestrator.spec.jobfile import KEYS, load

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "jobs").rglob("*.md"),
        ROOT / "runs" / "README.md",
    ]
)
SHELL = ("console", "sh", "bash", "shell")
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(spell [^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_SEPARATORS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1", "done", "then"}
_PLACEHOLDERS = re.compile(r"\A[\[<(]|…|\.\.\.|[\])]\Z")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of every fenced block, and of every indented one (language: sh)."""
    text = page.read_text()
    yield from _FENCE.findall(text)
    outside = _FENCE.sub("", text)
    for block in re.findall(r"(?:^(?: {4}|\t)[^\n]*\n)+", outside, re.MULTILINE):
        yield "indented", re.sub(r"^(?: {4}|\t)", "", block, flags=re.MULTILINE)


def typed_lines(page: Path) -> Iterator[str]:
    """Every `spell …` line that a page shows: in blocks (after a `$` in those with output), and in the text."""
    for language, text in blocks(page):
        if language not in (*SHELL, "indented"):
            continue
        joined = re.sub(r"\\\n\s*", " ", text)
        for line in joined.splitlines():
            command = line.removeprefix("$ ").strip()
            if re.match(r"spell [a-z-]", command) or "$(spell " in command:
                yield command
    yield from _INLINE.findall(_FENCE.sub("", page.read_text()))


def words_of(line: str) -> list[str]:
    """The words of the `spell` command in a line; what follows a pipe or `&&` is somebody else's."""
    inner = re.search(r"\$\((spell [^)|]*)", line)
    lexer = shlex.shlex(inner[1] if inner else line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in lexer:
        if word in _SEPARATORS:
            break
        words.append(word)
    return words[1:]


TYPED = [(page, line) for page in PAGES for line in typed_lines(page)]


def options_of(command: click.Command) -> dict[str, click.Option]:
    """Every spelling of every option."""
    names = {name: item for item in command.params if isinstance(item, click.Option) for name in item.opts}
    names |= {name: click.Option([name], is_flag=True) for name in ("--help", "-h") if name not in names}
    return names


def unknown_options(command: click.Command, words: list[str]) -> list[str]:
    """The options among these words that a command does not have."""
    known, found, position = options_of(command), [], 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            break
        if not re.match(r"-{1,2}[A-Za-z]", word):
            continue
        name = word.partition("=")[0]
        name = name if name in known or name.startswith("--") else name[:2]
        if name not in known:
            found.append(word)
        elif not known[name].is_flag and word == name:
            position += 1
    return found


@pytest.mark.parametrize(("page", "line"), TYPED, ids=[f"{page.name}: {line[:60]}" for page, line in TYPED])
def test_every_command_shown_can_be_typed(page: Path, line: str) -> None:
    words = [word for word in words_of(line) if not _PLACEHOLDERS.search(word) or " " in word]
    if not words:
        return
    if words[0].startswith("-"):
        assert unknown_options(group, words) == []
        return
    assert words[0] in VERBS, f"{page}: there is no verb {words[0]!r}"
    context = click.Context(group)
    command = group.get_command(context, words[0])
    assert command is not None
    rest = words[1:]
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        names = rest[0].split("|")
        if not set(names) & set(command.commands):  # `spell workflow FILE`
            names, rest = [getattr(command, "default", names[0])], ["", *rest]
        assert set(names) <= set(command.list_commands(context)), f"{page}: {line}"
        command, rest = command.commands[names[0]], rest[1:]
    assert unknown_options(command, rest) == [], f"{page}: {line}"


def test_the_readme_shows_commands() -> None:
    shown = {line.split()[1] for page, line in TYPED if page.name == "README.md"}
    assert {"run", "ps", "logs"} <= shown


@pytest.mark.parametrize("verb", ["run", "logs", "ps", "stop", "wait", "ls", "cp", "gc", "upload", "rm"])
def test_every_option_is_told_about(verb: str) -> None:
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    text = "\n".join(page.read_text() for page in PAGES)
    options = [item for item in command.params if isinstance(item, click.Option)]
    assert [item.opts for item in options if not item.help] == []
    missing = [item.opts for item in options if not any(re.search(rf"(?<![\w-]){name}\b", text) for name in item.opts)]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """What `page#…` can name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


LINKS = [
    (page, target)
    for page in PAGES
    for target in _LINK.findall(_FENCE.sub("", page.read_text()))
    if not re.match(r"[a-z]+:", target)
]


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{page.name}: {target}" for page, target in LINKS])
def test_every_link_leads_somewhere(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    assert path.exists(), f"{page}: {target}"
    if anchor and path.suffix == ".md":
        assert anchor in anchors(path), f"{page}: {target}"


YAML = [
    text
    for page in PAGES
    for language, text in blocks(page)
    if language == "yaml" and "command:" in text and "steps:" not in text
]


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_every_job_file_shown_can_be_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    assert load(path).fields["command"]


TOML = [text for page in PAGES for language, text in blocks(page) if language == "toml"]


@pytest.mark.parametrize("text", TOML, ids=range(len(TOML)))
def test_every_configuration_shown_can_be_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert isinstance(config.load(path), Config)


def test_every_setting_is_told() -> None:
    block = next(text for language, text in blocks(ROOT / "docs" / "configuration.md") if language == "toml")
    told = set(re.findall(r"^(\w+) = ", block.partition("\n[")[0], re.MULTILINE)) | set(
        re.findall(r"^\[(\w+)", block, re.MULTILINE)
    )
    assert told == set(Config.__dataclass_fields__)


def test_every_field_of_job_files_is_told() -> None:
    told = [set(yaml.safe_load(text)) for text in YAML]
    assert set(KEYS) in told


def test_every_failure_mode_has_a_test() -> None:
    page = (ROOT / "docs" / "failure-modes.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    numbers = [int(number) for number in re.findall(r"^\| F(\d+) \|", page, re.MULTILINE)]
    assert len(numbers) >= 34
    assert [number for number in numbers if f"def test_f{number:02d}_" not in tests] == []


def test_the_configuration_in_the_docstring_can_be_read(tmp_path: Path) -> None:
    text = (config.__doc__ or "").partition("\n\n")[2]
    assert set(tomllib.loads(text)) <= set(Config.__dataclass_fields__)
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert config.load(path).types()["big"].gpus == 1


def test_every_path_named_in_the_layout_exists() -> None:
    page = ROOT / "ARCHITECTURE.md"
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", page.read_text()))
    assert named
    assert [
        name for name in sorted(named) if not (ROOT / name).exists() and not (ROOT / "orchestrator" / name).exists()
    ] == []


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "docs" / "usage.md").read_text()
    sentence = " ".join(text[text.index("Exit codes of `spell` itself") :].split("\n\n")[0].split())
    for code in (0, 1, 2, 3, 5, 6):
        assert re.search(rf"\b{code} ", sentence), code
    assert "130" in text and os.linesep == "\n"
