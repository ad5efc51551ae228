"""Cast a run and follow it to its end."""

import sys

from orchestrator import RunSpec, connect

with connect() as client:
    cast = client.runs.cast(RunSpec(command="echo one; echo two", name="counting"))
    for item in client.runs.follow(str(cast.number)):
        if item.event:
            print("state:", item.event.state)
        elif item.kind == "log":
            sys.stdout.write(item.data.decode())
        elif item.run:
            print("the end:", item.run.state, item.run.exit_code)

# Output:
# state: machine_requested
# state: building
# state: running
# one
# two
# state: saving
# state: pushing
# state: complete
# the end: complete 0
