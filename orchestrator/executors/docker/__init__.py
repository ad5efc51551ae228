"""The docker executor: a container for each run.

executor  starts, recovers and ends attempts
places    where a container sees what its run is given
files     the files that a container and spelld share
exit      finds out whether and how a container has ended
report    waits for the first report of a container's reaper
usage     what a run in a container uses now
exec      an additional command in the container of a run
ports     connections to the ports of a container
checks    what `spell doctor` reports about the engine
"""
