"""How many small faults the tests notice: mutmut changes one thing at a time in some modules, and runs their tests.

    make mutation                                        this tree: a table
    python -m benchmarks.mutation --json after.json      … and every mutant
    python -m benchmarks.mutation --tree PATH --json before.json
    python -m benchmarks.mutation --compare before.json after.json

The last command fails if a mutant survives that was killed before. A mutant is named by its module, its function and the
lines that it changes, so that code may move. Only modules whose tests need no server are mutated, because a mutant then
takes a second, not a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parents[1]
# name → path, and path before the rooms
MODULES = {
    "errors": ("orchestrator/errors.py",),
    "states": ("orchestrator/states.py",),
    "spec/run": ("orchestrator/spec/run.py", "orchestrator/spec.py"),
    "spec/conditions": ("orchestrator/spec/conditions.py", "orchestrator/conditions.py"),
    "spec/search": ("orchestrator/spec/search.py", "orchestrator/search_space.py"),
    "spec/workflow": ("orchestrator/spec/workflow.py", "orchestrator/workflow_spec.py"),
    "spec/jobfile": ("orchestrator/spec/jobfile.py", "orchestrator/jobfile.py"),
    "spec/workflowfile": ("orchestrator/spec/workflowfile.py", "orchestrator/workflow_file.py"),
}
TESTS = ("errors", "states", "spec", "conditions", "search_space", "jobfile", "workflow_file")
KILLED = ("killed", "timeout", "segfault")
Found = dict[str, dict[str, str]]
"""Module → change → status, in mutmut's words."""


def measure(tree: Path, modules: Mapping[str, tuple[str, ...]] = MODULES) -> Found:
    """Mutate these modules in a copy of a tree. Returns every mutant."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=tree).decode().split("\0")[:-1]:
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / name, target)
        paths = {name: _place(known) for name, known in modules.items()}
        _configure([*paths.values()])
        subprocess.run([sys.executable, "-m", "mutmut", "run", "--max-children", str(os.cpu_count())], check=True)
        return {name: dict(_mutants(path)) for name, path in paths.items()}


def _place(known: tuple[str, ...]) -> str:
    found = [path for path in known if Path(path).exists()]
    return found[0] if found else sys.exit(f"none of {known} is there: tell MODULES where it lies now")


def _configure(paths: list[str]) -> None:
    """Write mutmut's configuration, and mutate once."""
    others = [path.name for path in Path().iterdir() if path.name not in {"orchestrator", "tests", "pyproject.toml"}]
    settings = {
        "source_paths": ["orchestrator"],
        "only_mutate": paths,
        "also_copy": others,
        "pytest_add_cli_args_test_selection": [f"tests/test_{name}.py" for name in TESTS],
        "pytest_add_cli_args": ["-p", "no:xdist", "-p", "no:rerunfailures", "-p", "no:cacheprovider"],
        "timeout_constant": 30.0,  # seconds, so that a busy machine does not count as a killed mutant
        "track_dependencies": False,  # the folder is used once
        "use_git_change_detection": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    with Path("pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def _mutants(path: str) -> Iterator[tuple[str, str]]:
    """Yield change and status of every mutant of a file in the working folder."""
    codes = json.loads(Path("mutants", f"{path}.meta").read_text())["exit_code_by_key"]
    seen: Counter[str] = Counter()
    for key, code in codes.items():
        lines = get_diff_for_mutant(key, path=path).splitlines()[2:]
        changed = " ".join(" ".join(line.split()) for line in lines if line[:1] in {"-", "+"})
        name = f"{key.rpartition('.')[2].partition('__mutmut_')[0]}: {changed}"
        seen[name] += 1
        yield f"{name} ({seen[name]})", status_by_exit_code[code]


def table(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return a Markdown table of mutants, killed and surviving ones, by module."""
    rows = [(name, len(states), sum(state in KILLED for state in states.values())) for name, states in found.items()]
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    lines = [f"| {name} | {count} | {killed} | {count - killed} |" for name, count, killed in rows]
    return "\n".join(["| module | mutants | killed | survive |", "| --- | ---: | ---: | ---: |", *lines])


def compare(before: Found, after: Found) -> int:
    """Print both tables, and which mutants survive that were killed. Returns the exit code."""
    anywhere = {mutant: state for states in before.values() for mutant, state in states.items()}
    pairs = [
        (f"{module}: {mutant}", before.get(module, {}).get(mutant) or anywhere.get(mutant), state)
        for module, states in after.items()
        for mutant, state in states.items()
    ]
    both = [pair for pair in pairs if pair[1]]
    weaker = [name for name, old, new in both if old in KILLED and new not in KILLED]
    print(f"before\n\n{table(before)}\n\nafter\n\n{table(after)}\n\n{len(both)} mutants are in both")
    print(f"{len(weaker)} survive that were killed", *weaker, sep="\n  ")
    return 1 if weaker else 0


def main() -> int:
    """Measure, or compare two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="git work tree (default: this one)")
    parser.add_argument(
        "--only", nargs="+", choices=MODULES, default=[*MODULES], metavar="MODULE", help="of: %(choices)s"
    )
    parser.add_argument("--json", type=Path, help="write every mutant to this file")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    options = parser.parse_args()
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in options.compare)
        return compare(before, after)
    target = options.json.absolute() if options.json else None
    found = measure(options.tree.absolute(), {name: MODULES[name] for name in options.only})
    if target:
        target.write_text(json.dumps(found, indent=1))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
