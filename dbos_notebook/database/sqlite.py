"""SQLite: read-only sessions on the file, through ADBC into Arrow.

ADBC steps the statement in C and makes no Python object for a row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import adbc_driver_sqlite.dbapi as adbc
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from dbos_notebook.errors import (
    DatabaseConnectionError,
    DatabaseLockedError,
    NotDBOSDatabaseError,
    NotebookError,
    QueryTimeoutError,
)

if TYPE_CHECKING:
    from dbos_notebook.database.locate import Location

BUSY_TIMEOUT_MS = 3_000
"""How long a read waits for a writer of the application before it gives up."""
BATCH_ROWS = 32_768
_DIALECT = SQLiteDialect_pysqlite()


class SQLiteReader:
    """Opens read-only snapshots on a SQLite system database, a connection for each."""

    dialect = "sqlite"
    schema: str | None = None

    def __init__(self, location: Location, statement_timeout: float | None) -> None:
        self.location = location
        self._timeout = statement_timeout
        self._closed = False

    @contextmanager
    def session(self) -> Iterator[SQLiteSession]:
        """Open the file with ``mode=ro`` and begin a read transaction."""
        path = self.location.path
        if self._closed:
            raise DatabaseConnectionError(
                f"This client is closed ({self.location}). Call connect() again."
            )
        if path is None or not path.is_file():
            raise DatabaseConnectionError(
                f"There is no file {path}. Reading never creates one: check the path, or start "
                "the application that writes it."
            )
        try:
            # The file: form is what carries mode=ro, so the name must be quoted.
            with (
                adbc.connect(f"file:{quote(str(path))}?mode=ro", autocommit=True) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
                cursor.fetchall()
                cursor.execute("BEGIN")
                yield SQLiteSession(cursor, self._timeout)
        except adbc.NotSupportedError as error:
            # The driver manager answers Ctrl-C by cancelling; this driver cannot, and says so
            # once the call has ended. What the person did was interrupt.
            raise KeyboardInterrupt from error
        except (adbc.Error, pa.ArrowException) as error:
            raise self._translate(error) from None

    def tables(self) -> dict[str, frozenset[str]]:
        """Read the tables and columns of the file."""
        statement = sa.text(
            "SELECT m.name AS table_name, c.name AS column_name "
            "FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type IN ('table', 'view')"
        )
        found: dict[str, set[str]] = {}
        with self.session() as session:
            for row in session.rows(statement):
                found.setdefault(row["table_name"], set()).add(row["column_name"])
        if "workflow_status" not in found:
            have = ", ".join(sorted(found)[:10]) or "no tables"
            raise NotDBOSDatabaseError(
                f"Not a DBOS system database: looked for the table workflow_status in "
                f"{self.location} and found {have}."
            )
        return {table: frozenset(columns) for table, columns in found.items()}

    def close(self) -> None:
        """Refuse later sessions. None is kept open between calls."""
        self._closed = True

    def _translate(self, error: Exception) -> NotebookError:
        reason = str(error)
        if "locked" in reason or "busy" in reason:
            return DatabaseLockedError(
                f"{self.location} is locked: another process has held it exclusively for over "
                f"{BUSY_TIMEOUT_MS / 1000:g} s. Try again when its write is done."
            )
        if "not a database" in reason:
            return NotDBOSDatabaseError(f"{self.location} is not a SQLite database file.")
        return DatabaseConnectionError(f"{self.location} could not be read: {reason}")


class SQLiteSession:
    """One snapshot on one connection."""

    def __init__(self, cursor: adbc.Cursor, timeout: float | None) -> None:
        self._cursor = cursor
        self._timeout = timeout

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement of few rows and return them as dictionaries."""
        self._execute(statement)
        return cast(list[dict[str, Any]], self._cursor.fetch_arrow_table().to_pylist())

    def batches(
        self, statement: sa.Select[Any] | sa.CompoundSelect[Any], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """Stream a statement's rows.

        The driver takes a column's type from its first values, so a column that begins with NULL
        would be guessed. A first row of the right types is put before the others and dropped.
        SQLite runs the parts of UNION ALL one after the other, so the order holds.
        """
        inner = statement.subquery("result")
        typed = sa.select(*(_typed(field).label(field.name) for field in schema))
        everything = sa.union_all(typed, sa.select(*inner.c))
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
        self._execute(everything)
        first = True
        for batch in self._cursor.fetch_record_batch():
            # Checked between batches: SQLite has no timeout of its own.
            if deadline is not None and time.monotonic() > deadline:
                raise QueryTimeoutError(
                    f"The query took over {self._timeout:g} s. Narrow the filters, or "
                    "connect(…, statement_timeout=…) with more."
                )
            yield _cast(batch.slice(1) if first else batch, schema)
            first = False

    def explain(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> str:
        """Return EXPLAIN QUERY PLAN's text."""
        self._execute(statement, prefix="EXPLAIN QUERY PLAN ")
        return "\n".join(self._cursor.fetch_arrow_table().column("detail").to_pylist())

    def _execute(self, statement: sa.Executable, prefix: str = "") -> None:
        compiled = cast(Any, statement).compile(
            dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
        )
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        self._cursor.execute(prefix + str(compiled), values or None)


def _typed(field: pa.Field) -> sa.ColumnElement[Any]:
    if pa.types.is_floating(field.type):
        return sa.literal_column("0.0")
    if pa.types.is_integer(field.type) or pa.types.is_boolean(field.type):
        return sa.literal_column("0")
    return sa.literal_column("''")


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field, array in zip(schema, batch.columns, strict=True):
        if pa.types.is_dictionary(field.type):
            array = array.dictionary_encode()
        arrays.append(array.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
