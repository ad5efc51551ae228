"""The HTTP application: the assembly of a server, its routes, and the checks that each request passes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

import orchestrator
from orchestrator.content.packs import MOST_BYTES
from orchestrator.errors import InvalidConfig, NotFound, SpellError, VersionMismatch
from orchestrator.executors.base import Executor
from orchestrator.home import Home
from orchestrator.machine import Capacity
from orchestrator.records import API_VERSION
from orchestrator.server.assembly import Assembly
from orchestrator.server.exec import refuse
from orchestrator.server.exec import router as exec_router
from orchestrator.server.routes import ROUTERS

_log = logging.getLogger(__name__)
_MOST_BYTES = {
    "/runs": 16 << 20,
    "/workflows": 64 << 20,
    "/searches": 16 << 20,
    "/images": 16 << 20,
    "/trees": 512 << 20,
    "/blobs": MOST_BYTES,
}
_MOST_OTHER_BYTES = 1 << 20
_BAD_REQUEST, _NOT_FOUND = 400, 404
_TEXT = {"type": "string"}
_ERROR = {"type": "object", "properties": {"code": _TEXT, "message": _TEXT, "cure": _TEXT}}
_REFUSAL = {
    "description": "What happened, and what to do.",
    "content": {"application/json": {"schema": {"type": "object", "properties": {"error": _ERROR}}}},
}


def make_app(
    home: Home,
    stop: Callable[[], None],
    found: Mapping[str, Executor] | None = None,
    capacity: Capacity | None = None,
) -> FastAPI:
    """The application for one home, which must exist and be locked by the caller.

    Args:
        stop: called when a client asks the server to end.
        found: the executors; None for all.
        capacity: of the machine; None for the detected one.

    Raises:
        InvalidConfig, HomeUnusable: the configuration or the store cannot be used.
    """
    assembly = Assembly(home, found, capacity)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        assembly.start()
        yield
        assembly.close()

    app = FastAPI(
        title="spell",
        version=orchestrator.__version__,
        lifespan=lifespan,
        middleware=[Middleware(_CheckVersion), Middleware(_CheckSize)],
        docs_url=None,
        redoc_url=None,
        responses={"4XX": _REFUSAL},
    )
    app.state.service = assembly.service
    app.state.hub = assembly.hub
    app.state.stop = stop
    for router in (*ROUTERS, exec_router):
        app.include_router(router)
    app.add_exception_handler(SpellError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_no_route)
    app.add_exception_handler(UnicodeEncodeError, _answer_not_text)
    app.add_exception_handler(RecursionError, _answer_too_deep)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_crash)
    return app


async def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SpellError)
    return JSONResponse(error.to_wire(), status_code=error.http_status)


async def _answer_invalid(_request: Request, error: Exception) -> JSONResponse:
    """Answer what FastAPI found, in words and without the value: it may be secret."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = () if first["type"] == "json_invalid" else first["loc"][1:]
    refusal = InvalidConfig(f"The request is invalid: {'.'.join(map(str, place)) or 'body'}: {first['msg']}.")
    return JSONResponse(refusal.to_wire(), status_code=refusal.http_status)


async def _answer_no_route(request: Request, error: Exception) -> JSONResponse:
    """Answer what FastAPI refuses before it calls a route: an unknown path or method, or a body that is no text."""
    assert isinstance(error, HTTPException)
    if error.status_code == _NOT_FOUND:
        cure = "The server may be older than the client: restart it with spell server stop."
        refusal: SpellError = NotFound(f"The server has no {request.url.path}.", cure)
    else:
        refusal = SpellError(f"The server refuses {request.method} {request.url.path}: {error.detail}.")
    return JSONResponse(refusal.to_wire(), status_code=error.status_code, headers=error.headers)


async def _answer_not_text(request: Request, error: Exception) -> JSONResponse:
    if request.method == "GET":  # the client sent no text: the error is ours
        return await _answer_crash(request, error)
    refusal = InvalidConfig("The request contains text that is not UTF-8.")
    return JSONResponse(refusal.to_wire(), status_code=refusal.http_status)


async def _answer_too_deep(request: Request, error: Exception) -> JSONResponse:
    if request.method == "GET":  # what was nested is ours
        return await _answer_crash(request, error)
    refusal = InvalidConfig("The request is nested too deeply.")
    return JSONResponse(refusal.to_wire(), status_code=refusal.http_status)


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    """The client has gone before it had sent all of its request: nobody reads this, and nothing is wrong here."""
    return Response(status_code=_BAD_REQUEST)


async def _answer_crash(_request: Request, error: Exception) -> JSONResponse:
    _log.error("a request failed", exc_info=error)
    words = SpellError(f"spelld met an internal error: {type(error).__name__}.", "See: spell server logs")
    return JSONResponse(words.to_wire(), status_code=500)


def _most_bytes(path: str) -> int:
    """The largest body, in bytes, that a path accepts; 0 if the body is streamed to the disk."""
    if path.startswith("/blobs/") or path == "/imports":
        return 0
    if path.startswith("/uploads/"):
        return MOST_BYTES
    return _MOST_BYTES.get("/runs" if path.endswith("/rerun") else path, _MOST_OTHER_BYTES)


class _CheckSize:
    """Refuses bodies that are read as a whole and are too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        most = _most_bytes(scope["path"]) if scope["type"] == "http" else 0
        length = headers.get(b"content-length", b"" if b"transfer-encoding" in headers else b"0")
        if most and not (length.isdigit() and int(length) <= most):
            error = InvalidConfig(
                f"A request to {scope['path']} must have a Content-Length of at most {most >> 20} MiB."
            )
            await JSONResponse(error.to_wire(), status_code=413)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _CheckVersion:
    """Refuses clients of another version of the API."""

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
