"""SQLite: read-only sessions on the file, and rows as CSV into Arrow.

The standard library's SQLite is used, and no other copy of it: a second copy in one process would
not see the first one's locks, and could drop those under which DBOS writes
(https://www.sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from dbos_notebook.database.csv_blocks import Block, Dialect, record_batches
from dbos_notebook.database.fork_safety import keep_for_parent
from dbos_notebook.database.reader import SchemaChanges
from dbos_notebook.database.sqlite_file import Opening, SQLiteFile
from dbos_notebook.errors import (
    DatabaseChangedError,
    DatabaseConnectionError,
    DatabaseLockedError,
    NotDBOSDatabaseError,
    NotebookError,
    QueryTimeoutError,
    raise_alone,
)
from dbos_notebook.text import printable

if TYPE_CHECKING:
    from dbos_notebook.database.csv_blocks import Each
    from dbos_notebook.database.location import Location

BUSY_TIMEOUT_SECONDS = 3.0
"""How long a read waits for a writer of the application before it gives up."""
FIRST_ROWS, MOST_ROWS = 1024, 16_384
# Instructions of SQLite's virtual machine between two looks at the clock and at Ctrl-C.
_WATCH_EVERY = 100_000
_DIALECT: Any = cast(Any, SQLiteDialect_pysqlite)()
_CSV = Dialect(quote="'", nulls=("", "NULL"))
_LOOKS = 100
_PAUSE_SECONDS = 0.02
# Names of SQLite's errors that pass when a writer is done.
_TRANSIENT = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_PROTOCOL",
    "SQLITE_READONLY_CANTLOCK",
    "SQLITE_READONLY_RECOVERY",
)
T = TypeVar("T")


class SQLiteReader:
    """Opens read-only snapshots on a SQLite system database, a connection for each."""

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
        """Begin a read transaction on the file, in a way that changes nothing beside it."""
        self.changes.settle()
        session = self._begin()
        if self.changes.differs(session.fingerprint):
            session.end()
            self.changes.update(session.fingerprint)
            session = self._begin()
        try:
            yield session
        except (sqlite3.Error, pa.ArrowException) as error:
            raise_alone(self._translate(error, session.watch, session.opening))
        finally:
            session.end()

    def _begin(self) -> SQLiteSession:
        """Open the file and begin; wait for a writer, but so that Ctrl-C ends the wait at once."""
        watch = _Watch(self.statement_timeout)
        patience = min(BUSY_TIMEOUT_SECONDS, self.statement_timeout or BUSY_TIMEOUT_SECONDS)
        deadline = time.monotonic() + patience
        while True:
            opening = self._open(watch)
            connection = sqlite3.connect(
                opening.uri,
                uri=True,
                isolation_level=None,
                # Waiting is done here: SQLite's own waiting lets no Ctrl-C in.
                timeout=0,
                # A stream may be consumed on another thread than the one that began it.
                check_same_thread=False,
            )
            session = SQLiteSession(connection, watch, opening)
            try:
                connection.set_progress_handler(watch, _WATCH_EVERY)
                session.begin()
            except BaseException as error:
                session.end()
                self._file.remove_created_wal(opening)
                if not isinstance(error, sqlite3.Error):
                    raise
                waits = _name(error).startswith(_TRANSIENT) or self._moved(opening)
                if not waits or time.monotonic() > deadline:
                    raise_alone(self._translate(error, watch, opening))
                time.sleep(_PAUSE_SECONDS)
            else:
                return session

    def _open(self, watch: _Watch) -> Opening:
        """Choose how to open the file; raise where there is none."""
        path = self.location.path
        if self._closed:
            raise DatabaseConnectionError(
                f"This client is closed ({self.location}). Call connect() again."
            )
        try:
            # A file beside it may vanish between two looks: an application has closed.
            for _ in range(_LOOKS):
                if path is None or not path.is_file():
                    break
                with contextlib.suppress(FileNotFoundError):
                    return self._file.opening(watch.begin())
        except TimeoutError:
            watch.late = True
            raise_alone(self._too_late())
        except NotebookError:
            raise
        except OSError as error:
            raise DatabaseConnectionError(
                f"{self.location} cannot be read: {error.strerror}"
                + (f" ({printable(error.filename, 1000)})." if error.filename else ".")
            ) from None
        raise DatabaseConnectionError(
            f"There is no file {printable(path, 1000)}. Reading never creates one: check the "
            "path, or start the application that writes it."
        )

    def _moved(self, opening: Opening) -> bool:
        """Return whether the files changed so that the chosen way to open them is wrong."""
        try:
            return self._file.opening() != opening
        except (OSError, NotebookError):
            return False

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

    def release(self) -> None:
        """Do nothing: no connection is kept open between calls."""

    def close(self) -> None:
        """Refuse later sessions. No connection is kept open between calls."""
        self._closed = True
        self._file.close()

    def _too_late(self) -> QueryTimeoutError:
        return QueryTimeoutError(
            f"The query took over {self.statement_timeout:g} s. Narrow the filters, or "
            "connect(…, statement_timeout=…) with more."
        )

    def _translate(self, error: Exception, watch: _Watch, opening: Opening) -> NotebookError:
        reason, name = str(error), _name(error)
        if watch.late:
            return self._too_late()
        if opening.changed is not None and opening.changed():
            self._file.note_change()
            return DatabaseChangedError(
                f"{self.location} is in WAL mode, and was written while it was read. Try again."
            )
        if reason.startswith(("no such table", "no such column")):
            self.changes.doubt()
            return DatabaseChangedError(
                f"{self.location} could not be read: {reason}. Its tables may have been changed "
                "by a migration; the next call reads them again."
            )
        if name.startswith("SQLITE_READONLY_ROLLBACK"):
            return DatabaseConnectionError(
                f"{self.location} was left in the middle of a transaction by a process that ended "
                f"(the file {self.location.path}-journal has its changes, which must be undone "
                "first, and reading does not write). Start the application, or open the file once "
                "as its owner with a program that may write, such as sqlite3."
            )
        if name.startswith(_TRANSIENT):
            return DatabaseLockedError(
                f"{self.location} is locked: another process has held it exclusively for over "
                f"{BUSY_TIMEOUT_SECONDS:g} s. Try again when its write is done."
            )
        if "not a database" in reason:
            return NotDBOSDatabaseError(f"{self.location} is not a SQLite database file.")
        if opening.wal:
            return DatabaseConnectionError(
                f"{self.location} could not be read: {reason}. It is in WAL mode, so its -wal and "
                f"-shm files in the directory {self._file.directory()} are read as well; they need "
                "the permissions of the database."
            )
        return DatabaseConnectionError(f"{self.location} could not be read: {reason}")


def _name(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


class _Watch:
    """Stops a statement that runs too long; being Python, it lets Ctrl-C in as well."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._deadline: float | None = None
        self._paused: float | None = None
        self.late = False

    def begin(self) -> float | None:
        """Begin to count; return when the time is over."""
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._paused = None
        return self._deadline

    def pause(self) -> None:
        """Do not count the time that the reader of a stream takes."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        if self._paused is not None and self._deadline is not None:
            self._deadline += time.monotonic() - self._paused
        self._paused = None

    def __call__(self) -> bool:
        self.late = self._deadline is not None and time.monotonic() > self._deadline
        return self.late


class SQLiteSession:
    """One snapshot on one connection."""

    def __init__(self, connection: sqlite3.Connection, watch: _Watch, opening: Opening) -> None:
        self._connection = connection
        self._process = os.getpid()
        self.watch = watch
        self.opening = opening
        self.fingerprint = ""

    def begin(self) -> None:
        """Begin the transaction; what is read from now on is one snapshot."""
        self._connection.execute("BEGIN")
        # The first read takes the lock. SQLite counts the changes to the tables' definitions.
        counted = self._run(lambda: self._connection.execute("PRAGMA schema_version"))
        version = counted.fetchone()[0]
        self.fingerprint = f"{self.opening.identity} {version}"

    def end(self) -> None:
        """Close the connection. A forked child leaves the parent's alone."""
        if os.getpid() == self._process:
            self._connection.close()
        else:
            keep_for_parent(self._connection)

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement of few rows and return them as dictionaries."""
        cursor = self._execute(statement)
        names = [column[0] for column in cursor.description]
        found = [dict(zip(names, row, strict=True)) for row in self._run(cursor.fetchall)]
        self._check()
        return found

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
        while rows := self._run(partial(cursor.fetchmany, wanted)):
            self._check()
            found = [line for (line,) in rows]
            yield Block(b"\n".join(found) + b"\n", max(map(len, found)), len(rows) < wanted)
            wanted = min(2 * wanted, MOST_ROWS)

    def tables(
        self, *queries: tuple[sa.Select[Any] | sa.CompoundSelect[Any], pa.Schema]
    ) -> list[list[pa.RecordBatch]]:
        """Run several statements of few rows."""
        return [list(self.batches(statement, schema)) for statement, schema in queries]

    def explain(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> str:
        """Return EXPLAIN QUERY PLAN's text."""
        return "\n".join(row[3] for row in self._execute(statement, "EXPLAIN QUERY PLAN "))

    def _execute(self, statement: sa.Executable, prefix: str = "") -> sqlite3.Cursor:
        compiled = cast(Any, statement).compile(
            dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
        )
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        self.watch.begin()
        return self._run(lambda: self._connection.execute(prefix + str(compiled), values))

    def _run(self, step: Callable[[], T]) -> T:
        """Let SQLite work, with the clock running."""
        self.watch.resume()
        try:
            return step()
        except sqlite3.OperationalError as error:
            if _name(error) == "SQLITE_INTERRUPT" and not self.watch.late:
                # Ctrl-C came while SQLite ran: the watch could only stop the statement.
                raise KeyboardInterrupt from None
            raise
        finally:
            self.watch.pause()

    def _check(self) -> None:
        """Raise where the file was written while it was read without locks."""
        if self.opening.changed is not None and self.opening.changed():
            raise sqlite3.OperationalError("written while it was read")
