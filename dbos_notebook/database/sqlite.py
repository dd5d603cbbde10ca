"""SQLite: read-only sessions on the file, and rows as CSV into Arrow.

The standard library's SQLite is used, and no other copy of it: a second copy in one process would
not see the first one's locks, and could drop those under which DBOS writes
(https://www.sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from dbos_notebook.database.blocks import Block, Dialect, record_batches
from dbos_notebook.errors import (
    DatabaseConnectionError,
    DatabaseLockedError,
    NotDBOSDatabaseError,
    NotebookError,
    QueryTimeoutError,
    raise_alone,
)
from dbos_notebook.printable import printable

if TYPE_CHECKING:
    from dbos_notebook.database.blocks import Each
    from dbos_notebook.database.locate import Location

BUSY_TIMEOUT_SECONDS = 3.0
"""How long a read waits for a writer of the application before it gives up."""
FIRST_ROWS, MOST_ROWS = 1024, 16_384
# Instructions of SQLite's virtual machine between two looks at the clock and at Ctrl-C.
_WATCH_EVERY = 100_000
_DIALECT: Any = cast(Any, SQLiteDialect_pysqlite)()
_CSV = Dialect(quote="'", nulls=("", "NULL"))


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
        watch = _Watch(self._timeout)
        try:
            with closing(self._connect()) as connection:
                connection.set_progress_handler(watch, _WATCH_EVERY)
                connection.execute("BEGIN")
                yield SQLiteSession(connection, watch)
        except (sqlite3.Error, pa.ArrowException) as error:
            if str(error) == "interrupted" and not watch.late:
                # Ctrl-C came while SQLite ran: the watch could only stop the statement.
                raise KeyboardInterrupt from None
            raise_alone(self._translate(error, watch))

    def _connect(self) -> sqlite3.Connection:
        path = self.location.path
        if self._closed:
            raise DatabaseConnectionError(
                f"This client is closed ({self.location}). Call connect() again."
            )
        try:
            there = path is not None and path.is_file()
        except OSError as error:
            raise DatabaseConnectionError(
                f"{self.location} cannot be looked at: {error.strerror}."
            ) from None
        if not there:
            raise DatabaseConnectionError(
                f"There is no file {printable(path, 1000)}. Reading never creates one: check the "
                "path, or start the application that writes it."
            )
        return sqlite3.connect(
            # The file: form is what carries mode=ro, so the name must be quoted.
            f"file:{quote(os.fsencode(str(path)))}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=BUSY_TIMEOUT_SECONDS,
            # A stream may be consumed on another thread than the one that began it.
            check_same_thread=False,
        )

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
            have = ", ".join(map(printable, sorted(found)[:10])) or "no tables"
            raise NotDBOSDatabaseError(
                f"Not a DBOS system database: looked for the table workflow_status in "
                f"{self.location} and found {have}."
            )
        return {table: frozenset(columns) for table, columns in found.items()}

    def close(self) -> None:
        """Refuse later sessions. None is kept open between calls."""
        self._closed = True

    def _translate(self, error: Exception, watch: _Watch) -> NotebookError:
        reason = str(error)
        if watch.late:
            return QueryTimeoutError(
                f"The query took over {self._timeout:g} s. Narrow the filters, or "
                "connect(…, statement_timeout=…) with more."
            )
        if "locked" in reason or "busy" in reason:
            return DatabaseLockedError(
                f"{self.location} is locked: another process has held it exclusively for over "
                f"{BUSY_TIMEOUT_SECONDS:g} s. Try again when its write is done."
            )
        if "not a database" in reason:
            return NotDBOSDatabaseError(f"{self.location} is not a SQLite database file.")
        return DatabaseConnectionError(f"{self.location} could not be read: {reason}")


class _Watch:
    """Stops a statement that runs too long; being Python, it lets Ctrl-C in as well."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._deadline: float | None = None
        self.late = False

    def begin(self) -> None:
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout

    def __call__(self) -> bool:
        self.late = self._deadline is not None and time.monotonic() > self._deadline
        return self.late


class SQLiteSession:
    """One snapshot on one connection."""

    def __init__(self, connection: sqlite3.Connection, watch: _Watch) -> None:
        self._connection = connection
        self._watch = watch

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement of few rows and return them as dictionaries."""
        cursor = self._execute(statement)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def batches(
        self,
        statement: sa.Select[Any] | sa.CompoundSelect[Any],
        schema: pa.Schema,
        each: Each | None = None,
    ) -> Generator[pa.RecordBatch]:
        """Stream a statement's rows, each written by SQLite itself as one line of CSV.

        ``printf``'s ``%Q`` quotes a value with doubled quotes and writes NULL bare, which is just
        what a CSV reader needs to tell NULL from the text 'NULL' and from the empty text. Numbers
        are quoted too: a column of integers may hold a text, which bare could pass for whole rows.
        """
        inner = statement.subquery("result")
        line = sa.func.printf(",".join(["%Q"] * len(schema)), *inner.c)
        # As a blob the line stays bytes, and is not decoded only to be encoded again.
        lines = sa.select(sa.cast(line, sa.LargeBinary))
        return record_batches(self._blocks(lines), schema, _CSV, each)

    def _blocks(self, lines: sa.Select[Any]) -> Generator[Block]:
        cursor = self._execute(lines)
        wanted = FIRST_ROWS
        while rows := cursor.fetchmany(wanted):
            found = [line for (line,) in rows]
            yield Block(b"\n".join(found) + b"\n", max(map(len, found)), len(rows) < wanted)
            wanted = min(2 * wanted, MOST_ROWS)

    def explain(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> str:
        """Return EXPLAIN QUERY PLAN's text."""
        return "\n".join(row[3] for row in self._execute(statement, "EXPLAIN QUERY PLAN "))

    def _execute(self, statement: sa.Executable, prefix: str = "") -> sqlite3.Cursor:
        compiled = cast(Any, statement).compile(
            dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
        )
        self._watch.begin()
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        return self._connection.execute(prefix + str(compiled), values)
