"""Projects: each run belongs to at most one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from orchestrator.errors import Conflict, NotFound
from orchestrator.records.projects import ProjectRecord
from orchestrator.states import ACTIVE
from orchestrator.store.database import Database
from orchestrator.store.tables import projects, runs

_SEE = "See them with: spell project list"


class ProjectStore:
    """Projects of one home. Their names are found regardless of case."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(self, name: str, description: str, numbers: Sequence[int]) -> ProjectRecord:
        """Make a project with these runs.

        Raises:
            Conflict: when a project of that name exists.
        """
        with self._db.write() as connection:
            _see_that_it_is_free(connection, name)
            values = {"name": name, "description": description, "archived": False, "created_at": time.time()}
            connection.execute(insert(projects).values(**values))
            _put(connection, _find(connection, name).id, numbers)
            return _record(connection, name)

    def edit(self, name: str, new_name: str | None, description: str | None) -> ProjectRecord:
        """Change the name or description of a project; None keeps the present one.

        Raises:
            NotFound: when it does not exist.
            Conflict: when a project of the new name exists.
        """
        with self._db.write() as connection:
            found = _find(connection, name)
            if new_name is not None:
                _see_that_it_is_free(connection, new_name, but=found.id)
            values = {"name": new_name, "description": description}
            given = {key: value for key, value in values.items() if value is not None}
            if given:
                connection.execute(update(projects).where(projects.c.id == found.id).values(**given))
            return _record(connection, new_name or name)

    def archive(self, name: str, *, archived: bool) -> ProjectRecord:
        """Archive or unarchive a project. Its runs do not change.

        Raises:
            NotFound: when it does not exist.
            Conflict: when it already is as wanted.
        """
        with self._db.write() as connection:
            found = _find(connection, name)
            if found.archived == archived:
                raise Conflict(f"Project {found.name!r} is {'already' if archived else 'not'} archived.")
            connection.execute(update(projects).where(projects.c.id == found.id).values(archived=archived))
            return _record(connection, name)

    def add_runs(self, name: str, numbers: Sequence[int]) -> ProjectRecord:
        """Move runs into this project, out of any other.

        Raises:
            NotFound: when the project does not exist.
            Conflict: when it is archived.
        """
        with self._db.write() as connection:
            _put(connection, open_project(connection, name), numbers)
            return _record(connection, name)

    def remove_runs(self, name: str, numbers: Sequence[int]) -> ProjectRecord:
        """Remove runs from this project. Nothing changes when one of them is not in it.

        Raises:
            NotFound: when the project does not exist.
            Conflict: when a run is not in it.
        """
        with self._db.write() as connection:
            found = _find(connection, name)
            for number in numbers:
                this = (runs.c.number == number, runs.c.project == found.id)
                if not connection.execute(update(runs).where(*this).values(project=None)).rowcount:
                    raise Conflict(f"Run {number} is not in project {found.name!r}.")
            return _record(connection, name)

    def get(self, name: str) -> ProjectRecord:
        """Return one project.

        Raises:
            NotFound: when it does not exist.
        """
        with self._db.read() as connection:
            return _record(connection, name)

    def require(self, name: str) -> None:
        """Check that a run can be cast into this project. Raises as `add_runs`."""
        with self._db.read() as connection:
            open_project(connection, name)

    def list(self, *, archived: bool) -> list[ProjectRecord]:
        """Return all projects that are (or are not) archived, oldest first."""
        query = _records().where(projects.c.archived == archived).order_by(projects.c.id)
        with self._db.read() as connection:
            return [ProjectRecord(**row._mapping) for row in connection.execute(query)]


def open_project(connection: Connection, name: str) -> int:
    """Return the id of a project that is not archived.

    Raises:
        NotFound: when it does not exist.
        Conflict: when it is archived.
    """
    found = _find(connection, name)
    if found.archived:
        raise Conflict(f"Project {found.name!r} is archived.", f"Bring it back: spell project unarchive '{found.name}'")
    return int(found.id)


def _find(connection: Connection, name: str) -> Row[Any]:
    found = connection.execute(select(projects).where(projects.c.name == name)).one_or_none()
    if found is None:
        raise NotFound(
            f"A project named {name!r} could not be found.", f"Create it: spell project create '{name}'. {_SEE}"
        )
    return found


def _see_that_it_is_free(connection: Connection, name: str, *, but: int = 0) -> None:
    query = select(projects).where(projects.c.name == name, projects.c.id != but)
    found = connection.execute(query).one_or_none()
    if found is not None:
        where = " and is archived" if found.archived else ""
        raise Conflict(
            f"Project {found.name!r} already exists{where}.", _SEE + (" --archived" if found.archived else "")
        )


def _put(connection: Connection, project: int, numbers: Sequence[int]) -> None:
    for number in numbers:
        connection.execute(update(runs).where(runs.c.number == number).values(project=project))


def _record(connection: Connection, name: str) -> ProjectRecord:
    row = connection.execute(_records().where(projects.c.id == _find(connection, name).id)).one()
    return ProjectRecord(**row._mapping)


def _records() -> Any:
    of_this = select(func.count()).where(runs.c.project == projects.c.id)
    return select(
        projects.c.name,
        projects.c.description,
        projects.c.archived,
        of_this.scalar_subquery().label("runs"),
        of_this.where(runs.c.state.in_(list(ACTIVE))).scalar_subquery().label("active_runs"),
        projects.c.created_at,
    )
