"""The docker executor: a container for each run."""
