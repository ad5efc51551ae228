"""The verbs, by noun: `Service` is the only thing that routes call.

service          all nouns of one home
access           resolves references, and will decide what a person may do
code             receives the code of runs
runs             casts, lists, inspects and stops runs
quota            enforces the space limits of the home
executors        chooses the executor of a run
plan             what a cast would do
reuse            finds an identical complete run
rerun            makes the spec of a rerun
resume           finds the checkpoints that a run begins with
workflows        workflows: cast, list, inspect, stop
searches         searches: cast, list, inspect, stop, resume
uploads          receives uploads
secrets          sets secrets
logs             reads logs
metrics          ingests metrics, then reads them
stats            reads the usage of runs
exec             starts additional commands beside those of runs
ports            lists the ports of runs, and connects to them
resources        lists and sends outputs and uploads
unsaved          finds the files of runs that have not ended
labels           labels runs
archive          hides runs, and brings them back
projects         groups runs
links            aliases of resources
compare          compares two runs
code_changes     compares two snapshots
lineage          follows mounts
verify           compares outputs with their records
export           exports a run
imports          imports runs from other trackers
export_packages  the packages of an export
export_texts     the job file, Dockerfile and README of an export
images           bakes images
environments     looks up the environment that a run would get
machines         lists machine types
gc               garbage collection of everything that no run needs
gc_runs          its part for files of runs
doctor           checks of the server's machine
server           the server itself
"""

from orchestrator.service.access import OWNER, Who
from orchestrator.service.service import Service

__all__ = ["OWNER", "Service", "Who"]
