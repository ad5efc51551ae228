"""One small process per run that outlives spelld. It uses only the standard library, so it starts fast.

Each run in a container waits until Python and the reaper's imports are loaded, so the reaper imports little: no json,
contextlib, functools or typing (it defines TYPE_CHECKING itself), and `_signal` instead of signal.

forkserver    forks supervisors
main          the supervisor: claims the attempt, makes the private namespaces, forwards signals, writes the verdict
container     supervisor and reaper in one process, as process 1 of a container
reaper        the parent of the command: starts it, reaps, TERM → grace → KILL, time limit
verdict       how the command ended
log_limit     keeps a log below its size limit
log_times     records when the log grew
masking       replaces secrets in the log by `***`
beside        runs an additional command in the namespaces of a process run
gpus          checks that a run sees the GPUs that it was given
secrets_pipe  passes the secrets of a run through a pipe
isolation     mount and process namespaces
identity      identifies a process by boot id and start time, never by its pid alone
old_python    lets Python 3.6, of an old image, load all this
"""

import sys

if sys.version_info < (3, 7):  # noqa: UP036 - in a container
    from orchestrator.supervisor import old_python

    old_python.install()
