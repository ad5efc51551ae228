"""Executors run the commands of runs. All fulfil one contract (`base.Executor`) and pass one test, `tests/test_executors.py`.

base          the contract
running_exec  the contract of an additional command beside that of a run
paths         paths of what a run is given: here, and as the run sees them
process       each run is a process tree on this machine
forkserver    starts its supervisors
beside        an additional command beside that of a process run
shell         the argument list of an additional command
docker/       each run is a container
fake          a scripted executor for tests
mount_points  makes mount points in the work dir
verdict       reads what a supervisor wrote about the end of an attempt
"""
