"""A script that an assistant may run."""

from orchestrator.runtime import send_metric

for step in range(1, 4):
    send_metric("loss", 1 / step, step=step)
print("trained")
