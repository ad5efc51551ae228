"""The application: everything of a server put together. The only place that names concrete executors."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

import orchestrator
from orchestrator import config as configuration
from orchestrator import machine, runenv
from orchestrator.baking import Baker
from orchestrator.conductor import Conductor
from orchestrator.config import Config
from orchestrator.engine import Engine
from orchestrator.environments import Environments, Images
from orchestrator.errors import InvalidConfig, NotFound, SaveFailed, SpellError, VersionMismatch
from orchestrator.executors.base import Executor
from orchestrator.executors.docker import DockerExecutor
from orchestrator.executors.process import ProcessExecutor
from orchestrator.home import Home
from orchestrator.outputs import remove_tree
from orchestrator.records import API_VERSION
from orchestrator.scheduler import Scheduler
from orchestrator.server.follow import Hub
from orchestrator.server.routes import ROUTERS
from orchestrator.server.sessions import refuse
from orchestrator.server.sessions import router as sessions
from orchestrator.service import Service
from orchestrator.states import FINAL
from orchestrator.store import Store
from orchestrator.store.blobs import BlobStore
from orchestrator.store.database import Database
from orchestrator.telemetry import Hasher, Sampler
from orchestrator.workshop import Workshop

_log = logging.getLogger(__name__)
_MOST_BYTES = {"/runs": 16 << 20, "/images": 16 << 20, "/trees": 512 << 20}
_KEEPS_WORK = ("save_failed", "disk_full", "internal_error")  # outputs may be there that were not saved


def executors(engine: Engine, images: Images, config: Config) -> dict[str, Executor]:
    """Every executor that there is, by name; those that are preferred first."""
    found: list[Executor] = [
        DockerExecutor(engine, images, config.docker, runenv.certificates(os.environ)),
        ProcessExecutor(namespaces=os.environ.get("SPELL_NAMESPACES") != "never"),
    ]
    return {executor.name: executor for executor in found}


def make_app(home: Home, stop: Callable[[], None], found: Mapping[str, Executor] | None = None) -> FastAPI:
    """The application for one home, which must exist and be locked by the caller.

    Args:
        stop: called when a client asks the server to end.
        found: the executors; None for all that there are.

    Raises:
        InvalidConfig, HomeUnusable: when configuration or store cannot be used.
    """
    config = configuration.load(home.config)
    engine = Engine(home, config.docker.host)
    images = Images(engine, config.docker)
    hub = Hub()

    def changed(number: int) -> None:
        hub.changed(number)
        conductor.wake()

    store = Store(Database(home.database), changed)
    shop = Workshop(
        store=store,
        home=home,
        config=config,
        blobs=BlobStore(home),
        environments=Environments(home, engine=engine),
        executors=found if found is not None else executors(engine, images, config),
        hasher=Hasher(store, home),
        server_env=dict(os.environ),
        closing=threading.Event(),
    )
    if config.executor and config.executor not in shop.executors:
        raise InvalidConfig(f"{home.config}: executor: there is no executor {config.executor!r}.")
    defaults = [config.executor] if config.executor else list(shop.executors)
    scheduler = Scheduler(shop, machine.detect())
    service = Service(shop, scheduler, defaults, Baker(shop, engine, images))
    conductor = Conductor([])

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        _sweep(shop)
        runenv.install_runtime(home)
        shop.environments.start()
        scheduler.start()
        conductor.start()
        sampler = Sampler(store, home, config.sample_interval_s, scheduler.running)
        yield
        conductor.close()
        scheduler.close()
        sampler.close()
        shop.hasher.close()
        shop.environments.close()

    app = FastAPI(
        title="spell",
        version=orchestrator.__version__,
        lifespan=lifespan,
        middleware=[Middleware(_CheckVersion), Middleware(_CheckSize)],
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.hub = hub
    app.state.stop = stop
    for router in (*ROUTERS, sessions):
        app.include_router(router)
    app.add_exception_handler(SpellError, _answer_error)
    app.add_exception_handler(Exception, _answer_crash)
    return app


def _sweep(shop: Workshop) -> None:
    """Remove what a killed server left behind: half-written blobs, work dirs of runs that have ended."""
    shop.blobs.sweep()
    for path in shop.home.work.iterdir():
        try:
            run = shop.store.record(int(path.name))
        except (ValueError, NotFound):
            continue  # not ours
        if run.state in FINAL and run.reason not in _KEEPS_WORK:
            try:
                remove_tree(path)
            except SaveFailed:  # whatever a run left, the server starts
                _log.exception("%s stays", path)


async def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SpellError)
    return JSONResponse(error.to_wire(), status_code=error.http_status)


async def _answer_crash(_request: Request, error: Exception) -> JSONResponse:
    _log.error("a request failed", exc_info=error)
    words = SpellError(f"spelld met an error of its own: {type(error).__name__}.", "See: spell server logs")
    return JSONResponse(words.to_wire(), status_code=500)


class _CheckSize:
    """Refuses bodies that are read as a whole, and are larger than any that is meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = _MOST_BYTES.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        told = dict(scope["headers"]).get(b"content-length", b"") if most else b""
        if most and not (told.isdigit() and int(told) <= most):
            error = InvalidConfig(
                f"What is sent to {scope['path']} must say its size, and be of {most >> 20} MiB at most."
            )
            await JSONResponse(error.to_wire(), status_code=413)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _CheckVersion:
    """Refuses clients that speak another version of the API."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            spoken = dict(scope["headers"]).get(b"spell-api")
            if spoken is not None and spoken != str(API_VERSION).encode():
                error = VersionMismatch(
                    f"This server speaks version {API_VERSION} of the API, the client {spoken.decode('latin-1')}.",
                    "Install the same spell on both sides; restart an old server with: spell server stop",
                )
                if scope["type"] == "http":
                    await JSONResponse(error.to_wire(), status_code=error.http_status)(scope, receive, send)
                else:
                    await refuse(WebSocket(scope, receive, send), error)
                return
        await self._app(scope, receive, send)
