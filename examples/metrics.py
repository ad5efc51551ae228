"""Send metrics from a run and read them."""

from orchestrator import RunSpec, connect

TRAIN = """
from orchestrator import send_metric

for step in range(5):
    send_metric("loss", 1 / (step + 1), step)
"""

with connect() as client:
    number = str(client.runs.cast(RunSpec(command=f"python - <<'END'\n{TRAIN}\nEND")).number)
    client.runs.wait(number)
    for item in client.metrics.list(number, "loss"):
        print(item.step, f"{item.value:.2f}")
    (loss,) = client.metrics.summaries(number)
    print(f"{loss.name}: {loss.count} values, the least is {loss.least:.2f}")

# Output:
# 0 1.00
# 1 0.50
# 2 0.33
# 3 0.25
# 4 0.20
# loss: 5 values, the least is 0.20
