"""Paths of the things that a run is given: on this machine, and as the run sees them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class GivenPaths:
    """Paths of the things that a run is given, on this machine.

    Attributes:
        code: the root of the code.
        environment: the Python environment.
        layer: the run's own layer over it.
        runtime: the folder of what every run has.
        metrics: the file for the run's metrics.
        bytecode: the folder for byte code; None when the environment is compiled.
    """

    code: Path
    environment: Path
    layer: Path
    runtime: Path
    metrics: Path
    bytecode: Path | None


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Paths of the things that a run is given, as the run sees them.

    Attributes:
        code: the root of the code.
        environment: the Python environment.
        layer: the run's own layer over it.
        runtime: what every run has beside its own; see `lifecycle/runtime_files.py`.
        metrics: the file for the run's metrics.
        pip: the folder that holds spell's own pip.
        bytecode: the folder for byte code; "" when the environment is compiled.
        tools: folders at the front of the PATH.
        path: the rest of the PATH; "" for the server's.
        pythonpath: the PYTHONPATH of the image.
        variables: the names of the variables that the image sets, whose values go before what spell sets by default.
        home: the HOME; "" for the server's.
        certificates: the CA bundle to trust; "" for the one in the server's variables.
        is_host: whether the run sees this machine's files, and so its server and variables that name files.
        caches: the folder of shared caches, and beside it, after a hyphen and a name, other ones; "" where they are on this machine.
    """

    code: str
    environment: str
    layer: str
    runtime: str
    metrics: str
    bytecode: str
    pip: str = ""
    tools: tuple[str, ...] = ()
    path: str = ""
    pythonpath: str = ""
    variables: frozenset[str] = frozenset()
    home: str = ""
    certificates: str = ""
    is_host: bool = True
    caches: str = ""
