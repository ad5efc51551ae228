"""The shape of what the API and `--json` answer: routes with their records, and docs/json.md with every field."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import socket
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from conftest import DEADLINE_S, Spell

from orchestrator import records
from orchestrator.cli import main
from orchestrator.errors import InvalidConfig, NotFound, SpellError
from orchestrator.home import Home
from orchestrator.records.run_summary import RunSummary
from orchestrator.records.runs import RunRecord
from orchestrator.records.searches import SearchRecord, TrialRecord
from orchestrator.records.workflows import StepRecord, WorkflowRecord
from orchestrator.server.app import make_app
from orchestrator.spec import run
from orchestrator.spec.mounts import parse_mount
from orchestrator.spec.search import Choice, SearchSpec
from orchestrator.spec.workflow import Step, WorkflowSpec
from orchestrator.states import ENDS, State

DOCS = Path(__file__).parents[1] / "docs"
ROUTES = {
    ("GET", "/server"): "ServerRecord",
    ("POST", "/server/stop"): "",
    ("GET", "/machine-types"): "list of MachineRecord",
    ("GET", "/doctor"): "list of CheckRecord",
    ("POST", "/environment"): "EnvironmentRecord",
    ("POST", "/gc"): "GcRecord",
    ("GET", "/stats"): "list of StatRecord",
    ("POST", "/images"): "",
    ("POST", "/trees"): "",
    ("POST", "/blobs"): "",
    ("GET", "/blobs/{digest}"): "",
    ("PUT", "/blobs/{digest}"): "",
    ("POST", "/runs"): "CastRecord",
    ("POST", "/runs/plan"): "PlanRecord",
    ("GET", "/runs"): "list of RunSummary",
    ("GET", "/runs/{reference}"): "RunRecord",
    ("POST", "/runs/{reference}/rerun"): "CastRecord",
    ("POST", "/runs/{reference}/resume"): "CastRecord",
    ("POST", "/runs/{reference}/stop"): "",
    ("POST", "/runs/{reference}/kill"): "",
    ("GET", "/runs/{reference}/events"): "list of EventRecord",
    ("GET", "/runs/{reference}/artifacts"): "list of ArtifactRecord",
    ("GET", "/runs/{reference}/metrics"): "list of MetricRecord",
    ("GET", "/runs/{reference}/samples"): "list of SampleRecord",
    ("GET", "/runs/{reference}/log"): "",
    ("GET", "/runs/{reference}/follow"): "",
    ("GET", "/runs/{reference}/metrics/summary"): "list of MetricSummary",
    ("GET", "/runs/{reference}/metrics/page"): "MetricPage",
    ("GET", "/runs/{reference}/log/times"): "list of LogTime",
    ("GET", "/runs/{reference}/log/search"): "list of LogLine",
    ("GET", "/runs/{reference}/diff/{other}"): "DiffRecord",
    ("GET", "/runs/{reference}/lineage"): "LineageRecord",
    ("POST", "/runs/{reference}/verify"): "",
    ("GET", "/runs/{reference}/export"): "",
    ("GET", "/imports"): "list of ImportRecord",
    ("POST", "/imports"): "CastRecord",
    ("POST", "/workflows"): "WorkflowCastRecord",
    ("GET", "/workflows"): "list of WorkflowSummary",
    ("GET", "/workflows/{reference}"): "WorkflowRecord",
    ("POST", "/workflows/{reference}/stop"): "WorkflowRecord",
    ("POST", "/workflows/{reference}/kill"): "WorkflowRecord",
    ("POST", "/searches"): "SearchCastRecord",
    ("GET", "/searches"): "list of SearchSummary",
    ("GET", "/searches/{reference}"): "SearchRecord",
    ("POST", "/searches/{reference}/stop"): "SearchRecord",
    ("POST", "/searches/{reference}/kill"): "SearchRecord",
    ("POST", "/searches/{reference}/resume"): "SearchRecord",
    ("GET", "/secrets"): "list of SecretRecord",
    ("PUT", "/secrets/{name}"): "SecretRecord",
    ("DELETE", "/secrets/{name}"): "",
    ("GET", "/uploads"): "list of UploadRecord",
    ("POST", "/uploads/{name}"): "UploadSession",
    ("POST", "/uploads/{name}/entries"): "UploadNeeds",
    ("POST", "/uploads/{name}/pack"): "",
    ("POST", "/uploads/{name}/chunk"): "",
    ("POST", "/uploads/{name}/publish"): "UploadRecord",
    ("DELETE", "/uploads/{name}"): "",
    ("POST", "/runs/{reference}/labels"): "RunSummary",
    ("POST", "/runs/{reference}/archive"): "RunSummary",
    ("POST", "/runs/{reference}/unarchive"): "RunSummary",
    ("POST", "/projects"): "ProjectRecord",
    ("GET", "/projects"): "list of ProjectRecord",
    ("GET", "/projects/{name}"): "ProjectRecord",
    ("POST", "/projects/{name}"): "ProjectRecord",
    ("POST", "/projects/{name}/archive"): "ProjectRecord",
    ("POST", "/projects/{name}/unarchive"): "ProjectRecord",
    ("POST", "/projects/{name}/add-runs"): "ProjectRecord",
    ("POST", "/projects/{name}/remove-runs"): "ProjectRecord",
    ("GET", "/links"): "list of LinkRecord",
    ("GET", "/links/{alias}"): "LinkRecord",
    ("PUT", "/links/{alias}"): "LinkRecord",
    ("DELETE", "/links/{alias}"): "",
    ("GET", "/resources/{resource}"): "list of FileRecord",
    ("GET", "/files/{resource}"): "",
}
"""Every route, and the record it answers; "" for bytes, streams and small answers."""


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the server says about itself."""
    home = Home(tmp_path_factory.mktemp("api"))
    home.create()
    return make_app(home, lambda: None).openapi()


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home with a run of everything."""
    spell = make_shared("api")
    first = spell.run("echo x > data.txt", name="first", labels=("a",))
    code = "from orchestrator.runtime import send_metric; send_metric('loss', 0.5)"
    mounts = (parse_mount(f"runs/{first.number}/data.txt"),)
    spell.run(f'python -c "{code}"; touch f; ln -s f l', mounts=mounts, env={"A": "b"}, timeout_s=60.0)
    flow = WorkflowSpec("flow", (Step("a", run.RunSpec("true")), Step("b", run.RunSpec("true"), ("a",))))
    spell.client.workflows.cast(flow)
    sweep = run.RunSpec("true :X:", params={"X": "1"})
    spell.client.searches.cast(SearchSpec(kind="grid", spec=sweep, space={"X": Choice(("1", "2"))}))
    return spell


def kind_of(name: str) -> type:
    """The record of this name, in whichever module of `orchestrator.records` it is."""
    names = [f"{records.__name__}.{item.name}" for item in pkgutil.iter_modules(records.__path__)]
    modules = map(importlib.import_module, names)
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def answered(operation: Mapping[str, Any]) -> str:
    """The record that an operation answers, by its schema."""
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        if status.startswith("2") and "$ref" in schema:
            return str(schema["$ref"].rpartition("/")[2])
        if status.startswith("2") and "$ref" in schema.get("items", {}):
            return "list of " + schema["items"]["$ref"].rpartition("/")[2]
    return ""


def test_openapi_lists_every_route_with_its_record(openapi: dict[str, Any]) -> None:
    found = {
        (method.upper(), path): answered(operation)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    }
    assert found == ROUTES
    assert all(
        operation.get("description") for operations in openapi["paths"].values() for operation in operations.values()
    )


def test_openapi_has_every_field_of_every_record(openapi: dict[str, Any]) -> None:
    names = {record.removeprefix("list of ") for record in ROUTES.values()} - {""}
    for name in names:
        kind = kind_of(name)
        assert list(openapi["components"]["schemas"][name]["properties"]) == [
            item.name for item in dataclasses.fields(kind)
        ]


# -- docs/json.md -----------------------------------------------------------------------------------------------------


def documented() -> dict[str, dict[str, str]]:
    """Field and type of every table in docs/json.md, by the heading above it."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in (DOCS / "json.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        row = re.match(r"\| `(\w+)` \| ([\w ]+) \| .+ \|", line)
        if row:
            assert row[1] not in found.setdefault(heading, {})
            found[heading][row[1]] = row[2]
    return found


