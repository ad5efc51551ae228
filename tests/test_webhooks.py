"""Webhooks are told of the end of runs: signed, again until they answer, by the next server too."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from conftest import Spell, wait_for


@dataclass
class Hook:
    """A web server that keeps what it is told, and answers with the next of its statuses."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    told: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.told.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(found.statuses.pop(0) if found.statuses else 204)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/hook-of-hunter2"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests here."""
    return make_shared("webhooks")


def test_a_webhook_is_told_once_and_signed(spell: Spell, hook: Hook) -> None:
    number = spell.cast("exit 3", notify=(hook.url,), name="told")
    wait_for(lambda: hook.told, "the message")
    headers, body = hook.told[0]
    message = json.loads(body)
    assert (message["type"], message["data"]["number"], message["data"]["exit_code"]) == ("run.ended", number, 3)
    assert message["text"] == f"Run {number} (told) failed: the command ended with exit code 3"
    key = base64.b64decode(spell.home.webhook_key.read_text().strip().removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert spell.home.webhook_key.stat().st_mode & 0o077 == 0
    spell.run("true", notify=(hook.url,))
    wait_for(lambda: len(hook.told) > 1, "the next message")
    assert [json.loads(body)["data"]["number"] for _, body in hook.told] == [number, number + 1]


@pytest.mark.parametrize("status", [500, 302, 404])
def test_told_again_until_it_answers(spell: Spell, hook: Hook, status: int) -> None:
    hook.statuses.append(status)
    spell.run("true", notify=(hook.url,))
    wait_for(lambda: len(hook.told) == 2, "the second try")
    (first, _), (second, _) = hook.told
    assert first["webhook-id"] == second["webhook-id"]


def test_the_next_server_tells_what_the_last_one_did_not(spell: Spell, hook: Hook) -> None:
    hook.statuses += [503]
    spell.run("true", notify=(hook.url,))
    wait_for(lambda: hook.told, "the first try")
    os.kill(spell.client.server.get().pid, signal.SIGKILL)
    wait_for(lambda: spell("ps").code == 0, "a new server")
    wait_for(lambda: len(hook.told) == 2, "the second try")


def test_a_run_that_never_started_is_told_of(spell: Spell, hook: Hook) -> None:
    number = spell.cast("true", notify=(hook.url,), mounts=(), pip=("no-such-package-anywhere==1",))
    wait_for(lambda: hook.told, "the message")
    assert (
        json.loads(hook.told[0][1])["data"] | {"state": "build_failed", "number": number}
        == json.loads(hook.told[0][1])["data"]
    )


def test_f50_the_url_is_shown_nowhere(spell: Spell, hook: Hook) -> None:
    hook.statuses += [500]
    run = spell.run("true", notify=(hook.url,))
    wait_for(lambda: len(hook.told) == 2, "the second try")
    shown = spell("info", str(run.number), "--json").out + spell("info", str(run.number)).out
    assert "hunter2" not in shown + spell.home.server_log.read_text(errors="replace")
    assert "a webhook was not told: HTTP status 500" in spell.home.server_log.read_text(errors="replace")


@pytest.mark.parametrize("url", ["ftp://example.org/x", "example.org", "http://", "http://a b", "file:///etc/passwd"])
def test_what_is_no_webhook(spell: Spell, url: str) -> None:
    done = spell("run", "--notify", url, "true")
    assert (done.code, "must be an http:// or https:// URL" in done.err) == (3, True), done


def test_one_that_never_ends_its_answer_holds_up_nobody_for_long(spell: Spell, hook: Hook) -> None:
    over = threading.Event()

    def dribble(listening: socket.socket) -> None:
        client, _ = listening.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\n")
            while not over.wait(0.2):
                client.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=dribble, args=(listening,))
        thread.start()
        try:
            spell.run("true", notify=(f"http://127.0.0.1:{listening.getsockname()[1]}/",))
            number = spell.run("true", notify=(hook.url,)).number
            wait_for(lambda: hook.told, "the other one is told")
            assert json.loads(hook.told[0][1])["data"]["number"] == number
        finally:
            over.set()
            thread.join()
