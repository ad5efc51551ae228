"""`spelld`: one server for one home, on a Unix socket in it."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import click
import uvicorn

import orchestrator
from orchestrator.errors import Conflict, SpellError
from orchestrator.home import Home, answers, default_home, open_lock, set_aside
from orchestrator.server.app import make_app

_HANDOVER_LIMIT_S = 20.0
_LOOK_S = 0.02
_HOME_LOOK_S = 2.0
_log = logging.getLogger(__name__)
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", type=click.Path(path_type=Path), help="The home to serve [default: $SPELL_HOME or ~/.spell].")
@click.version_option(orchestrator.__version__)
def main(home: Path | None) -> None:
    """Serve one home until a signal or a client ends the server. `spell` starts it when it needs it."""
    os.umask(0o022)  # our files have the same modes, whoever started us
    place = Home((home or default_home()).absolute())
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT, stream=sys.stderr)
    try:
        place.create()
        with _alone(place) as lock:
            server = _server(place)
            with (
                _listen(place) as listening,
                contextlib.suppress(SystemExit),
            ):  # uvicorn ends in this way when it cannot start
                _end_with_home(place, lock, server)
                server.run(sockets=[listening])
            logging.shutdown()
            # Threads of runs may still write: they end together with the lock, so that no other server starts before.
            os._exit(0 if server.started else 1)
    except SpellError as error:
        click.echo(f"ERROR: {error.whole}", err=True)
        sys.exit(error.exit_code)


class _Server(uvicorn.Server):
    """Ends the streams of followers first, instead of waiting until uvicorn cuts them off."""

    def __init__(self, config: uvicorn.Config, let_go: Callable[[], None]) -> None:
        super().__init__(config)
        self._let_go = let_go

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._let_go()
        await super().shutdown(sockets)


def _server(home: Home) -> uvicorn.Server:
    server: uvicorn.Server

    def stop() -> None:
        server.should_exit = True  # a request only: requests in progress are finished first

    app = make_app(home, stop)
    gc.freeze()  # modules stay: garbage collection need not search them again
    gc.enable()
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
            ws_ping_interval=None,  # the kernel reports a client that has gone; a slow one has not
        ),
        app.state.hub.close,
    )
    return server


def _end_with_home(home: Home, lock: IO[str], server: uvicorn.Server) -> None:
    """End the server when its home is removed or its socket replaced: no client could find it any more."""
    lock_file, socket_file = os.fstat(lock.fileno()), home.socket.stat()

    def watch() -> None:
        while not server.should_exit:
            time.sleep(_HOME_LOOK_S)
            if not _is_same(home.lock, lock_file):
                _log.error("the home %s is gone: it was moved or removed. This server ends; its runs go on", home.root)
                server.should_exit = True
            elif not _is_same(home.socket, socket_file):
                _log.error("%s was removed or replaced. This server ends; its runs go on", home.socket)
                server.should_exit = True

    threading.Thread(target=watch, name="watch-home", daemon=True).start()


def _is_same(path: Path, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), known)
    except OSError:
        return False


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[IO[str]]:
    """Take the home's lock; the kernel releases it when this process dies.

    If a server holds it and answers, this one is superfluous. If it does not answer, it is starting or ending: this one
    waits.
    """
    deadline = time.monotonic() + _HANDOVER_LIMIT_S
    with os.fdopen(open_lock(home.lock), "r+") as lock:
        while not _lock(lock):
            if answers(home.socket) or time.monotonic() > deadline:
                lock.seek(0)
                raise Conflict(f"A server (process {lock.read().strip()}) serves {home.root} already.")
            time.sleep(_LOOK_S)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _listen(home: Home) -> Iterator[socket.socket]:
    """The home's socket, for its owner only. Replaces the socket of a dead server, as this one has the lock."""
    path = home.socket
    path.parent.mkdir(mode=0o700, exist_ok=True)  # the server before this one may just have removed it
    home.check_socket()
    set_aside(path)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        previous = os.umask(0o077)
        try:
            listening.bind(str(path))
        finally:
            os.umask(previous)
        listening.listen(128)
        ours = path.stat()
        try:
            yield listening
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(path.stat(), ours):  # a new home may have a new server
                    path.unlink()
                if path.parent != home.store:
                    path.parent.rmdir()
