"""What a system database holds: its tables and columns, its revision, who wrote it.

DBOS's schema grew over its versions. Everything that reads asks the catalog what is there and
gives the rest as missing values.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dbos_notebook.errors import NotDBOSDatabaseError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dbos_notebook.database.reader import Reader

# Revisions that released versions were seen to write. Postgres and SQLite count
# apart below 100, and together, with all SDKs, from 100 on.
_WRITERS: Mapping[str, tuple[tuple[int, str], ...]] = {
    "postgresql": (
        (1, "dbos 1.14 to 2.0"),
        (7, "dbos 2.10"),
        (35, "dbos 2.20"),
        (108, "dbos 2.31"),
        (114, "dbos 3.0"),
        (123, "the TypeScript SDK 5.3"),
        (125, "dbos 3.4"),
    ),
    "sqlite": (
        (1, "dbos 1.14 to 2.0"),
        (32, "dbos 2.20"),
        (108, "dbos 2.31"),
        (114, "dbos 3.0"),
        (125, "dbos 3.4"),
    ),
}

# With dbos 3.4, cancel, resume, fork and delete work from this revision on, and nothing works on
# those below: it reads a table of inputs that they lack (tests/database/test_control.py).
_CONTROLLED_FROM = 109
# What is read of every database; everything else may be missing.
_ALWAYS = ("workflow_uuid", "status", "created_at", "updated_at")
# The latest revision of the newest dbos that this package knows.
_KNOWN_DBOS = (3, 4)
_KNOWN_REVISION = 125


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
    """

    dialect: str
    schema: str | None
    revision: int | None
    tables: Mapping[str, frozenset[str]]
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        lines = [f"<Catalog {self.dialect}, revision {self.revision}, by {self.written_by}"]
        lines += [
            f"  {table} lacks {', '.join(columns)}" if columns else f"  no table {table}"
            for table, columns in self.absent.items()
        ]
        return "\n".join([*lines, f"  {self.control.reason}>"])

    @property
    def control(self) -> Control:
        """What control is possible with the dbos that is installed here.

        Examples
        --------
        >>> Catalog("sqlite", None, 125, {}).control.possible
        True
        >>> print(Catalog("postgresql", "dbos", 35, {}).control.reason)
        Revision 35 (written by dbos 2.20) is too old for the installed dbos ...
        """
        installed = importlib.metadata.version("dbos")
        written = f"Revision {self.revision} (written by {self.written_by})"
        if self.revision is None:
            return Control(
                possible=False,
                reason="The revision of this database is unknown, because dbos_migrations cannot "
                f"be read; so it is not known whether the installed dbos {installed} fits it.",
            )
        if self.revision < _CONTROLLED_FROM:
            fits = [name for number, name in _WRITERS[self.dialect] if number >= self.revision]
            return Control(
                possible=False,
                reason=f"{written} is too old for the installed dbos {installed}, which needs "
                f"{_CONTROLLED_FROM} or later. Control it from an environment with "
                f'pip install "dbos=={fits[0].split()[-1]}.*", or let the application upgrade it.',
            )
        parts = tuple(int(part) for part in installed.split(".")[:2])
        if self.revision > _KNOWN_REVISION and parts <= _KNOWN_DBOS:
            return Control(
                possible=False,
                reason=f"{written} is newer than the installed dbos {installed}, which knows "
                f"revisions up to {_KNOWN_REVISION}. Run pip install --upgrade dbos.",
            )
        return Control(
            possible=True,
            reason=f"{written} can be controlled with the installed dbos {installed}.",
        )

    @property
    def written_by(self) -> str:
        """What wrote this revision, as far as is known.

        Examples
        --------
        >>> Catalog("sqlite", None, 125, {}).written_by
        'dbos 3.4'
        >>> Catalog("postgresql", "dbos", 50, {}).written_by
        'something between dbos 2.20 and dbos 2.31'
        """
        known = _WRITERS[self.dialect]
        if self.revision is None:
            return "an unknown version"
        below = [name for revision, name in known if revision <= self.revision]
        above = [name for revision, name in known if revision >= self.revision]
        if below and above:
            same = below[-1] == above[0]
            return below[-1] if same else f"something between {below[-1]} and {above[0]}"
        return f"something after {below[-1]}" if below else f"something before {above[0]}"

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
    catalog = Catalog(reader.dialect, reader.schema, None, tables, absent)
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
