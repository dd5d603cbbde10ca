"""What a system database holds: its tables and columns, its revision, who wrote it.

DBOS's schema grew over its versions. Everything that reads asks the catalog what is there and
gives the rest as missing values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dbos_notebook.errors import PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Mapping

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


@dataclass(frozen=True)
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
    """

    dialect: str
    schema: str | None
    revision: int | None
    tables: Mapping[str, frozenset[str]]

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


def read_catalog(reader: Reader) -> Catalog:
    """Read what a database holds; raises what ``reader.tables`` raises."""
    tables = reader.tables()
    catalog = Catalog(reader.dialect, reader.schema, None, tables)
    if not catalog.has("dbos_migrations", "version"):
        return catalog
    statement = sa.select(sa.func.max(catalog.table("dbos_migrations").c.version).label("version"))
    try:
        with reader.session() as session:
            revision = session.rows(statement)[0]["version"]
    except PermissionDeniedError:
        # A role that may read the workflows but not this table loses only the number.
        revision = None
    return Catalog(reader.dialect, reader.schema, revision, tables)