def in_words(annotation: Any) -> str:
    """A type, as docs/json.md has it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is types.UnionType or origin is typing.Union:
        kinds = [in_words(item) for item in arguments if item is not type(None)]
        return " or ".join([*kinds, "null"])
    if origin in (list, tuple):
        item = in_words(arguments[0])
        return f"list of {item if item == 'text' else item + 's'}"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(annotation):
        return "object"
    return {str: "text", int: "integer", float: "number", bool: "boolean"}.get(annotation) or in_words(origin)


def fields_of(kind: type) -> dict[str, str]:
    """Field and type of a record, in its order."""
    hints = typing.get_type_hints(kind)
    return {item.name: in_words(hints[item.name]) for item in dataclasses.fields(kind)}


KINDS = [
    *(kind_of(name) for name in sorted({record.removeprefix("list of ") for record in ROUTES.values()} - {""})),
    kind_of("ImageRecord"),  # the last line of a stream
    StepRecord,
    TrialRecord,
    *map(kind_of, ("ChangeRecord", "CodeChangeRecord", "OutputChangeRecord", "MetricChangeRecord")),
    *map(kind_of, ("NodeRecord", "EdgeRecord", "VerifyRecord", "ProblemRecord")),
    run.RunSpec,
    run.Code,
]  # fmt: skip


EXTENDED = {RunRecord: "RunSummary", WorkflowRecord: "WorkflowSummary", SearchRecord: "SearchSummary"}
"""Records whose table tells only what they have beside another one."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_docs_tell_every_field(kind: type) -> None:
    tables = documented()
    written = tables[kind.__name__]
    if kind in EXTENDED:
        written = tables[EXTENDED[kind]] | written
    assert written == fields_of(kind)
    assert list(written) == list(fields_of(kind))


