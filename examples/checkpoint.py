"""Retry a failed run, which continues from its checkpoint."""

from orchestrator import RunSpec, connect

TRAIN = """
import sys
from orchestrator import checkpoint_dir

place = checkpoint_dir() / "step"
step = int(place.read_text()) if place.exists() else 0
print("starting at step", step)
place.write_text("3")
sys.exit(1 if step == 0 else 0)  # the first attempt fails
"""

with connect() as client:
    number = str(client.runs.cast(RunSpec(command=f"python - <<'END'\n{TRAIN}\nEND", retries=1)).number)
    print(client.runs.wait(number).state)
    run = client.runs.get(number)
    print("attempts that failed:", [(attempt.number, attempt.exit_code) for attempt in run.attempts])
    print([line for line in client.logs.get(number).read().decode().splitlines() if line.startswith("starting")])

# Output:
# complete
# attempts that failed: [(1, 1)]
# ['starting at step 0', 'starting at step 3']
