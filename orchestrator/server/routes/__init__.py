"""The HTTP API. Each route calls one verb; what it answers is a record of `orchestrator.records`."""

from orchestrator.server.routes import (
    code,
    compare,
    machine,
    organise,
    resources,
    runs,
    searches,
    secrets,
    uploads,
    watching,
    workflows,
)

ROUTERS = (
    machine.router,
    code.router,
    runs.router,
    watching.router,
    resources.router,
    workflows.router,
    searches.router,
    secrets.router,
    uploads.router,
    organise.router,
    compare.router,
)
"""One for each module, in the order in which a path is looked for."""
