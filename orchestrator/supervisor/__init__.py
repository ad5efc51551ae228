"""One small process per run that outlives spelld. Standard library only: it starts fast and needs no packages.

Each run in a container waits for Python and then for what a reaper loads. So that loads little: neither json, contextlib
and functools, nor signal, whose functions it takes from `_signal`, nor typing, whose TYPE_CHECKING it names itself.

    forkserver    forks supervisors
main       claim the attempt, make the private namespaces, forward signals, write the verdict
container  both of them in one, as process 1 of a container
reaper     the parent of the command: starts it, reaps, TERM → grace → KILL, time limit
log_times  when the log grew
isolation  mount and process namespaces
verdict    how the command ended, as the verdict says it
identity   which process is meant: boot id + start time, never the pid alone
"""
