"""A Python that has imported torch and transformers once, and runs each script in a fork of itself.

Importing them takes as long as most smoke settings: this is what the tests of the jokes' scripts save. What runs is the
script itself, as `__main__`, with its own arguments, folder, variables, output and exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class WarmPython:
    """Runs scripts one after the other, as `subprocess.run([python, script, *args])` does."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder

    def run(
        self, script: Path, args: Sequence[str], cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        assert self._process.stdin and self._process.stdout
        out, err = self._folder / "out", self._folder / "err"
        asked = {"argv": [str(script), *args], "cwd": str(cwd), "env": dict(env), "out": str(out), "err": str(err)}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the warm Python has ended"
        code = os.waitstatus_to_exitcode(int(answer))
        return subprocess.CompletedProcess(asked["argv"], code, out.read_text(), err.read_text())


@contextlib.contextmanager
def warm_python(python: str, env: Mapping[str, str]) -> Iterator[WarmPython]:
    """Start one; its variables are what torch reads when it is imported, such as the number of threads."""
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([python, __file__], env=dict(env), stdin=pipe, stdout=pipe, text=True) as process,
    ):
        yield WarmPython(process, Path(folder))
        assert process.stdin
        process.stdin.close()


def _serve() -> None:
    import torch  # noqa: F401
    import transformers

    for name in ("AutoTokenizer", "GPT2LMHeadModel", "GPT2TokenizerFast", "set_seed"):
        getattr(transformers, name)  # transformers imports what a name needs when it is used

    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            _become(asked)
        print(os.waitpid(pid, 0)[1], flush=True)


def _become(asked: dict[str, Any]) -> None:
    for number, path in ((1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv = asked["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # as the interpreter does at its end
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
