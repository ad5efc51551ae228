"""What an environment is built on, and where the programs of its build run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Runner(ABC):
    """Where the programs of a build run: this machine, or a container."""

    @abstractmethod
    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        process_file: Path,
        output: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> int:
        """Run a command to its end. Returns its exit code. Leaves no process behind, however this ends.

        Args:
            command: program and arguments; paths are those of this machine.
            cwd: its working directory.
            env: all its environment variables.
            process_file: a file that names the process or container while it lives, so that a later server can end it.
            output: called with its output as it comes.
            cancelled: called many times a second.

        Raises:
            BuildCancelled: when cancelled.
            BuildFailed: when it could not be started.
        """


@dataclass(frozen=True, slots=True)
class Base:
    """What an environment is built on.

    Attributes:
        runner: runs the programs of its build.
        image: the engine's ID of the image (`sha256:…`); "" for this machine.
        python: the path of the image's Python; "" for this machine, where uv looks for the wanted one.
        path: the image's own PATH; "" for this machine.
        pythonpath: the image's own PYTHONPATH.
        variables: the names of the variables that the image sets.
    """

    runner: Runner
    image: str = ""
    python: str = ""
    path: str = ""
    pythonpath: str = ""
    variables: frozenset[str] = frozenset()
