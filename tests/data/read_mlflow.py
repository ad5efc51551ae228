"""Prints what the real MLflow reads in the folder of `spell export --to mlflow`; run by hand, as MLflow takes long to load.

spell export --to mlflow --all out && uv run --no-project --with mlflow==3.17.2 tests/data/read_mlflow.py out
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow

client = mlflow.MlflowClient(f"sqlite:///{Path(sys.argv[1]).absolute()}/mlflow.db")
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]):
        key = run.info.run_id
        words = {
            "experiment": experiment.name,
            "name": run.info.run_name,
            "status": run.info.status,
            "params": run.data.params,
            "last": run.data.metrics,
            "histories": {name: len(client.get_metric_history(key, name)) for name in run.data.metrics},
            "tags": {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")},
            "artifacts": [item.path for item in client.list_artifacts(key)],
        }
        print(json.dumps(words))
