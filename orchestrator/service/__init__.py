"""The verbs, by noun: `Service` is what the routes call, and the only thing that they call."""

from orchestrator.service.access import OWNER, Who
from orchestrator.service.service import Service

__all__ = ["OWNER", "Service", "Who"]
