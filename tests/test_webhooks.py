"""Webhooks are told of the end of runs: signed, again until they answer, by the next server too."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import http.server
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from conftest import Spell, wait_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.controllers.webhooks import post


@dataclass
class Hook:
    """A web server that keeps what it is told, and answers with the next of its statuses."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    told: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.paths.append(self.path)
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
    assert "a webhook was not called: HTTP status 500" in spell.home.server_log.read_text(errors="replace")


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


# -- one request ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """The URL of a server that answers one request like this."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _ = listening.accept()
            with client:
                answer(client)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/hunter2"
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_listens(host: str) -> None:
    with socket.socket() as bound:  # it keeps the port from others, and does not listen
        bound.bind(("127.0.0.1", 0))
        answer = post(f"http://{host}:{bound.getsockname()[1]}/hunter2", {}, b"")
    assert answer == ("Connection refused", False)


def test_out_of_descriptors() -> None:
    """Also for what is loaded with the first message: the try has failed, and the loop goes on."""
    code = (
        "import resource, sys; from orchestrator.controllers.webhooks import post\n"
        "assert 'httpx' not in sys.modules\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "print(*post('http://127.0.0.1:9/', {}, b''), sep=', ')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "Too many open files, False\n"


@pytest.mark.parametrize(
    "url", ["http://hunter2.invalid/", "http://hunter2..a/", "http://127.0.0.1:99999/", "http://[/"]
)
def test_no_host_is_named(url: str) -> None:
    answer, done = post(url, {}, b"")
    assert (done, "hunter2" in answer, answer != "") == (False, False, True)


def test_a_certificate_that_nobody_vouches_for() -> None:
    """Those of this machine count, as everywhere on it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(_certificate())
        file.flush()
        context.load_cert_chain(file.name)

        def answer(client: socket.socket) -> None:
            with context.wrap_socket(client, server_side=True) as secured:
                secured.recv(1 << 16)
                secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        with answering(answer) as url:
            assert post(url.replace("http:", "https:"), {}, b"") == ("SSLCertVerificationError", False)
        with pytest.MonkeyPatch.context() as patch, answering(answer) as url:
            patch.setenv("SSL_CERT_FILE", file.name)
            assert post(url.replace("http:", "https:"), {}, b"") == ("HTTP status 204", True)


def _certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form) + made.public_bytes(serialization.Encoding.PEM)


def test_a_proxy_is_asked_where_the_variables_name_one(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", hook.url.removesuffix("/hook-of-hunter2").removeprefix("http://"))
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")  # for others
    assert post("http://elsewhere.invalid/a?b=c", {}, b"x") == ("HTTP status 204", True)
    assert hook.paths == ["http://elsewhere.invalid/a?b=c"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert post(hook.url, {}, b"x") == ("HTTP status 204", True)
    assert hook.paths[1:] == ["/hook-of-hunter2"]


def test_a_redirect_is_not_followed(hook: Hook) -> None:
    hook.statuses.append(307)
    assert post(hook.url, {}, b"x") == ("HTTP status 307", False)
    assert hook.paths == ["/hook-of-hunter2"]


def test_an_answer_that_is_endless_is_not_read() -> None:
    """Neither its head, beyond some size, nor its body at all."""

    def flood(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            client.sendall(b"x: " + b"y" * 1000 + b"\r\n")

    def body(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            client.sendall(b"400\r\n" + b"y" * 1024 + b"\r\n")

    with answering(flood) as url:
        assert post(url, {}, b"x") == ("RemoteProtocolError", False)
    with answering(body) as url:
        assert post(url, {}, b"x") == ("HTTP status 200", True)
