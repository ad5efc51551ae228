"""The variables by which trackers of experiments log offline, into the work dir of a run, where `telemetry/trackers/` reads
their files. Where a person has set one, or given a key, theirs counts.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

_OF_WANDB = {"WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_DISABLED"}
_OF_MLFLOW = {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_ALLOW_FILE_STORE", "DATABRICKS_HOST"}
_MOST_NETRC_BYTES = 1 << 20


def variables(folder: str, taken: Collection[str], server_env: Mapping[str, str], *, is_host: bool) -> dict[str, str]:
    """Return the variables that a run gets for its trackers.

    Args:
        folder: where its command starts, as it sees it.
        taken: the names of variables that it has anyway.
        server_env: the variables of the server; a run that sees this machine finds the login of wandb by them.
        is_host: whether it sees this machine.
    """
    found = {}
    if not _OF_WANDB & set(taken) and not (is_host and _has_login(server_env)):
        found["WANDB_MODE"] = "offline"
    if not _OF_MLFLOW & set(taken):
        found["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    if "TRACKIO_DIR" not in taken:
        found["TRACKIO_DIR"] = f"{folder}/trackio"
    return found


def _has_login(server_env: Mapping[str, str]) -> bool:
    """Whether `wandb login` was made on this machine: it writes the key into the netrc file."""
    path = Path(server_env.get("NETRC") or os.path.join(server_env.get("HOME", ""), ".netrc"))
    try:
        with path.open("rb") as file:
            return b"wandb" in file.read(_MOST_NETRC_BYTES)
    except OSError:
        return False
