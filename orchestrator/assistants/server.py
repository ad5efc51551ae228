"""`spell mcp`: a Model Context Protocol server over standard input and output, by the official SDK, on the Python API."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

import orchestrator
from orchestrator.assistants.changing import Changing
from orchestrator.assistants.reading import Reading
from orchestrator.client.client import Client
from orchestrator.errors import SpellError

F = TypeVar("F", bound=Callable[..., Any])

_ABOUT = (
    "spell runs commands as numbered runs: their code, environment, log, metrics and outputs are kept. A run is named by its "
    "number, its name, latest or latest~1; its outputs are files at runs/N/…. Answers are cut at some 40 kB, and say so. "
)
_READ_ONLY = "This server only reads. Commands for the person to type begin with `spell`."
_MAY_WRITE = "cast_run, rerun_run, resume_run and stop_run change what runs; nothing here removes anything."


def serve(client: Client, *, may_write: bool) -> None:
    """Answer an assistant on standard input and output until it closes them."""
    make(client, may_write=may_write).run("stdio")


def make(client: Client, *, may_write: bool) -> MCPServer[Any]:
    """Return the server with its tools."""
    about = _ABOUT + (_MAY_WRITE if may_write else _READ_ONLY)
    server: MCPServer[Any] = MCPServer(
        "spell", instructions=about, version=orchestrator.__version__, log_level="WARNING"
    )
    for tool in Reading(client).tools():
        _add(server, tool, ToolAnnotations(read_only_hint=True, open_world_hint=False))
    for tool in Changing(client).tools() if may_write else ():
        is_harmful = tool.__name__ == "stop_run"
        hints = ToolAnnotations(read_only_hint=False, destructive_hint=is_harmful, open_world_hint=False)
        _add(server, tool, hints)
    return server


def _add(server: MCPServer[Any], tool: Callable[..., Any], hints: ToolAnnotations) -> None:
    words = inspect.getdoc(tool) or ""
    # Text only: a structured answer comes beside the same as text, and would be read twice.
    server.add_tool(_in_words(tool), description=words, annotations=hints, structured_output=False)


def _in_words(tool: F) -> F:
    """Return the tool so that an assistant reads why it is refused: the SDK keeps the text of other errors to itself."""
    if inspect.iscoroutinefunction(tool):

        @functools.wraps(tool)
        async def awaited(*args: Any, **values: Any) -> Any:
            try:
                return await tool(*args, **values)
            except SpellError as error:
                raise ToolError(error.whole) from error

        return awaited  # type: ignore[return-value]

    @functools.wraps(tool)
    def called(*args: Any, **values: Any) -> Any:
        try:
            return tool(*args, **values)
        except SpellError as error:
            raise ToolError(error.whole) from error

    return called  # type: ignore[return-value]
