"""What is hidden of a spec stays hidden: no command, route, error or log ever shows it again."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Spell

from orchestrator.errors import SpellError
from orchestrator.spec.fields import FIELDS, redacted_spec
from orchestrator.spec.jobfile import load
from orchestrator.spec.redaction import redacted, without_users
from orchestrator.spec.run import RequirementFile, RunSpec, to_wire

CANARY = "hunter2"
HOOK = f"http://127.0.0.1:9/{CANARY}"
PACKAGE = f"thing @ http://me:{CANARY}@127.0.0.1:9/thing-1.0-py3-none-any.whl"
HIDDEN = ["--env", f"TOKEN={CANARY}", "--notify", HOOK]
JOB = f"env: {{TOKEN: {CANARY}}}\nnotify: {HOOK}\n"


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home with everything that keeps a spec: runs, a rerun, a search and a workflow, each with hidden values."""
    spell = make_shared("redaction", UV_HTTP_RETRIES="0")
    folder = spell.cwd
    (folder / ".spellignore").write_text("*\n")  # they are a person's own files, and would be the code of the runs
    (folder / "needs.txt").write_text(f"--extra-index-url http://me:{CANARY}@127.0.0.1:9/simple\n")
    (folder / "job.yaml").write_text(f"command: 'true'\nname: hidden\n{JOB}")
    (folder / "flow.yaml").write_text("name: flow\nsteps: {one: {file: job.yaml}}\n")
    for words in (
        ["run", "-f", *HIDDEN, "echo x > out.txt"],
        ["run", "-f", "--env", f"TOKEN={CANARY}-2", "--notify", f"{HOOK}/2", "echo y > out.txt"],
        ["rerun", "1", "--env", f"OTHER={CANARY}"],
        ["workflow", "run", "-f", "flow.yaml"],
        ["hyper", "grid", "-f", *HIDDEN, "--param", "X=1,2", "echo :X:"],
    ):
        done = spell(*words)
        assert done.code == 0, done
        assert CANARY not in done.out + done.err
    packages = ["--pip", PACKAGE, "--pip-req", "needs.txt"]
    done = spell("run", "-f", "--name", "unbuilt", *packages, "true")
    assert done.code != 0 and CANARY not in done.out + done.err, done
    return spell


@pytest.fixture(scope="module")
def client(spell: Spell) -> Iterator[httpx.Client]:
    """Speaks to the server of that home."""
    transport = httpx.HTTPTransport(uds=str(spell.home.socket))
    with httpx.Client(transport=transport, base_url="http://spell", timeout=60) as made:
        yield made


