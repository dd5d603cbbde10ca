"""The interface of the Postgres and SQLite readers.

A reader opens sessions. A session is one read-only snapshot: all its statements see the same state
of the database. Rows are returned as Arrow record batches with the types that the caller requests.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow as pa
import sqlalchemy as sa

from dbos_notebook.database.csv_blocks import BatchTransform
from dbos_notebook.database.location import Location
from dbos_notebook.database.schema_changes import SchemaChanges

Select = sa.Select[Any] | sa.CompoundSelect[Any]


class Session(Protocol):
    """One read-only snapshot of a system database."""

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement with a small result and return its rows as dictionaries."""
        ...

    def batches(
        self, statement: Select, schema: pa.Schema, transform: BatchTransform | None = None
    ) -> Generator[pa.RecordBatch]:
        """Run a statement and stream its rows in the given Arrow schema.

        ``transform`` is applied to each batch on another thread while the next rows arrive. Read
        or close the stream before the next statement of the session.
        """
        ...

    def tables(self, *queries: tuple[Select, pa.Schema]) -> list[list[pa.RecordBatch]]:
        """Run several statements with small results; return the batches of each in its schema.

        Postgres gets them in one request, to save round trips.
        """
        ...

    def explain(self, statement: Select) -> str:
        """Return the database's query plan for a statement, without running it."""
        ...


class Reader(Protocol):
    """Opens sessions on one system database, from any thread."""

    location: Location
    dialect: str
    schema: str | None
    unreadable: frozenset[str]
    """Tables that the role has no permission to read, set by ``tables``."""
    changes: SchemaChanges

    def session(self) -> AbstractContextManager[Session]:
        """Open a snapshot, which ends with the ``with`` block."""
        ...

    def tables(self) -> dict[str, frozenset[str]]:
        """Return the columns of each table in DBOS's schema, by table name."""
        ...

    def release(self) -> None:
        """Close the connections that no session uses. Later sessions open new ones."""
        ...

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        ...
