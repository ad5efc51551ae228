"""`spell tensorboard`: the event files of runs, in a TensorBoard of this machine that follows them.

The TensorBoard is a process of this terminal, over copies of the event files, and not a run: a run waits for a free machine, which the
training holds, and sees only what other runs have kept. The copies come through the API, as with `spell cp`, so that it makes
no difference where the server is and in what a run runs. Only what was appended to a file is written again.

TensorBoard knows no passwords. Its path holds a token instead, which it gets through a pipe: no list of processes shows it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import click
from uv import find_uv_bin

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.cli.output.browser import browse
from orchestrator.cli.output.detach import INTERRUPTED
from orchestrator.client.client import Client, connect
from orchestrator.client.ports import LOOPBACK
from orchestrator.errors import Conflict, NotFound, SpellError
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.mounts import relative_parts
from orchestrator.states import FINAL

USUAL_PORT = 6006
PACKAGE = "tensorboard>=2.16,<3"
_MARK = "tfevents"
_LOOK_S = 2.0
_END_LIMIT_S = 5.0
_PROGRAM = """
import json, os, sys, threading
from tensorboard import program
board = program.TensorBoard()
board.configure(argv=["tensorboard", *json.loads(sys.stdin.readline())])
print(board.launch(), flush=True)
sys.stdin.read()  # until spell has gone
os._exit(0)
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=complete.runs)
@click.option("--port", type=click.IntRange(0, 65535), help="Port of this machine. [default: 6006, or a free one]")
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
@click.pass_context
def tensorboard(ctx: click.Context, runs: Sequence[str], port: int | None, open_: bool) -> None:
    """Show the event files of runs in TensorBoard, until ^C is pressed; those that a running run writes as they grow."""
    with connect() as client, tempfile.TemporaryDirectory(prefix="spell-") as aside:
        folder = Path(aside, "runs")
        folder.mkdir()
        copies = [_Copy(client, client.runs.get(run), folder) for run in runs]
        for copy in copies:
            copy.update()
        if all(copy.is_final and not copy.has_files for copy in copies):
            numbers = ", ".join(str(copy.number) for copy in copies)
            raise NotFound(
                f"Run {numbers} has kept no event files of TensorBoard.", f"See what: spell ls runs/{copies[0].number}"
            )
        try:
            with _board(folder, port) as (process, url):
                show.say(f"✨ TensorBoard: {url}")
                show.say("✨ Close with ^C")
                if open_:
                    browse(url, Path(aside))
                _keep(copies, process)
        except KeyboardInterrupt:
            show.say("\n✨ TensorBoard is closed; the runs and their files stay.", err=True)
            ctx.exit(INTERRUPTED)


class _Copy:
    """The copies of one run's event files, below a folder of its number and name."""

    def __init__(self, client: Client, run: RunSummary, folder: Path) -> None:
        self._client, self.number = client, run.number
        self._folder = folder / "-".join(filter(None, (str(run.number), run.name)))
        self.is_final = self.has_files = False
        self._told = False

    def update(self) -> None:
        """Copy what has been written since the last time."""
        if self.is_final:
            return
        is_over = self._client.runs.get(self.number).state in FINAL
        with contextlib.suppress(Conflict, NotFound):  # it has no files yet, or is just being saved
            for path, size in list(self._files("")):
                self._copy(path, size)
        self.is_final = is_over
        if not self.has_files and not self._told:
            self._told = True
            show.say(
                f"Run {self.number} has {'kept' if is_over else 'written'} no event files{'' if is_over else ' yet'}.",
                err=True,
            )

    def _files(self, folder: str) -> Iterator[tuple[str, int]]:
        for item in self._client.resources.list(f"runs/{self.number}{folder}"):
            path = f"{folder}/{item.path}"
            if item.is_dir and not item.link:
                yield from self._files(path)
            elif _MARK in item.path:
                yield path, item.size

    def _copy(self, path: str, size: int) -> None:
        relative_parts(path[1:], "The event file")
        target = self._folder / path[1:]
        self.has_files = True
        known = target.stat().st_size if target.exists() else 0
        if size == known and known:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as file:
            if size < known:  # it was written anew
                file.truncate(0)
                known = 0
            for chunk in self._client.resources.download(f"runs/{self.number}{path}").chunks:
                file.write(chunk[known:])
                known = max(0, known - len(chunk))


def _keep(copies: Sequence[_Copy], process: subprocess.Popen[str]) -> None:
    """Keep the copies as the files are, until TensorBoard ends."""
    while process.poll() is None:
        for copy in copies:
            copy.update()
        time.sleep(_LOOK_S)
    raise SpellError(f"TensorBoard has ended by itself, with exit code {process.returncode}.")


@contextlib.contextmanager
def _board(folder: Path, port: int | None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a TensorBoard over a folder. Yields it, and its URL."""
    number = _free(port)
    argv = ["--logdir", str(folder), "--host", LOOPBACK, "--port", str(number), "--reload_interval", "2"]
    argv += ["--path_prefix", f"/tensorboard/{secrets.token_hex(16)}", "--load_fast", "false"]
    with (
        (folder.parent / "log").open("w+") as log,
        subprocess.Popen(
            [*_python(), "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"{json.dumps(argv)}\n")
                process.stdin.flush()
            if not (url := process.stdout.readline().strip()):
                log.seek(0)
                raise SpellError(
                    f"TensorBoard did not start: {(log.read().strip().splitlines() or ['it wrote no error'])[-1]}",
                    f"Install it where spell is installed: {sys.executable} -m pip install tensorboard",
                )
            yield process, url
        finally:
            process.stdin.close()  # it ends then
            try:
                process.wait(_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _python() -> list[str]:
    """The beginning of a command for a Python that has TensorBoard: ours, else one that uv makes and keeps in its cache."""
    if find_spec("tensorboard"):
        return [sys.executable]
    return [find_uv_bin(), "tool", "run", "--python", sys.executable, "--from", PACKAGE, "python"]


def _free(port: int | None) -> int:
    """The port that was typed, if it is free; else the usual one or any."""
    for number in (USUAL_PORT, 0) if port is None else (port,):
        try:
            with socket.create_server((LOOPBACK, number)) as found:
                return int(found.getsockname()[1])
        except OSError as error:
            reason = error.strerror
    raise Conflict(
        f"Port {port} of this machine cannot be taken: {reason}.", "Take another one: --port NUMBER, or --port 0."
    )