def routes(client: httpx.Client) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every verb and path of the API, and what it takes."""
    for path, verbs in client.get("/openapi.json").json()["paths"].items():
        yield from ((verb, path, taken) for verb, taken in verbs.items())


def filled(path: str, verb: dict[str, Any]) -> Iterator[str]:
    """A path of the API for each thing that it may be about, with the queries that it needs."""
    asked = [item for item in verb.get("parameters", ()) if item["in"] == "query" and item["required"]]
    query = "&".join(f"{item['name']}=1" for item in asked)
    for name in ("1", "2", "3", "4", "unbuilt", "flow", "runs/1", "latest") if "{" in path else ("",):
        first = re.sub(r"\{[^}]*\}", name, path, count=1)
        yield re.sub(r"\{[^}]*\}", "1", first) + "?" + query


def test_no_route_shows_it(client: httpx.Client) -> None:
    found = {}
    for path in (path for verb, route, taken in routes(client) if verb == "get" for path in filled(route, taken)):
        answer = client.get(path)
        found[path.partition("?")[0]] = answer.status_code
        assert CANARY not in answer.text, path
    shown = ("/runs", "/runs/1", "/runs/unbuilt", "/runs/2/diff/1", "/runs/1/export", "/workflows/flow", "/searches/1")
    assert {path: found[path] for path in shown} == dict.fromkeys(shown, 200)
    assert len(found) > 100


@pytest.mark.parametrize(
    "words",
    [
        ["info", "1"],
        ["info", "1", "--json"],
        ["info", "unbuilt"],
        ["info", "unbuilt", "--json"],
        ["ps", "-v"],
        ["ps", "--json"],
        ["logs", "-v", "1"],
        ["logs", "-v", "unbuilt"],
        ["diff", "1", "2"],
        ["diff", "1", "unbuilt", "--json"],
        ["lineage", "1", "--json"],
        ["rerun", "2", "--json"],
        ["rerun", "1", "-b", "--env", f"NEW={CANARY}", "--json"],
        ["run", "-f", *HIDDEN, "--json", "true"],
        ["run", "-f", "-b", *HIDDEN, "--json", "true"],
        ["run", "-f", "--reuse", *HIDDEN, "--name", "else", "echo x > out.txt"],
        ["run", "-f", "--file", "job.yaml", "--json"],
        ["workflow", "info", "flow"],
        ["workflow", "info", "flow", "--json"],
        ["workflow", "list", "--json"],
        ["hyper", "info", "1"],
        ["hyper", "info", "1", "--json"],
        ["hyper", "list", "--json"],
        ["search", "true", "--json"],
        ["project", "list", "--json"],
        ["server", "logs"],
    ],
    ids=" ".join,
)
def test_no_command_shows_it(spell: Spell, words: list[str]) -> None:
    done = spell(*words)
    assert done.code == 0, done
    assert CANARY not in done.out + done.err


def test_differences_are_told_but_not_their_values(spell: Spell) -> None:
    lines = spell("diff", "1", "2").out.splitlines()
    assert [line.split()[0] for line in lines if "***" in line or "hidden" in line] == ["env.TOKEN:", "notify:"], lines


@pytest.mark.parametrize("number", ["1", "unbuilt"])
def test_no_export_holds_it(spell: Spell, tmp_path: Path, number: str) -> None:
    assert spell("export", number, "-o", str(tmp_path / "it")).code == 0
    texts = [path.read_bytes() for path in (tmp_path / "it").rglob("*") if path.is_file()]
    assert len(texts) > 8 and not any(CANARY.encode() in text for text in texts)


def test_the_server_does_not_log_it(spell: Spell) -> None:
    assert CANARY not in spell.home.server_log.read_text()


@pytest.mark.parametrize(
    "fields",
    [
        {"env": {"A": f"{CANARY}\udcff"}},
        {"env": {"A": f"{CANARY}\0"}},
        {"env": {"1A": CANARY}},
        {"notify": (CANARY,)},
        {"notify": (f"https://example.org/{CANARY}\udcff",)},
        {"notify": (f"https://example.org/{CANARY} x",)},
        {"pip": (f"-r http://me:{CANARY}@example.org/x",)},
    ],
    ids=ascii,
)
def test_no_error_quotes_it(fields: dict[str, Any]) -> None:
    with pytest.raises(SpellError) as caught:
        RunSpec("true", **fields)
    assert CANARY not in str(caught.value)


def test_no_repr_shows_it(spell: Spell, tmp_path: Path) -> None:
    files = (RequirementFile("r.txt", f"--index-url http://me:{CANARY}@example.org"),)
    spec = RunSpec("true", env={"TOKEN": CANARY}, notify=(HOOK,), pip=(PACKAGE,), requirements=files)
    assert CANARY not in f"{spec!r} {files!r} {spec.redacted()}"
    assert repr(spec).startswith("RunSpec(command='true', machine_type='cpu', ")
    assert "'TOKEN': '***'" in repr(spec)
    (tmp_path / "job.yaml").write_text(JOB)
    assert CANARY not in repr(load(tmp_path / "job.yaml"))
    assert CANARY not in repr(spell.client.runs.get("1"))
    assert {field.name for field in FIELDS if field.hides} == {"pip", "requirements", "env", "code", "notify"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x", "x"),
        ("https://example.org/x", "https://example.org/x"),
        ("https://me:pw@example.org/x", "https://****@example.org/x"),
        ("git+https://token@host/x and http://a:b@c", "git+https://****@host/x and http://****@c"),
        ("HTTPS://token@host/x and ://token@host", "HTTPS://****@host/x and ://****@host"),
        ("ssh://git:pw@host/x and ssh://:pw@host", "ssh://****@host/x and ssh://****@host"),
        ("ssh://git@host/x.git", "ssh://git@host/x.git"),
        ("six @ git+ssh://git@host/x, https://token@c", "six @ git+ssh://git@host/x, https://****@c"),
        ("me@example.org", "me@example.org"),
        ("https://example.org/me@x", "https://example.org/me@x"),
    ],
)
def test_credentials_in_urls(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_the_user_of_an_ssh_url_is_shown() -> None:
    code, line = {"url": "ssh://git@host/x.git"}, "six @ git+ssh://git@host/x"
    assert redacted_spec({"code": code, "pip": [line]}) == {"code": code, "pip": [line]}


@pytest.mark.parametrize("user", ["git", "me:pw"])
def test_packages_are_known_without_the_users_of_their_urls(user: str) -> None:
    assert without_users(f"six @ git+ssh://{user}@host/x") == "six @ git+ssh://****@host/x"


def test_an_endless_word_is_read_quickly() -> None:
    started = time.monotonic()
    assert redacted("x" * 3_000_000) == "x" * 3_000_000
    assert time.monotonic() - started < 10


# -- the last one, as it changes the home of the others --------------------------------------------------------------

SENT = [
    to_wire(RunSpec("true", env={"TOKEN": CANARY}, notify=(HOOK,), pip=(PACKAGE,))),
    {"env": {"TOKEN": CANARY}, "notify": [HOOK]},
    {"command": "true", "env": {"TOKEN": [CANARY]}},
    {"command": "true", "env": CANARY},
    {"command": "true", "notify": [CANARY]},
    {"command": "true", "pip": PACKAGE},
    {"env": {"TOKEN": CANARY, "1A": CANARY}},
    {"name": "flow", "steps": {"one": {"command": "true", "env": {"TOKEN": [CANARY]}, "notify": [CANARY]}}},
]


def bodies(path: str, taken: dict[str, Any]) -> list[bytes]:
    """What is sent to a path: hidden values wherever it takes a spec or a secret."""
    if path.startswith("/secrets/"):
        return [CANARY.encode()]
    content = taken.get("requestBody", {}).get("content", {}).get("application/json", {})
    takes_spec = content.get("schema", {}).get("additionalProperties")
    return [json.dumps(body).encode() for body in SENT] if takes_spec else [b"{}"]


def test_no_route_that_changes_something_shows_it(client: httpx.Client) -> None:
    found: dict[str, set[int]] = {}
    for verb, route, taken in routes(client):
        if verb == "get" or route == "/server/stop":
            continue
        for path, body in itertools.product(filled(route, taken), bodies(route, taken)):
            answer = client.request(verb, path, content=body, headers={"Content-Type": "application/json"})
            found.setdefault(f"{verb} {route}", set()).add(answer.status_code)
            assert CANARY not in answer.text, (path, body)
    assert len(found) > 30
    assert [route for route, statuses in found.items() if 500 in statuses] == []
    made = ("post /runs", "post /runs/{reference}/rerun", "put /secrets/{name}", "post /runs/{reference}/labels")
    assert [route for route in made if not found[route] & {200, 201}] == []
