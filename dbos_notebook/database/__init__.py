"""Where the system database is, what it holds, and reading it: never writing it.

The meaning of tables and columns belongs to ``tables``; this room moves rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Reader


def open_reader(location: Location, schema: str, statement_timeout: float | None) -> Reader:
    """Return the reader for a location. Nothing is connected yet."""
    # Each driver is loaded only where it is needed.
    if location.kind == "postgres":
        from dbos_notebook.database.postgres import PostgresReader

        return PostgresReader(location, schema, statement_timeout)
    from dbos_notebook.database.sqlite import SQLiteReader

    return SQLiteReader(location, statement_timeout)
