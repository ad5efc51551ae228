"""The Docker engine of this machine: finds it, calls it, and translates its errors. Nothing here knows of runs.

find        where its socket is
connection  the engine itself, and its errors as ours
hijack      the two-way stream of an exec
"""

from orchestrator.engine.connection import Engine, EngineError

__all__ = ["Engine", "EngineError"]