def test_docs_tell_every_state_and_reason() -> None:
    text = (DOCS / "json.md").read_text()
    assert [state.value for state in State if f"`{state}`" not in text] == []
    assert [reason for reason in ENDS if f"`{reason}`" not in text] == []


def with_json(group: click.Group, before: str = "") -> Iterator[str]:
    """Every command that has --json."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from with_json(command, f"{before}{name} ")
        elif command and any("--json" in item.opts for item in command.params):
            yield before + name


def test_docs_tell_every_command_that_has_json() -> None:
    lines = [line for line in (DOCS / "json.md").read_text().splitlines() if line.startswith("| `spell ")]
    shown = [verb for line in lines for verb in re.findall(r"`spell ((?:[a-z][a-z-]* )+)[^`]*--json", line)]
    told = {verb.strip() for verb in shown}
    assert told == set(with_json(main.spell))


# -- what is printed --------------------------------------------------------------------------------------------------


def fits(value: Any, words: str) -> bool:
    """Whether a JSON value is of a documented type."""
    if words.endswith(" or null"):
        return value is None or fits(value, words.removesuffix(" or null"))
    if words.startswith("list of "):
        item = words.removeprefix("list of ")
        return isinstance(value, list) and all(fits(one, item.removesuffix("s")) for one in value)
    kinds = {"text": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict}
    return isinstance(value, kinds[words]) and (words == "boolean") == isinstance(value, bool)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["ps"], "RunSummary"),
        (["info", "1"], "RunRecord"),
        (["info", "2"], "RunRecord"),
        (["run", "-f", "true"], "RunRecord"),
        (["run", "-f", "-b", "true"], "RunRecord"),
        (["ls"], "FileRecord"),
        (["ls", "runs/2"], "FileRecord"),
        (["metrics", "2"], "MetricRecord"),
        (["machine-types"], "MachineRecord"),
        (["server", "status"], "ServerRecord"),
        (["doctor"], "CheckRecord"),
        (["workflow", "list"], "WorkflowSummary"),
        (["workflow", "info", "1"], "WorkflowRecord"),
        (["hyper", "list"], "SearchSummary"),
        (["hyper", "info", "1"], "SearchRecord"),
        (["upload", __file__, "-n", "this"], "UploadRecord"),
        (["gc"], "GcRecord"),
        (["diff", "1", "2"], "DiffRecord"),
        (["lineage", "2"], "LineageRecord"),
        (["verify", "1", "2"], "VerifyRecord"),
    ],
)
def test_json_is_as_documented(spell: Spell, words: list[str], name: str) -> None:
    done = spell(*words, "--json")
    assert done.code == 0, done
    assert done.out.isascii()
    found = done.json()
    wanted = fields_of(kind_of(name))
    items = found if isinstance(found, list) else [found]
    assert items
    for item in items:
        assert list(item) == list(wanted)
        assert [key for key, value in item.items() if not fits(value, wanted[key])] == []
        if isinstance(item.get("spec"), dict):
            assert list(item["spec"]) == list(fields_of(run.RunSpec))
            assert set(item["spec"]["env"].values()) <= {"***"}


def test_records_of_a_newer_server_are_understood() -> None:
    body = {item.name: None for item in dataclasses.fields(RunSummary)} | {"shade": "purple"}
    assert records.from_wire(RunSummary, body).number is None


# -- answers to what makes no sense -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/nowhere", b"", 404),
        ("DELETE", "/runs/1", b"", 405),
        ("GET", "/runs?limit=0", b"", 422),
        ("GET", "/runs?limit=many", b"", 422),
        ("GET", "/runs?before=99999999999999999999", b"", 422),
        ("GET", "/runs?limit=99999999999999999999", b"", 200),
        ("GET", "/runs/99999999999999999999999", b"", 404),
        ("GET", "/runs/1/follow?after=x", b"", 422),
        ("GET", "/runs/1/log?lines=-1", b"", 422),
        ("POST", "/runs", b"", 422),
        ("POST", "/runs", b"{", 422),
        ("POST", "/runs", b"[]", 422),
        ("POST", "/runs", b'{"command": "\\ud800"}', 422),
        ("POST", "/runs", b'{"command": "true", "timeout_s": NaN}', 422),
        ("POST", "/trees", b"nonsense", 422),
        ("POST", "/trees", b"[]\nnonsense", 422),
        ("POST", "/trees", b'{"entries": [["../x", "100644", "0", 1]]}', 422),
        ("GET", "/blobs/..%2F..%2Fspell.db", b"", 404),
        ("GET", "/blobs/short", b"", 422),
        ("PUT", "/blobs/" + "0" * 64, b"not of that digest", 422),
        ("GET", "/resources/..%2F..%2Fetc", b"", 422),
        ("GET", "/files/store%2Fspell.db", b"", 404),
        ("GET", "/files/runs", b"", 200),
    ],
)
def test_requests_that_make_no_sense(spell: Spell, method: str, path: str, content: bytes, status: int) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(spell.home.socket)), base_url="http://spell") as client:
        answer = client.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    if status >= 400:
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == {"code", "message", "cure"}


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("POST", "/runs", ["swordfish"], "The request is invalid: body: Input should be a valid dictionary."),
        ("PUT", "/links/x", {"resource": ["swordfish"]}, "The request is invalid: resource: Input should be a valid"),
        ("PUT", "/links/x", {"key": "swordfish"}, "The request is invalid: resource: Field required."),
        ("GET", "/runs?limit=0", None, "The request is invalid: limit: Input should be greater than or equal to 1."),
        ("GET", "/runs?limit=swordfish", None, "The request is invalid: limit: Input should be a valid integer"),
    ],
)
def test_what_is_invalid_is_told_in_words_and_not_repeated(
    spell: Spell, method: str, path: str, body: Any, said: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        spell.client.transport.call(method, path, json=body)
    assert caught.value.message.startswith(said)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(spell.home.socket)), base_url="http://spell") as client:
        answer = client.request(method, path, json=body)
    assert answer.status_code == 422 and "swordfish" not in answer.text


def test_what_is_no_request_is_told_in_words(spell: Spell) -> None:
    with pytest.raises(NotFound, match=r"The server has no /nowhere\."):
        spell.client.transport.call("GET", "/nowhere")
    with pytest.raises(SpellError, match="The server refuses DELETE /runs/1: Method Not Allowed"):
        spell.client.transport.call("DELETE", "/runs/1")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(spell.home.socket)), base_url="http://spell") as client:
        for content, said in (
            (b"{swordfish", "The request is invalid: body: JSON decode error."),
            (b"\xff", "The server refuses PUT /links/x: There was an error parsing the body."),
        ):
            answer = client.put("/links/x", content=content, headers={"Content-Type": "application/json"})
            assert answer.json()["error"]["message"] == said


WITH_A_BODY = [
    (method, re.sub(r"\{\w+\}", "999", path.replace("{digest}", "0" * 64)))
    for method, path in ROUTES
    if method in ("POST", "PUT") and path not in ("/server/stop", "/gc")
]
ODD = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep dicts": b'{"command":' * 100_000 + b"1" + b"}" * 100_000,
    "a deep field": b'{"command": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "no text": b"\xff\xfe\0",
    "half a pair": b'{"command": "\\ud800", "resource": "\\udfff"}',
    "too much": b'[["a", "100644", "' + b"0" * 64 + b'", 1e999]]',
    "infinity": b'{"command": "true", "timeout_s": 1e999, "retries": 1e999}',
    "many digits": b'{"command": "true", "retries": ' + b"9" * 5000 + b"}",
    "nothing": b"null",
}


def tracebacks(spell: Spell) -> int:
    return spell.home.server_log.read_text().count("Traceback")


@pytest.mark.parametrize("odd", ODD)
def test_no_odd_body_is_an_error_of_the_server(spell: Spell, odd: str) -> None:
    before = tracebacks(spell)
    headers = {"Content-Type": "application/json"}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(spell.home.socket)), base_url="http://spell") as client:
        for method, path in WITH_A_BODY:
            answer = client.request(method, path, content=ODD[odd], headers=headers)
            assert answer.status_code < 500, (method, path, answer.text)
    assert tracebacks(spell) == before


def test_who_leaves_in_the_middle_of_a_body_is_no_error(spell: Spell) -> None:
    before = tracebacks(spell)
    for method, path in WITH_A_BODY:
        for framing, body in (("Content-Length: 1000", '{"a":'), ("Transfer-Encoding: chunked", '5\r\n{"a":\r\n')):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(spell.home.socket))
                client.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}".encode())
                client.shutdown(socket.SHUT_WR)
                client.settimeout(DEADLINE_S)
                while client.recv(1 << 16):
                    pass  # the server has seen it
    assert spell.client.server.get()
    assert tracebacks(spell) == before


def test_openapi_has_the_form_of_errors(openapi: dict[str, Any]) -> None:
    for operations in openapi["paths"].values():
        for operation in operations.values():
            assert [status for status in operation["responses"] if not status.startswith("2")] == ["4XX"]
