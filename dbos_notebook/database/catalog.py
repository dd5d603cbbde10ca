"""The catalog: the tables and columns of a system database, and whether dbos can control it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from dbos_notebook.database import releases
from dbos_notebook.database.reader import Reader, repeat_if_changed
from dbos_notebook.errors import NotDBOSDatabaseError, PermissionDeniedError

_REQUIRED_COLUMNS = ("workflow_uuid", "status", "created_at", "updated_at")
"""The columns of ``workflow_status`` in every version of dbos; others can be missing."""


@dataclass(frozen=True)
class ControlSupport:
    """Whether the installed dbos can cancel, resume and fork workflows of a database.

    Attributes
    ----------
    possible
        Whether control calls are allowed.
    reason
        One sentence with both versions and, if control is not possible, what to install.
    """

    possible: bool
    reason: str

    def __bool__(self) -> bool:
        return self.possible


@dataclass(frozen=True, repr=False)
class Catalog:
    """The tables and columns of one system database, read when the client connected.

    Attributes
    ----------
    dialect
        ``"postgresql"`` or ``"sqlite"``.
    schema
        The Postgres schema; ``None`` on SQLite.
    revision
        The last migration (``dbos_migrations.version``); ``None`` if unknown.
    tables
        Columns by table.
    absent
        Columns that dbos 3.4 has and this database lacks, by table; ``()`` if the whole table is
        absent. Their values are missing in DataFrames.
    unreadable
        Tables that the role has no permission to read; they are not queried.
    """

    dialect: str
    schema: str | None
    revision: int | None
    tables: Mapping[str, frozenset[str]]
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        lines = [f"<Catalog {self.dialect}, revision {self.revision}, by {self.written_by}"]
        lines += [
            f"  {table} lacks {', '.join(columns)}" if columns else f"  no table {table}"
            for table, columns in self.absent.items()
        ]
        return "\n".join([*lines, f"  {self.control.reason}>"])

    @property
    def control(self) -> ControlSupport:
        """Whether the installed dbos can control this database. Does not import dbos.

        Examples
        --------
        >>> Catalog("sqlite", None, 125, {}).control.possible
        True
        >>> print(Catalog("postgresql", "dbos", 35, {}).control.reason)
        Revision 35 (written by dbos 2.20 to 2.22) cannot be controlled with the installed dbos ...
        """
        return control_support(releases.installed_version(), self.dialect, self.revision)

    @property
    def written_by(self) -> str:
        """Which versions of dbos write this revision, as far as is known.

        Examples
        --------
        >>> Catalog("sqlite", None, 125, {}).written_by
        'dbos 3.4'
        >>> Catalog("postgresql", "dbos", 50, {}).written_by
        'something between dbos 2.29 and dbos 2.30'
        """
        if self.revision is None:
            return "an unknown version"
        return releases.written_by(self.dialect, self.revision)

    def has(self, table: str, column: str | None = None) -> bool:
        """Return whether the database has a table, or a column of it."""
        columns = self.tables.get(table)
        return columns is not None and (column is None or column in columns)

    def require(self, table: str, columns: Iterable[str]) -> None:
        """Raise NotDBOSDatabaseError if a table or some of its columns are absent."""
        if missing := [column for column in columns if not self.has(table, column)]:
            raise NotDBOSDatabaseError(
                f"The table {table} lacks {', '.join(missing)}, which every version of DBOS "
                "creates. Check whether it is a view or a table of another application."
            )

    def table(self, name: str) -> sa.TableClause:
        """Return a SQLAlchemy table with the columns that exist in the database.

        Examples
        --------
        >>> catalog = Catalog("sqlite", None, 1, {"queues": frozenset({"name"})})
        >>> catalog.table("queues").c.keys()
        ['name']
        """
        columns: list[sa.ColumnClause[Any]] = [
            sa.column(column) for column in sorted(self.tables.get(name, ()))
        ]
        return sa.table(name, *columns, schema=self.schema)


def control_support(dbos: str | None, dialect: str, revision: int | None) -> ControlSupport:
    """Return whether a version of dbos can control a revision and, if not, what to install.

    Parameters
    ----------
    dbos
        The installed version; ``None`` if dbos is not installed.

    Examples
    --------
    >>> control_support("2.20.0", "postgresql", 35).possible
    True
    >>> print(control_support("2.20.0", "postgresql", 125).reason)
    Revision 125 (written by dbos 3.4) cannot be controlled with the installed dbos 2.20.0: forks
    made with it would have no input. Control it from an environment with pip install "dbos==3.4.*".
    """
    requirement = None if revision is None else releases.pip_requirement(dialect, revision)
    install = f'pip install "{requirement}"' if requirement else "pip install --upgrade dbos"
    if dbos is None:
        return ControlSupport(
            possible=False,
            reason="dbos is not installed here, and control needs its DBOSClient (reading works "
            f"without it). Run {install}.",
        )
    if revision is None:
        return ControlSupport(
            possible=False,
            reason="The revision of this database is unknown, because dbos_migrations cannot "
            f"be read, so the installed dbos {dbos} may not support it.",
        )
    written = f"Revision {revision} (written by {releases.written_by(dialect, revision)})"
    version = releases.parse_version(dbos)
    if version < releases.FIRST_SUPPORTED:
        first = releases.format_version(releases.FIRST_SUPPORTED)
        return ControlSupport(
            possible=False,
            reason=f"The DBOSClient of the installed dbos {dbos} is not supported; control needs "
            f"dbos {first} or later. {written} can be controlled from an environment with "
            f"{install}.",
        )
    known = [release for release in releases.RELEASES if release.version == version]
    if version > releases.NEWEST_KNOWN:
        # The needs of later releases are unknown, so those of dbos 3 are assumed.
        possible, newest = revision >= releases.DBOS_3_REVISION, None
    else:
        possible = bool(known) and releases.can_control(known[0], dialect, revision)
        newest = known[0].revision(dialect) if known else None
    if possible:
        return ControlSupport(
            possible=True, reason=f"{written} can be controlled with the installed dbos {dbos}."
        )
    refused = f"{written} cannot be controlled with the installed dbos {dbos}"
    if newest is not None and revision > newest:
        if revision > releases.RELEASES[-1].revision(dialect):
            return ControlSupport(
                possible=False,
                reason=f"{refused}, which supports revisions up to {newest}. "
                "Run pip install --upgrade dbos.",
            )
        inputs = newest < releases.DBOS_3_REVISION <= revision
        why = (
            "forks made with it would have no input"
            if inputs
            else f"it is newer than {newest}, which that version writes"
        )
    else:
        why = "it reads columns that this database lacks"
    remedy = (
        f"Control it from an environment with {install}."
        if requirement
        else "No release of dbos writes this revision; let the application finish its migrations."
    )
    return ControlSupport(possible=False, reason=f"{refused}: {why}. {remedy}")


@repeat_if_changed
def read_catalog(reader: Reader, expected: Mapping[str, Iterable[str]]) -> Catalog:
    """Read the catalog of a database. Raises the errors of ``reader.tables``.

    ``expected`` lists the columns that a current database has, by table.
    """
    tables = reader.tables()
    for name in ("workflow_input", "workflow_output"):
        if "workflow_uuid" not in tables.get(name, ()):
            # Without this column its rows cannot be joined to workflows.
            tables.pop(name, None)
    absent = {
        table: tuple(column for column in columns if column not in tables.get(table, ()))
        if table in tables
        else ()
        for table, columns in expected.items()
        if not tables.get(table, frozenset()).issuperset(columns)
    }
    catalog = Catalog(
        reader.dialect, reader.schema, None, tables, absent, frozenset(reader.unreadable)
    )
    catalog.require("workflow_status", _REQUIRED_COLUMNS)
    if not catalog.has("dbos_migrations", "version"):
        return catalog
    statement = sa.select(sa.func.max(catalog.table("dbos_migrations").c.version).label("version"))
    try:
        with reader.session() as session:
            revision = session.rows(statement)[0]["version"]
    except PermissionDeniedError:
        # A role may have access to the workflows but not to this table.
        revision = None
    return dataclasses.replace(catalog, revision=as_revision(revision))


def as_revision(value: object) -> int | None:
    """Return a stored revision; SQLite stores strings in any column, and a view may return one.

    Examples
    --------
    >>> as_revision(47), as_revision("47")
    (47, None)
    """
    return value if type(value) is int else None
