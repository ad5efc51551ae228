"""Readers of the files that trackers of experiments write: pure functions from bytes to plain records.

They import only the standard library and nothing of the tracker, so that both the server (`telemetry/trackers/`, while a
run writes) and the client (which imports finished runs) can use them. Each tells what is damaged instead of raising.

records         what every reader returns: runs, points
protobuf        the wire format of Protocol Buffers
checksums       the checksum of TFRecord files
tfevents        event files of TensorBoard
wandb_log       `run-ID.wandb` files of Weights & Biases
sqlite_file     opens a database that another program may be writing, or has left
mlflow_store    MLflow: `mlflow.db`, and the older folder `mlruns`
trackio_store   Trackio: `PROJECT.db`
csv_log         `metrics.csv` of Lightning's CSVLogger
"""
