"""A Docker engine on this machine: how it is found, asked and understood. Nothing here knows of runs.

find        where its socket is
connection  the engine itself, its errors as ours
hijack      the two-way stream of an exec
"""

from orchestrator.engine.connection import Engine, EngineError

__all__ = ["Engine", "EngineError"]
