"""The tools that change something, of `spell mcp --write`. None removes anything: no kill, rm, gc.

A run is cast by the command line itself, in a process of its own: so it finds code, environment and job file as the person's
`spell run` does, and says the same words.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.assistants import answers
from orchestrator.client.client import Client
from orchestrator.errors import SpellError, UsageError

_LIMIT_S = 600.0  # to capture and send the code
_CAST_ONLY = ("--save-command", "--from-file", "-b", "--background", "--json")


class Changing:
    """The tools that change something."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def tools(self) -> Sequence[Callable[..., Any]]:
        """Return them all."""
        return (self.cast_run, self.rerun_run, self.resume_run, self.stop_run, self.label_run)

    def cast_run(self, command: str, options: list[str] | None = None, folder: str = ".") -> str:
        """Cast a run in the background: what `spell run -b OPTIONS COMMAND` does in a folder. The answer has its number.

        Args:
            command: a line for the shell, as the person would type it.
            options: of `spell run`, a word each, such as ["--name", "lr-3", "-t", "gpu", "-m", "runs/2/data.txt"].
            folder: whose code runs; by default that in which this server was started.
        """
        if refused := [word for word in options or () if word.partition("=")[0] in _CAST_ONLY]:
            raise UsageError(
                f"{refused[0]} is not for casts of an assistant.", "Leave it out; the run goes to the background."
            )
        return self._spell(folder, "run", "--background", "--force", *(options or ()), "--", command)

    def rerun_run(self, run: str, options: list[str] | None = None) -> str:
        """Cast a run again with the same code, packages, image and mounts. The answer has the new number.

        Args:
            run: its number, its name, latest or latest~1.
            options: of `spell rerun` that change something, a word each, such as ["--param", "lr=0.1"].
        """
        return self._spell(".", "rerun", "--background", *(options or ()), "--", run)

    def resume_run(self, run: str, options: list[str] | None = None) -> str:
        """Cast a run that has ended again, beginning with a copy of its checkpoints. The answer has the new number.

        Args:
            run: its number, its name, latest or latest~1.
            options: of `spell resume` that change something, a word each, such as ["--timeout", "8h"].
        """
        return self._spell(".", "resume", "--background", *(options or ()), "--", run)

    def stop_run(self, run: str) -> str:
        """Stop a run; its outputs are kept.

        Args:
            run: its number, its name, latest or latest~1.
        """
        number = self._client.runs.get(run).number
        return f"Run {number} is {self._client.runs.stop(number)} now, or will be: wait_for_run tells."

    def label_run(self, run: str, labels: list[str], remove: bool = False) -> str:  # noqa: FBT001, FBT002 - by name
        """Add labels to a run, or remove them.

        Args:
            run: its number, its name, latest or latest~1.
            labels: words.
            remove: whether to remove them.
        """
        change = self._client.labels.remove if remove else self._client.labels.add
        found = change(run, labels)
        return f"Run {found.number} has the labels: {', '.join(found.labels) or 'none'}"

    def _spell(self, folder: str, *words: str) -> str:
        """Run a command of `spell`, and return what it says.

        Raises:
            SpellError: with its words, if it fails.
        """
        command = [sys.executable, "-m", "orchestrator.cli.main", *words]
        home = str(self._client.transport.home.root)
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "SPELL_HOME": home},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LIMIT_S,
                check=False,
            )
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror}.", "Name a folder that exists.") from error
        except subprocess.TimeoutExpired:
            raise SpellError(
                f"spell {words[0]} took longer than {_LIMIT_S:.0f} s.", "See what was cast: list_runs"
            ) from None
        said = answers.text(f"{done.stdout}{done.stderr}".strip(), answers.MOST_BYTES, "")
        if done.returncode:
            raise SpellError(said or f"spell {words[0]} ended with {done.returncode}.")
        return said
