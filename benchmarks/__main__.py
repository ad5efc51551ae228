"""`python -m benchmarks [NAME…]`: run all benchmarks, or the named ones, and print a Markdown table. The exit code is 1 if
a measurement exceeds its limit."""

from __future__ import annotations

import sys

from benchmarks import containers, cores
from benchmarks.commands import commands
from benchmarks.compare import compare
from benchmarks.environments import environments
from benchmarks.folders import folders
from benchmarks.logs import logs
from benchmarks.many_runs import many_runs
from benchmarks.measure import bench
from benchmarks.projects import found_environment, projects
from benchmarks.reuse import reuse
from benchmarks.server import server
from benchmarks.throughput import big_files, burst
from benchmarks.uploads import uploads

ALL = {
    "commands": commands,
    "burst": burst,
    "big_files": big_files,
    "environments": environments,
    "projects": projects,
    "found_environment": found_environment,
    "folders": folders,
    "logs": logs,
    "server": server,
    "reuse": reuse,
    "many_runs": many_runs,
    "uploads": uploads,
    "compare": compare,
    "cores": cores.cores,
    "containers": containers.containers,
    "container_burst": containers.burst,
    "container_environments": containers.environments,
}
_PROCESSES = f'executor = "process"\n{cores.TYPE}'


def main(names: list[str]) -> int:
    """Run the benchmarks, print the table and return the exit code."""
    unknown = sorted(set(names) - set(ALL))
    if unknown:
        sys.stderr.write(f"There is no benchmark {unknown[0]!r}. Use one of: {', '.join(ALL)}.\n")
        return 2
    print("| what | measured | limit | holds |\n| --- | --- | --- | --- |", flush=True)
    held = True
    for name in names or ALL:
        with bench(containers.CONFIG if name.startswith("container") else _PROCESSES) as made:
            for row in ALL[name](made):
                held = held and row.holds
                print(f"| {row.what} | {row.measured} | {row.limit} | {'yes' if row.holds else 'NO'} |", flush=True)
    return 0 if held else 1


sys.exit(main(sys.argv[1:]))
