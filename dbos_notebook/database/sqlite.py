"""The SQLite reader: read-only sessions on the file, and rows as CSV into Arrow.

Only the standard library's SQLite is used: a second copy in the same process would not see the
first one's locks and could drop the locks that DBOS holds while it writes
(https://www.sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import binascii
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from dbos_notebook.database.csv_blocks import BatchTransform, Block, Dialect, record_batches
from dbos_notebook.database.location import Location
from dbos_notebook.database.process_fork import keep_for_parent
from dbos_notebook.database.reader import Select
from dbos_notebook.database.schema_changes import SchemaChanges
from dbos_notebook.database.sqlite_file import OpenMode, SQLiteFile
from dbos_notebook.errors import (
    DatabaseChangedError,
    DatabaseConnectionError,
    DatabaseLockedError,
    NotDBOSDatabaseError,
    NotebookError,
    QueryTimeoutError,
    raise_without_context,
)
from dbos_notebook.text import sanitize

BUSY_TIMEOUT_SECONDS = 3.0
"""How long a read waits for a writer."""
FIRST_FETCH_ROWS, MAX_FETCH_ROWS = 1024, 16_384
# Instructions of SQLite's virtual machine between two checks of the clock and of Ctrl-C.
_PROGRESS_INSTRUCTIONS = 100_000
_DIALECT: Any = SQLiteDialect_pysqlite()
_CSV = Dialect(quote="'", nulls=("", "NULL"))
BASE64_CONTAINS = "dbos_notebook_base64_contains"
"""The SQL function that returns whether a base64 string contains bytes."""
_UNIXEPOCH_SUBSEC = (3, 42)
"""The first version of SQLite in which ``unixepoch('subsec')`` is the time in milliseconds."""
_MAX_OPEN_ATTEMPTS = 100
_RETRY_SECONDS = 0.02
# Names of SQLite errors that disappear when a writer has finished.
_TRANSIENT = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_PROTOCOL",
    "SQLITE_READONLY_CANTLOCK",
    "SQLITE_READONLY_RECOVERY",
)
T = TypeVar("T")


class SQLiteReader:
    """Opens read-only snapshots on a SQLite system database, one connection per snapshot."""

    dialect = "sqlite"
    schema: str | None = None
    unreadable: frozenset[str] = frozenset()

    def __init__(self, location: Location, statement_timeout: float | None) -> None:
        self.location = location
        self.changes = SchemaChanges()
        self._file = SQLiteFile(location)
        self.statement_timeout = statement_timeout
        self._closed = False

    @contextmanager
    def session(self) -> Iterator[SQLiteSession]:
        """Begin a read transaction without creating or changing any file."""
        self.changes.refresh_if_stale()
        session = self._begin()
        if self.changes.has_changed(session.fingerprint):
            session.end()
            self.changes.update(session.fingerprint)
            session = self._begin()
        try:
            yield session
        except (sqlite3.Error, pa.ArrowException) as error:
            raise_without_context(self._translate(error, session.timer, session.opening))
        finally:
            session.end()

    def _begin(self) -> SQLiteSession:
        """Open the file and begin a transaction; wait for a writer, interruptible by Ctrl-C."""
        timer = _StatementTimer(self.statement_timeout)
        busy_timeout = min(BUSY_TIMEOUT_SECONDS, self.statement_timeout or BUSY_TIMEOUT_SECONDS)
        deadline = time.monotonic() + busy_timeout
        while True:
            opening = self._open(timer)
            connection = sqlite3.connect(
                opening.uri,
                uri=True,
                isolation_level=None,
                # This loop waits instead: Ctrl-C does not interrupt SQLite's busy timeout.
                timeout=0,
                # A stream may be consumed on a different thread than the one that started it.
                check_same_thread=False,
            )
            session = SQLiteSession(connection, timer, opening)
            try:
                connection.set_progress_handler(timer, _PROGRESS_INSTRUCTIONS)
                connection.create_function(BASE64_CONTAINS, 2, session.base64_contains)
                session.begin()
            except BaseException as error:
                session.end()
                self._file.remove_created_wal(opening)
                if not isinstance(error, sqlite3.Error):
                    raise
                retry = _error_name(error).startswith(_TRANSIENT) or self._files_changed(opening)
                if not retry or time.monotonic() > deadline:
                    raise_without_context(self._translate(error, timer, opening))
                time.sleep(_RETRY_SECONDS)
            else:
                return session

    def _open(self, timer: _StatementTimer) -> OpenMode:
        """Choose how to open the file; raise an error if it does not exist."""
        path = self.location.path
        if self._closed:
            raise DatabaseConnectionError(
                f"This client is closed ({self.location}). Call connect() again."
            )
        try:
            # The -wal file may disappear between two checks, when an application closes.
            for _ in range(_MAX_OPEN_ATTEMPTS):
                if path is None or not path.is_file():
                    break
                with contextlib.suppress(FileNotFoundError):
                    return self._file.opening(timer.begin())
        except TimeoutError:
            timer.expired = True
            raise_without_context(self._timeout_error())
        except NotebookError:
            raise
        except OSError as error:
            raise DatabaseConnectionError(
                f"{self.location} cannot be read: {error.strerror}"
                + (f" ({sanitize(error.filename, 1000)})." if error.filename else ".")
            ) from None
        raise DatabaseConnectionError(
            f"There is no file {sanitize(path, 1000)}. Reading never creates it: check the path, "
            "or start the application that writes it."
        )

    def _files_changed(self, opening: OpenMode) -> bool:
        """Return whether the files have changed so that they must be opened differently."""
        try:
            return self._file.opening() != opening
        except (OSError, NotebookError):
            return False

    def tables(self) -> dict[str, frozenset[str]]:
        """Return the columns of each table in the file."""
        statement = sa.text(
            "SELECT m.name AS table_name, c.name AS column_name "
            "FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type IN ('table', 'view')"
        )
        tables: dict[str, set[str]] = {}
        with self.session() as session:
            for row in session.rows(statement):
                tables.setdefault(row["table_name"], set()).add(row["column_name"])
        if "workflow_status" not in tables:
            existing = ", ".join(map(sanitize, sorted(tables)[:10])) or "no tables"
            raise NotDBOSDatabaseError(
                f"Not a DBOS system database: expected the table workflow_status in "
                f"{self.location} and found {existing}."
            )
        return {table: frozenset(columns) for table, columns in tables.items()}

    def release(self) -> None:
        """Do nothing: no connection stays open between calls."""

    def close(self) -> None:
        """Make later sessions raise an error. No connection stays open between calls."""
        self._closed = True
        self._file.close()

    def _timeout_error(self) -> QueryTimeoutError:
        return QueryTimeoutError(
            f"The query took over {self.statement_timeout:g} s. Narrow the filters, or use "
            "connect(…, statement_timeout=…) with a larger value."
        )

    def _translate(
        self, error: Exception, timer: _StatementTimer, opening: OpenMode
    ) -> NotebookError:
        reason, name = str(error), _error_name(error)
        if timer.expired:
            return self._timeout_error()
        if opening.changed is not None and opening.changed():
            self._file.record_concurrent_write()
            return DatabaseChangedError(
                f"{self.location} is in WAL mode and was written while it was read. Try again."
            )
        if reason.startswith(("no such table", "no such column")):
            self.changes.mark_stale()
            return DatabaseChangedError(
                f"{self.location} could not be read: {reason}. A migration may have changed its "
                "tables; the next call reads the catalog again."
            )
        if name.startswith("SQLITE_READONLY_ROLLBACK"):
            return DatabaseConnectionError(
                f"{self.location} has an unfinished transaction of a process that ended (the file "
                f"{self.location.path}-journal). It must be rolled back first, and reading never "
                "writes. Start the application, or open the file once as its owner with a program "
                "that writes, such as sqlite3."
            )
        if name.startswith(_TRANSIENT):
            return DatabaseLockedError(
                f"{self.location} is locked: another process has had an exclusive lock for over "
                f"{BUSY_TIMEOUT_SECONDS:g} s. Try again when it has finished writing."
            )
        if "not a database" in reason:
            return NotDBOSDatabaseError(f"{self.location} is not a SQLite database file.")
        if opening.wal:
            return DatabaseConnectionError(
                f"{self.location} could not be read: {reason}. It is in WAL mode, so its -wal and "
                f"-shm files in the directory {self._file.directory()} must be readable as well."
            )
        return DatabaseConnectionError(f"{self.location} could not be read: {reason}")


def _error_name(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def define_unixepoch(connection: sqlite3.Connection) -> None:
    """Define ``unixepoch('subsec')`` on a connection that writes, if SQLite is older than 3.42.

    On Python 3.12 or later, dbos writes times with it and makes it the default of columns. The
    connection that writes a row evaluates it. Older versions of SQLite return NULL, or lack the
    function, whatever the Python version: nothing can be forked or sent.

    Examples
    --------
    >>> connection = sqlite3.connect(":memory:")
    >>> define_unixepoch(connection)
    >>> abs(connection.execute("SELECT unixepoch('subsec')").fetchone()[0] - time.time()) < 60
    True
    """

    def unixepoch(moment: object) -> float | None:
        if moment in ("subsec", "subsecond"):
            return time.time_ns() // 1_000_000 / 1000
        with contextlib.closing(sqlite3.connect(":memory:")) as other:
            seconds = "SELECT CAST(strftime('%s', ?) AS INTEGER)"
            found: int | None = other.execute(seconds, (moment,)).fetchone()[0]
            return found

    if sqlite3.sqlite_version_info < _UNIXEPOCH_SUBSEC:
        connection.create_function("unixepoch", 1, unixepoch)


class _StatementTimer:
    """A progress handler that stops a statement at its deadline.

    Because it is a Python function, it also handles Ctrl-C.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._deadline: float | None = None
        self._paused: float | None = None
        self.expired = False

    def begin(self) -> float | None:
        """Start the timer and return the deadline."""
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._paused = None
        return self._deadline

    def pause(self) -> None:
        """Stop the timer while the consumer of a stream works."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        if self._paused is not None and self._deadline is not None:
            self._deadline += time.monotonic() - self._paused
        self._paused = None

    def __call__(self) -> bool:
        self.expired = self._deadline is not None and time.monotonic() > self._deadline
        return self.expired


class SQLiteSession:
    """One snapshot on one connection."""

    def __init__(
        self, connection: sqlite3.Connection, timer: _StatementTimer, opening: OpenMode
    ) -> None:
        self._connection = connection
        self._process = os.getpid()
        self.timer = timer
        self.opening = opening
        self.fingerprint = ""
        self._interrupted = False

    def begin(self) -> None:
        """Begin the transaction: all later reads see the same snapshot."""
        self._run(lambda: self._connection.execute("BEGIN"))
        # The first read takes the lock. SQLite increments schema_version at each schema change.
        cursor = self._run(lambda: self._connection.execute("PRAGMA schema_version"))
        version = cursor.fetchone()[0]
        self.fingerprint = f"{self.opening.identity} {version}"

    def end(self) -> None:
        """Close the connection, but not in a forked child."""
        if os.getpid() == self._process:
            self._connection.close()
        else:
            keep_for_parent(self._connection)

    def base64_contains(self, stored: object, wanted: object) -> bool:
        """Return whether bytes are part of what a base64 string encodes. SQLite calls this."""
        try:
            if not isinstance(stored, bytes) or not isinstance(wanted, bytes):
                return False
            return wanted in binascii.a2b_base64(stored, strict_mode=True)
        except binascii.Error:
            return False
        except KeyboardInterrupt:
            # SQLite reports it as an error of this function.
            self._interrupted = True
            raise

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement with a small result and return its rows as dictionaries."""
        cursor = self._execute(statement)
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in self._run(cursor.fetchall)]
        self._check()
        return rows

    def batches(
        self, statement: Select, schema: pa.Schema, transform: BatchTransform | None = None
    ) -> Generator[pa.RecordBatch]:
        """Stream the rows of a statement, each formatted by SQLite as one line of CSV.

        ``printf``'s ``%Q`` quotes a value, doubles quotes in it, and writes NULL unquoted, so that
        a CSV reader can distinguish NULL from the string 'NULL' and the empty string. Numbers are
        quoted too: an integer column may contain a string that unquoted could look like rows.
        """
        inner = statement.subquery("result")
        line = sa.func.printf(",".join(["%Q"] * len(schema)), *inner.c)
        # A blob is returned as bytes, without decoding and encoding it.
        lines = sa.select(sa.cast(line, sa.LargeBinary))
        return record_batches(self._blocks(lines), schema, _CSV, transform)

    def _blocks(self, lines: sa.Select[Any]) -> Generator[Block]:
        cursor = self._execute(lines)
        size = FIRST_FETCH_ROWS
        while rows := self._run(partial(cursor.fetchmany, size)):
            self._check()
            data = [line for (line,) in rows]
            yield Block(b"\n".join(data) + b"\n", max(map(len, data)), len(rows) < size)
            size = min(2 * size, MAX_FETCH_ROWS)

    def tables(self, *queries: tuple[Select, pa.Schema]) -> list[list[pa.RecordBatch]]:
        """Run several statements with small results."""
        return [list(self.batches(statement, schema)) for statement, schema in queries]

    def explain(self, statement: Select) -> str:
        """Return the output of EXPLAIN QUERY PLAN."""
        return "\n".join(row[3] for row in self._execute(statement, "EXPLAIN QUERY PLAN "))

    def _execute(self, statement: sa.Executable, prefix: str = "") -> sqlite3.Cursor:
        compiled: Any = cast(sa.ClauseElement, statement).compile(
            dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
        )
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        self.timer.begin()
        return self._run(lambda: self._connection.execute(prefix + str(compiled), values))

    def _run(self, step: Callable[[], T]) -> T:
        """Call a function of SQLite with the timer running."""
        self.timer.resume()
        try:
            return step()
        except sqlite3.OperationalError as error:
            stopped = _error_name(error) == "SQLITE_INTERRUPT" and not self.timer.expired
            if stopped or self._interrupted:
                # Ctrl-C during a statement: the progress handler could only stop the statement.
                raise KeyboardInterrupt from None
            raise
        finally:
            self.timer.pause()

    def _check(self) -> None:
        """Raise an error if the file was written while it was read without locks."""
        if self.opening.changed is not None and self.opening.changed():
            raise sqlite3.OperationalError("written while it was read")
