"""Runs of other trackers on this machine: read as runs to import, and runs of spell written for them.

source    finds the runs of a tracker in a path
found     one run that was found, with its metrics and files
words     names, parameters and labels of other trackers as those of a spec
mlflow    runs of MLflow: its database, or the folder `mlruns`
wandb     offline runs of Weights & Biases
trackio   runs of Trackio
mlflow_database  writes runs into a database of MLflow
"""
