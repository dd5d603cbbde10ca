"""The tables and columns that a system database has, and how a client notices that they change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dbos_notebook.database import releases
from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import NotDBOSDatabaseError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dbos_notebook.database.reader import Reader


# What is read of every database; everything else may be missing.
_ALWAYS = ("workflow_uuid", "status", "created_at", "updated_at")


@dataclass(frozen=True)
class Control:
    """Whether the installed dbos can cancel, resume and fork here, and if not, what can.

    Attributes
    ----------
    possible
        Whether control calls are let through.
    reason
        One sentence: both revisions, and what to install where it is impossible.
    """

    possible: bool
    reason: str

    def __bool__(self) -> bool:
        return self.possible


@dataclass(frozen=True, repr=False)
class Catalog:
    """The tables of one system database, as they were when the client connected.

    Attributes
    ----------
    dialect
        ``"postgresql"`` or ``"sqlite"``.
    schema
        The Postgres schema; ``None`` on SQLite.
    revision
        Highest migration that ran (``dbos_migrations.version``); ``None`` where unknown.
    tables
        Columns by table.
    absent
        Columns that dbos 3.4 has and this database lacks, by table; ``()`` where the whole table
        is missing. What they would hold is missing in DataFrames.
    unreadable
        Tables that the role may not read. What only they prove is not looked up.
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
    def control(self) -> Control:
        """What control is possible with the dbos that is installed here, which is not imported.

        Examples
        --------
        >>> Catalog("sqlite", None, 125, {}).control.possible
        True
        >>> print(Catalog("postgresql", "dbos", 35, {}).control.reason)
        Revision 35 (written by dbos 2.20 to 2.22) cannot be controlled with the installed dbos ...
        """
        return control_with(releases.installed(), self.dialect, self.revision)

    @property
    def written_by(self) -> str:
        """What wrote this revision, as far as is known.

        Examples
        --------
        >>> Catalog("sqlite", None, 125, {}).written_by
        'dbos 3.4'
        >>> Catalog("postgresql", "dbos", 50, {}).written_by
        'something between dbos 2.29 and dbos 2.30'
        """
        if self.revision is None:
            return "an unknown version"
        return releases.writers(self.dialect, self.revision)

    def has(self, table: str, column: str | None = None) -> bool:
        """Tell whether a table, or a column of it, is there."""
        columns = self.tables.get(table)
        return columns is not None and (column is None or column in columns)

    def require(self, table: str, columns: Iterable[str]) -> None:
        """Raise NotDBOSDatabaseError for a table, or columns of it, that DBOS always makes."""
        if missing := [column for column in columns if not self.has(table, column)]:
            raise NotDBOSDatabaseError(
                f"The table {table} lacks {', '.join(missing)}, which DBOS has had in every "
                "version. Look whether it is a view, or another application's table."
            )

    def table(self, name: str) -> sa.TableClause:
        """Return a table with the columns that it really has, to compose SQL from.

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


def control_with(dbos: str | None, dialect: str, revision: int | None) -> Control:
    """Say whether a version of dbos controls a revision, and what to install where it does not.

    Parameters
    ----------
    dbos
        The installed version; ``None``: it is not installed.

    Examples
    --------
    >>> control_with("2.20.0", "postgresql", 35).possible
    True
    >>> print(control_with("2.20.0", "postgresql", 125).reason)
    Revision 125 (written by dbos 3.4) cannot be controlled with the installed dbos 2.20.0: forks
    made with it would have no input. Control it from an environment with pip install "dbos==3.4.*".
    """
    fits = None if revision is None else releases.advice(dialect, revision)
    install = f'pip install "{fits}"' if fits else "pip install --upgrade dbos"
    if dbos is None:
        return Control(
            possible=False,
            reason="dbos is not installed here, and control goes through its DBOSClient (reading "
            f"works without it). Run {install}.",
        )
    if revision is None:
        return Control(
            possible=False,
            reason="The revision of this database is unknown, because dbos_migrations cannot "
            f"be read; so it is not known whether the installed dbos {dbos} fits it.",
        )
    written = f"Revision {revision} (written by {releases.writers(dialect, revision)})"
    version = releases.parse(dbos)
    if version < releases.CONTROLS_FROM:
        first = releases.named(releases.CONTROLS_FROM)
        return Control(
            possible=False,
            reason=f"The DBOSClient of the installed dbos {dbos} cannot be used from here; those "
            f"of dbos {first} and later can. {written} can be controlled from an environment with "
            f"{install}.",
        )
    known = [release for release in releases.RELEASES if release.version == version]
    if version > releases.KNOWN:
        # What a later release needs is not known; what dbos 3 needs is.
        possible, newest = revision >= releases.DBOS_3, None
    else:
        possible = bool(known) and releases.controls(known[0], dialect, revision)
        newest = known[0].revision(dialect) if known else None
    if possible:
        return Control(
            possible=True, reason=f"{written} can be controlled with the installed dbos {dbos}."
        )
    refused = f"{written} cannot be controlled with the installed dbos {dbos}"
    if newest is not None and revision > newest:
        if revision > releases.RELEASES[-1].revision(dialect):
            return Control(
                possible=False,
                reason=f"{refused}, which knows revisions up to {newest}. "
                "Run pip install --upgrade dbos.",
            )
        inputs = newest < releases.DBOS_3 <= revision
        why = (
            "forks made with it would have no input"
            if inputs
            else f"it is newer than {newest}, which that version writes"
        )
    else:
        why = "it reads columns that this database lacks"
    remedy = (
        f"Control it from an environment with {install}."
        if fits
        else "No release of dbos leaves a database so; let the application finish its migrations."
    )
    return Control(possible=False, reason=f"{refused}: {why}. {remedy}")


@repeat_if_changed
def read_catalog(reader: Reader, expected: Mapping[str, Iterable[str]]) -> Catalog:
    """Read what a database holds; raises what ``reader.tables`` raises.

    ``expected`` names the columns that may be looked for, by table.
    """
    tables = reader.tables()
    for name in ("workflow_input", "workflow_output"):
        if "workflow_uuid" not in tables.get(name, ()):
            # Whose its rows are cannot be known.
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
    catalog.require("workflow_status", _ALWAYS)
    if not catalog.has("dbos_migrations", "version"):
        return catalog
    statement = sa.select(sa.func.max(catalog.table("dbos_migrations").c.version).label("version"))
    try:
        with reader.session() as session:
            revision = session.rows(statement)[0]["version"]
    except PermissionDeniedError:
        # A role that may read the workflows but not this table loses only the number.
        revision = None
    # SQLite keeps a text in any column, and a view may give one.
    return dataclasses.replace(catalog, revision=revision if type(revision) is int else None)
