"""The data that are gathered while a run runs.

logs        reads logs, from an offset on
log_times   reads when a log grew
log_search  finds lines in a log
metrics     takes the metrics that runs send into the store
trackers/   takes what they log by trackers, such as TensorBoard
samples     records what runs use
complaints  logs a repeated failure only once
"""
