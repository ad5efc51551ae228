"""The Python API: the verbs of the HTTP API by noun, typed.

with connect() as client:
    number = client.runs.cast(RunSpec(command="true")).number
    for item in client.runs.follow(str(number)):
        ...
"""

from __future__ import annotations

from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchestrator.client.transport import Transport
from orchestrator.home import Home, default_home

if TYPE_CHECKING:
    from orchestrator.client.archive import Archive
    from orchestrator.client.code import Code
    from orchestrator.client.compare import Compare
    from orchestrator.client.doctor import Doctor
    from orchestrator.client.environments import Environments
    from orchestrator.client.exec import Exec
    from orchestrator.client.export import Export
    from orchestrator.client.gc import Gc
    from orchestrator.client.images import Images
    from orchestrator.client.imports import Imports
    from orchestrator.client.labels import Labels
    from orchestrator.client.lineage import Lineage
    from orchestrator.client.links import Links
    from orchestrator.client.logs import Logs
    from orchestrator.client.machines import Machines
    from orchestrator.client.metrics import Metrics
    from orchestrator.client.ports import Ports
    from orchestrator.client.projects import Projects
    from orchestrator.client.resources import Resources
    from orchestrator.client.runs import Runs
    from orchestrator.client.searches import Searches
    from orchestrator.client.secrets import Secrets
    from orchestrator.client.server import Server
    from orchestrator.client.stats import Stats
    from orchestrator.client.uploads import Uploads
    from orchestrator.client.verify import Verify
    from orchestrator.client.workflows import Workflows


class Client:
    """A client of one server, and a context manager.

    Methods that take a `reference` accept a run's number (as a number or text), its name, `latest` or `latest~1`.

    Args:
        home: of the server.
        start: whether to start a server if none answers.
    """

    def __init__(self, home: Home, *, start: bool = True) -> None:
        self.transport = Transport(home, start=start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    # The nouns are loaded late: all together take 100 ms, and a command needs one or two of them.

    @cached_property
    def runs(self) -> Runs:
        """Numbered runs."""
        from orchestrator.client.runs import Runs  # 3 ms

        return Runs(self.transport)

    @cached_property
    def code(self) -> Code:
        """The code of runs."""
        from orchestrator.client.code import Code  # 1 ms

        return Code(self.transport)

    @cached_property
    def logs(self) -> Logs:
        """Logs of runs."""
        from orchestrator.client.logs import Logs  # 9 ms

        return Logs(self.transport)

    @cached_property
    def metrics(self) -> Metrics:
        """Metrics that runs sent with `send_metric`."""
        from orchestrator.client.metrics import Metrics  # 9 ms

        return Metrics(self.transport)

    @cached_property
    def stats(self) -> Stats:
        """Current CPU, memory and GPU use of runs."""
        from orchestrator.client.stats import Stats  # 7 ms

        return Stats(self.transport)

    @cached_property
    def labels(self) -> Labels:
        """Labels of runs."""
        from orchestrator.client.labels import Labels  # 2 ms

        return Labels(self.transport)

    @cached_property
    def archive(self) -> Archive:
        """Runs that lists hide, and that are kept."""
        from orchestrator.client.archive import Archive  # 2 ms

        return Archive(self.transport)

    @cached_property
    def environments(self) -> Environments:
        """Environments that runs would get."""
        from orchestrator.client.environments import Environments  # 2 ms

        return Environments(self.transport)

    @cached_property
    def exec(self) -> Exec:
        """Commands in the containers of running runs."""
        from orchestrator.client.exec import Exec  # 41 ms

        return Exec(self.transport)

    @cached_property
    def ports(self) -> Ports:
        """Ports that runs listen on."""
        from orchestrator.client.ports import Ports  # 60 ms

        return Ports(self.transport)

    @cached_property
    def compare(self) -> Compare:
        """Differences between runs."""
        from orchestrator.client.compare import Compare  # 7 ms

        return Compare(self.transport)

    @cached_property
    def lineage(self) -> Lineage:
        """Runs that a run mounted, and runs that mounted it."""
        from orchestrator.client.lineage import Lineage  # 7 ms

        return Lineage(self.transport)

    @cached_property
    def verify(self) -> Verify:
        """Checks of outputs against their recorded hashes."""
        from orchestrator.client.verify import Verify  # 7 ms

        return Verify(self.transport)

    @cached_property
    def export(self) -> Export:
        """Archives that run without spell."""
        from orchestrator.client.export import Export  # 1 ms

        return Export(self.transport)

    @cached_property
    def imports(self) -> Imports:
        """Runs of other trackers."""
        from orchestrator.client.imports import Imports  # 9 ms

        return Imports(self.transport)

    @cached_property
    def resources(self) -> Resources:
        """Outputs, uploads and targets of links."""
        from orchestrator.client.resources import Resources  # 2 ms

        return Resources(self.transport)

    @cached_property
    def uploads(self) -> Uploads:
        """Folders and files of a person, for runs to mount."""
        from orchestrator.client.uploads import Uploads  # 4 ms

        return Uploads(self.transport)

    @cached_property
    def links(self) -> Links:
        """Other names of resources."""
        from orchestrator.client.links import Links  # 1 ms

        return Links(self.transport)

    @cached_property
    def secrets(self) -> Secrets:
        """Encrypted values for the commands of runs."""
        from orchestrator.client.secrets import Secrets  # 1 ms

        return Secrets(self.transport)

    @cached_property
    def searches(self) -> Searches:
        """Hyperparameter searches."""
        from orchestrator.client.searches import Searches  # 8 ms

        return Searches(self.transport)

    @cached_property
    def workflows(self) -> Workflows:
        """Runs that need each other's outputs."""
        from orchestrator.client.workflows import Workflows  # 5 ms

        return Workflows(self.transport)

    @cached_property
    def projects(self) -> Projects:
        """Runs that belong together."""
        from orchestrator.client.projects import Projects  # 2 ms

        return Projects(self.transport)

    @cached_property
    def images(self) -> Images:
        """Images with the environment of a spec."""
        from orchestrator.client.images import Images  # 1 ms

        return Images(self.transport)

    @cached_property
    def machines(self) -> Machines:
        """Machine types."""
        from orchestrator.client.machines import Machines  # 3 ms

        return Machines(self.transport)

    @cached_property
    def gc(self) -> Gc:
        """Removal of unused data."""
        from orchestrator.client.gc import Gc  # 1 ms

        return Gc(self.transport)

    @cached_property
    def doctor(self) -> Doctor:
        """Checks of the server's machine."""
        from orchestrator.client.doctor import Doctor  # 3 ms

        return Doctor(self.transport)

    @cached_property
    def server(self) -> Server:
        """The server itself."""
        from orchestrator.client.server import Server  # 3 ms

        return Server(self.transport)


def connect(home: Home | None = None, *, start: bool = True) -> Client:
    """Return a client of a home's server.

    Args:
        home: of the server; by default `$SPELL_HOME`, else `~/.spell`.
        start: whether to start the server if it does not run.
    """
    return Client(home or Home(default_home()), start=start)
