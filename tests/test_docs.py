"""The README and the documents: every `spell` line can be typed, every link leads somewhere, every job file can be read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from orchestrator import config
from orchestrator.cli.input.commanding import Commanding
from orchestrator.cli.main import spell as group
from orchestrator.cli.verbs import VERBS
from orchestrator.config import Config
from orchestrator.spec.jobfile import KEYS, load

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(path for room in ("benchmarks", "examples", "findings", "tests") for path in (ROOT / room).rglob("*.md")),
        *(ROOT / "jobs").rglob("*.md"),
        ROOT / "runs" / "README.md",
        ROOT / "orchestrator" / "assistants" / "SKILL.md",
    ]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SHELL = ("console", "sh", "bash", "shell")
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(spell [^`\n]+)`")
_LINK = re.compile(r"(?:\[[^\]]*\]\(|^\[[^\]]+\]: *)([^)\s]+)", re.MULTILINE)  # those of pictures, too
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


def wrong(line: str) -> list[str]:
    """The verbs and options in a line that do not exist."""
    words = [word for word in words_of(line) if not _PLACEHOLDERS.search(word) or " " in word]
    if not words:
        return []
    if words[0].startswith("-"):
        return unknown_options(group, words)
    context = click.Context(group)
    command = group.get_command(context, words[0]) if words[0] in VERBS else None
    if command is None:
        return [words[0]]
    rest = words[1:]
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        names = rest[0].split("|")
        if not set(names) & set(command.commands):  # `spell workflow FILE`
            names, rest = [getattr(command, "default", names[0])], ["", *rest]
        if unknown := sorted(set(names) - set(command.list_commands(context))):
            return unknown
        command, rest = command.commands[names[0]], rest[1:]
    if isinstance(command, Commanding):
        above = click.Context(group, **group.context_settings)  # click keeps the help option of the first parser
        rest = command.meant(click.Context(command, parent=above), rest)
    return unknown_options(command, rest)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_shown_can_be_typed(page: Path) -> None:
    assert {line: found for line in typed_lines(page) if (found := wrong(line))} == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("spell run --machine-type cpu 'ls --nonsense'", []),
        ("spell run --nonsense 'true'", ["--nonsense"]),
        ("spell nonsense 1", ["nonsense"]),
        ("spell workflow nonsense --nonsense", ["--nonsense"]),
        ("spell project list|nonsense", ["nonsense"]),
        ("spell --nonsense", ["--nonsense"]),
        ("echo $(spell ps --nonsense)", ["--nonsense"]),
    ],
)
def test_what_cannot_be_typed_is_found(line: str, found: list[str]) -> None:
    assert wrong(line) == found


def test_the_readme_shows_commands() -> None:
    shown = {line.split()[1] for line in typed_lines(ROOT / "README.md")}
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


def leads_somewhere(page: Path, target: str) -> bool:
    """Whether the file that a link on a page names is there, and the heading."""
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not anchor or path.suffix != ".md" or anchor in anchors(path))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in _LINK.findall(_FENCE.sub("", page.read_text())) if not re.match(r"[a-z]+:", target)]
    assert [target for target in targets if not leads_somewhere(page, target)] == []


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


def test_no_page_is_left_out() -> None:
    words = ["git", "ls-files", "*.md"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [name for name in names if (ROOT / name).exists() and ROOT / name not in PAGES] == []


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


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "docs/glossary.md"])
def test_every_path_named_exists(name: str) -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|/))`", (ROOT / name).read_text()))
    assert named
    places = (ROOT, ROOT / "orchestrator")
    assert [path for path in sorted(named) if not any((place / path).exists() for place in places)] == []


def test_the_glossary_has_one_meaning_for_each_word() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    words = [word for word, _, _ in rows if word not in ("word", "---")]
    assert len(words) > 50
    assert sorted(words) == sorted(set(words))


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "docs" / "usage.md").read_text()
    sentence = " ".join(text[text.index("Exit codes of `spell` itself") :].split("\n\n")[0].split())
    for code in (0, 1, 2, 3, 5, 6):
        assert re.search(rf"\b{code} ", sentence), code
    assert "130" in text and os.linesep == "\n"
