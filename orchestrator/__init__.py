"""spell: numbered runs of machine-learning commands, with their code, environment, log and outputs kept.

from orchestrator import RunSpec, connect

with connect() as client:
    number = client.runs.cast(RunSpec(command="python train.py")).number

The rooms, in the order in which a run meets them:

cli/           reads what a person types, and shows what happens
spec/          turns it into a spec, and checks it
capture/       captures the code of the folder
trackers/      brings runs of other trackers, and takes runs there
pyproject/     finds the environment that the code says
client/        casts the run: sends spec and code to the server; the Python API
assistants/    lets programs that write code do all this: a skill, and a server of tools
server/        receives the request; `spelld`, one process for each home
service/       the verbs that a route calls: cast, list, stop, …
controllers/   cast the runs of workflows and searches, and send webhooks
lifecycle/     leads each run from the queue to its final state
environments/  builds its Python packages
images/        builds its base image with apt packages
executors/     start its command, as a process or in a container
engine/        the Docker engine behind images and containers
supervisor/    stays beside its command, masks its log, and writes its verdict
inside/        lets it install packages, into a layer of its own
runtime        is imported by its code, and sends metrics
telemetry/     reads its log, metrics and usage
data/          saves its outputs, and keeps uploads, code and secrets
content/       files by content: manifests, packs and hashes
formats/       readers of the files that its code may write for a tracker of experiments
store/         records it in SQLite
records/       the answers of the server about it
states         its states, legal moves and end reasons
errors         all errors, with their exit codes
home           the paths of all files
config         config.toml
machine        the cores, memory and GPUs of this machine
loops          the base of all background loops

Inside a run only this file and `runtime.py` can be imported, by whatever Python the run has; and a container waits for the
supervisor that imports it. So it loads nothing before somebody asks for a name, and works from Python 3.6 on.
"""

__version__ = "0.1.0"

__all__ = [
    "BuildFailed",
    "Choice",
    "Client",
    "CodeFailed",
    "Conflict",
    "ConnectionLost",
    "DiskFull",
    "ExecutorFailed",
    "Filter",
    "Home",
    "HomeUnusable",
    "ImpossibleRequest",
    "InvalidCommit",
    "InvalidConfig",
    "InvalidRepository",
    "Mount",
    "MountFailed",
    "NotFound",
    "PhaseFailed",
    "Position",
    "Range",
    "RunSpec",
    "SaveFailed",
    "SearchSpec",
    "SecretLost",
    "ServerUnavailable",
    "SnapshotMissing",
    "SpellError",
    "StaleFence",
    "Step",
    "StoreBusy",
    "UploadLost",
    "UsageError",
    "VersionMismatch",
    "WorkflowSpec",
    "__version__",
    "checkpoint_dir",
    "connect",
    "on_stop",
    "send_metric",
]

TYPE_CHECKING = False  # type checkers take it for true; to import typing would take longer than all else here

if TYPE_CHECKING:
    from orchestrator.client.client import Client, connect
    from orchestrator.errors import (
        BuildFailed,
        CodeFailed,
        Conflict,
        ConnectionLost,
        DiskFull,
        ExecutorFailed,
        HomeUnusable,
        ImpossibleRequest,
        InvalidCommit,
        InvalidConfig,
        InvalidRepository,
        MountFailed,
        NotFound,
        PhaseFailed,
        SaveFailed,
        SecretLost,
        ServerUnavailable,
        SnapshotMissing,
        SpellError,
        StaleFence,
        StoreBusy,
        UploadLost,
        UsageError,
        VersionMismatch,
    )
    from orchestrator.home import Home
    from orchestrator.records.position import Position
    from orchestrator.runtime import checkpoint_dir, on_stop, send_metric
    from orchestrator.spec.filters import Filter
    from orchestrator.spec.mounts import Mount
    from orchestrator.spec.run import RunSpec
    from orchestrator.spec.search import Choice, Range, SearchSpec
    from orchestrator.spec.workflow import Step, WorkflowSpec
else:
    import posix  # both are there before a Python loads anything, which os is not
    import sys

    _IN_RUNS = ("send_metric", "checkpoint_dir", "on_stop")
    _PLACES = {
        "client.client": ("Client", "connect"),
        "home": ("Home",),
        "records.position": ("Position",),
        "runtime": _IN_RUNS,
        "spec.filters": ("Filter",),
        "spec.mounts": ("Mount",),
        "spec.run": ("RunSpec",),
        "spec.search": ("Choice", "Range", "SearchSpec"),
        "spec.workflow": ("Step", "WorkflowSpec"),
    }
    _MODULES = {name: module for module, names in _PLACES.items() for name in names}  # all others are errors
    _OUTSIDE = tuple(__all__)

    try:
        posix.stat(f"{__path__[0]}/client")
    except OSError:  # inside a run
        __all__[:] = ["__version__", *_IN_RUNS]
        if sys.version_info < (3, 7):  # noqa: UP036 - of a run; it asks no module for `__getattr__`
            from orchestrator.runtime import checkpoint_dir, on_stop, send_metric

    def __getattr__(name: str) -> object:
        """Load what is asked for (PEP 562)."""
        if name not in __all__:
            raise _refusal(name)
        from importlib import import_module  # 1 ms, which the supervisor of a run need not wait for

        value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value

    def _refusal(name: str) -> Exception:
        """Return the error for a name that is not here. Called by `__getattr__` only: it looks at the caller of that."""
        if name not in _OUTSIDE:
            return AttributeError(f"module {__name__!r} has no attribute {name!r}")
        words = (
            f"{name} is not available inside a run, where orchestrator has only {', '.join(_IN_RUNS)}. "
            "Use it in a program that runs outside."
        )
        # `from orchestrator import …` asks from this function, and would replace the words of an AttributeError; all
        # others (hasattr, inspect, pickle) expect one.
        is_import = sys._getframe(2).f_code.co_name == "_handle_fromlist"  # noqa: SLF001 - a documented function
        return ImportError(words) if is_import else AttributeError(words)

    def __dir__() -> "list[str]":
        """What there is, loaded or not."""
        return sorted({*globals(), *__all__})
