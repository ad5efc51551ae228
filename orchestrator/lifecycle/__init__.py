"""The life of a run, from the queue to its final state.

scheduler      finds a machine for each run, in the order of casting
waiting        what queued runs wait for, in words
life           leads one run from its claim to its final state
context        store, home and tools that every life needs
workdir        the work dir of a run, and its checkpoints
checkpoints    copies the checkpoints of an earlier run
mount_views    what the mounts of a run show
variables      the environment variables of a run
threads        those that say how many threads its libraries start
trackers       those by which trackers of experiments log into the work dir
runtime_files  what every run has beside its own: `orchestrator.runtime`, spell, pip, uv
outcome        decides how a run has ended
notices        what followers are told when its command has ended, or the home was moved
retry          decides whether a failed run is tried again
release        frees the machine of a run
copied         ends in a copy of a home what is active in the original
watchdog       stops runs that meet a stop condition or do nothing
"""
