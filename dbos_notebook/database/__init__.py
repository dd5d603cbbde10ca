"""Locate a system database, read its catalog, and read rows; never write.

The meaning of tables and columns belongs to ``tables``; this package only moves rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbos_notebook.imports import WholeImports

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Reader


def open_reader(location: Location, schema: str, statement_timeout: float | None) -> Reader:
    """Return the reader for a location, without connecting."""
    # Import each driver only where it is needed.
    if location.kind == "postgres":
        with WholeImports():
            from dbos_notebook.database.postgres import PostgresReader

        return PostgresReader(location, schema, statement_timeout)
    with WholeImports():
        from dbos_notebook.database.sqlite import SQLiteReader

    return SQLiteReader(location, statement_timeout)
