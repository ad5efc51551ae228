"""Takes what a run logs by trackers (TensorBoard, wandb, MLflow, Trackio, Lightning) from their files in its work dir.

A run needs nothing of ours for it, and the server nothing of theirs: `orchestrator/formats/` reads the files. Each file is
read as it grows; how far is recorded together with its values, so that none is lost or doubled when the server is killed.

search    finds the files in a work dir
there     notes what is there before the command
places    opens them, without leaving the work dir
found     what was read of one file
readers   one function for each format
names     how runs of trackers within one run are told apart
pictures  keeps images of event files as outputs
besides   says what they have logged besides metrics
tracked   the files of one run
watcher   the loop over all running runs
"""
