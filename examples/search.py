"""Search for the parameters that minimize a metric."""

import time

from orchestrator import Choice, RunSpec, SearchSpec, connect

TRIAL = """
from orchestrator import send_metric

send_metric("loss", (:x: - 3) ** 2 + :y:)
"""

spec = RunSpec(command=f"python - <<'END'\n{TRIAL}\nEND", params={"x": "1", "y": "0"})
space = {"x": Choice(("1", "2", "3", "4")), "y": Choice(("0", "1"))}

with connect() as client:
    number = str(client.searches.cast(SearchSpec(kind="grid", spec=spec, space=space, metric="loss")).number)
    while (found := client.searches.get(number)).ended_at is None:
        time.sleep(0.1)
    print(f"{found.trials_complete} of {found.trials_count} trials are complete")
    best = next(trial for trial in found.trials if trial.run == found.best_run)
    print(f"loss {found.best_value} at x={best.params['x']} y={best.params['y']}")

# Output:
# 8 of 8 trials are complete
# loss 0.0 at x=3 y=0
