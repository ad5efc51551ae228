"""The HTTP API: a module for each noun. Each route calls one verb of `orchestrator.service`, and answers a record of
`orchestrator.records`.

code       manifests and blobs of the code of runs
runs       cast, list, inspect, rerun, stop and kill runs
logs       read or follow logs
metrics    read metrics
stats      the usage of runs
ports      list and forward the ports of runs
resources  list and download outputs and uploads
uploads    upload and remove folders and files
secrets    set, list and remove secrets
workflows  cast, list, inspect, stop and kill workflows
searches   cast, list, inspect, stop, kill and resume searches
labels     change the labels of runs
archive    hide runs, and bring them back
projects   group runs
links      aliases of resources
compare    the differences between two runs
lineage    the lineage of a run
verify     compare outputs with their records
export     export a run
imports    import runs from other trackers
environments  what a run would get
images     bake images
machines   list machine types
gc         garbage collection
doctor     checks of the machine
server     the server itself
"""

from orchestrator.server.routes import (
    archive,
    code,
    compare,
    doctor,
    environments,
    export,
    gc,
    images,
    imports,
    labels,
    lineage,
    links,
    logs,
    machines,
    metrics,
    ports,
    projects,
    resources,
    runs,
    searches,
    secrets,
    server,
    stats,
    uploads,
    verify,
    workflows,
)

ROUTERS = (
    server.router,
    machines.router,
    doctor.router,
    gc.router,
    code.router,
    runs.router,
    logs.router,
    metrics.router,
    stats.router,
    ports.router,
    resources.router,
    uploads.router,
    secrets.router,
    searches.router,
    workflows.router,
    labels.router,
    archive.router,
    projects.router,
    links.router,
    compare.router,
    lineage.router,
    verify.router,
    export.router,
    imports.router,
    images.router,
    environments.router,
)
"""One for each module."""
