"""What every reader of a system database offers; the two that exist are siblings.

A reader opens sessions. A session is one read-only snapshot: all its statements see the
same moment. Rows come as Arrow record batches with the types that the caller names.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

    from dbos_notebook.database.catalog import SchemaChanges
    from dbos_notebook.database.csv_blocks import Each
    from dbos_notebook.database.location import Location


class Session(Protocol):
    """One read-only snapshot of a system database."""

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement of few rows and return them as dictionaries."""
        ...

    def batches(
        self,
        statement: sa.Select[Any] | sa.CompoundSelect[Any],
        schema: pa.Schema,
        each: Each | None = None,
    ) -> Generator[pa.RecordBatch]:
        """Run a statement of any size and stream its rows in the given Arrow schema.

        What ``each`` makes of a batch is made while the next rows come, on another thread.
        One stream at a time: it must be read to its end, or closed, before the next statement.
        """
        ...

    def tables(
        self, *queries: tuple[sa.Select[Any] | sa.CompoundSelect[Any], pa.Schema]
    ) -> list[list[pa.RecordBatch]]:
        """Run several statements of few rows; return each one's batches in its Arrow schema.

        A server is asked once for all of them, because it may be far.
        """
        ...

    def explain(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> str:
        """Return the database's plan for a statement, without running it."""
        ...


class Reader(Protocol):
    """A way to open sessions on one system database, from any thread."""

    location: Location
    dialect: str
    schema: str | None
    unreadable: frozenset[str]
    """Tables that the role may not read, as ``tables`` found."""
    changes: SchemaChanges
    """Told the fingerprint of the tables by each session, before the session is used."""

    def session(self) -> AbstractContextManager[Session]:
        """Open a snapshot; it ends with the ``with`` block."""
        ...

    def tables(self) -> dict[str, frozenset[str]]:
        """Return the columns of each table that DBOS's schema holds, by table name."""
        ...

    def release(self) -> None:
        """Close the connections that no session uses. Later sessions open others."""
        ...

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        ...
