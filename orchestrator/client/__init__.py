"""The Python API: `Client` has a noun for each module, with its verbs.

with connect() as client:
    client.projects.create("jokes")

client     `Client` and `connect`
launch     starts the server if none answers
transport  requests over the socket, sent again where the server ends meanwhile
connection  one connection to the socket
code       sends the code of a run
runs       casts, lists, follows and stops runs
follow     follows a run through lost connections
logs       reads logs
metrics    reads metrics
stats      the usage of runs
ports      lists and forwards ports of runs
exec       runs an additional command in the container of a run
resources  lists and reads outputs and uploads
uploads    uploads folders and files
upload     sends one upload
upload_steps  the requests of an upload
secrets    sets secrets
workflows  casts and stops workflows
searches   casts, stops and resumes searches
labels     labels runs
archive    hides runs, and brings them back
projects   groups runs
links      aliases of resources
compare    the differences between two runs
lineage    the lineage of a run
verify     compares outputs with their records
export     exports a run
imports    imports runs from other trackers
images     bakes images
environments  looks up the environment that a run would get
machines   lists machine types
gc         garbage collection
doctor     checks of the server's machine
server     the server itself
"""
