"""The Postgres reader: read-only transactions through psycopg, and COPY into Arrow.

Rows are transferred as CSV by COPY; docs/performance.md has the measurements. No setting outlives
its transaction, so that other clients of a connection pooler are not affected (docs/security.md).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from psycopg import generators, sql, waiting
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import dict_row
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from dbos_notebook.database.connection import (
    BoundedConnection,
    NoAnswerError,
    connection_parameters,
    time_limit,
)
from dbos_notebook.database.csv_blocks import (
    FIRST_BLOCK_BYTES,
    MAX_BLOCK_BYTES,
    BatchTransform,
    Block,
    Dialect,
    record_batches,
)
from dbos_notebook.database.location import Location
from dbos_notebook.database.process_fork import keep_for_parent, reset_after_fork
from dbos_notebook.database.reader import Select
from dbos_notebook.database.schema_changes import TABLES, SchemaChanges
from dbos_notebook.errors import (
    AuthenticationError,
    DatabaseChangedError,
    DatabaseConnectionError,
    NotDBOSDatabaseError,
    NotebookError,
    PermissionDeniedError,
    QueryCancelledError,
    QueryTimeoutError,
    SchemaNotFoundError,
    raise_without_context,
)
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

MAX_IDLE_CONNECTIONS = 4
IDLE_SECONDS = 5.0
"""An unused connection is closed after this time, because it may occupy a slot of a pool."""
IDLE_IN_TRANSACTION_SECONDS = 60
"""The server ends an idle transaction after this time, in case the notebook is suspended."""
_ROLLBACK_SECONDS = 1.0
_DIALECT: Any = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy has no type here
# NULL is an unquoted empty field, the empty string a quoted one.
_CSV = Dialect(quote='"', nulls=("",))

# One request opens the transaction, sets its limits, and runs the first statement, to save round
# trips. A stricter existing limit is kept; 0 means no limit. Both settings have units ("30s").
_BEGIN = """
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SELECT pg_catalog.set_config(name, LEAST(NULLIF(now, 0), NULLIF(wanted, 0))::text, true)
    FROM (
        SELECT name, wanted,
            (EXTRACT(EPOCH FROM pg_catalog.current_setting(name)::interval) * 1000)::bigint AS now
        FROM (VALUES ('statement_timeout', %d), ('idle_in_transaction_session_timeout', %d))
            AS ours (name, wanted)
    ) AS limits
    WHERE wanted > 0;
"""
# The fingerprint changes when a table is created or dropped or a column is added. It does not
# change when a column is renamed or dropped, but then reading the column fails. The query uses an
# index (0.1 ms), takes no lock on DBOS's tables, needs no privilege, and cannot fail: without the
# schema, the fingerprint is ".".
_FINGERPRINT = """
    SELECT pg_catalog.concat(sum(c.oid::bigint), '.', sum(c.relnatts))
    FROM pg_catalog.pg_class c
    WHERE c.relname IN ({tables}) AND c.relnamespace = pg_catalog.to_regnamespace({schema});
"""
_FINGERPRINT_RESULT = 2
"""Index of the fingerprint in the results of the first request, after BEGIN and the limits."""

_TABLES = """
    SELECT c.relname AS table_name, a.attname AS column_name,
        pg_catalog.has_any_column_privilege(c.oid, 'SELECT') AS readable
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'f')
"""
_DBOS_SCHEMAS = """
    SELECT n.nspname AS name FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'workflow_status' ORDER BY 1
"""

_SCHEMA_ERRORS = (
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
)
_Connection = BoundedConnection[dict[str, Any]]


class StaleCatalogError(Exception):
    """The tables in the database differ from those of the catalog."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(fingerprint)
        self.fingerprint = fingerprint


class PostgresReader:
    """Opens read-only snapshots on a Postgres system database.

    Connections are opened on demand and kept for a few seconds, because a widget may refresh on one
    thread while a cell reads on another. If the server has dropped a kept connection, it is
    replaced.
    """

    dialect = "postgresql"

    def __init__(self, location: Location, schema: str, statement_timeout: float | None) -> None:
        self.location = location
        self.schema: str | None = schema
        self.statement_timeout = statement_timeout
        milliseconds = 0 if statement_timeout is None else max(1, int(statement_timeout * 1000))
        begin = _BEGIN % (milliseconds, IDLE_IN_TRANSACTION_SECONDS * 1000)
        self._opening = (begin + _fingerprint(schema)).encode()
        self.changes = SchemaChanges()
        self.unreadable: frozenset[str] = frozenset()
        self._idle = _IdleConnections()
        self._closed = False

    @contextmanager
    def session(self) -> Iterator[PostgresSession]:
        """Open a REPEATABLE READ, READ ONLY transaction and roll it back at the end.

        It begins with the first statement, in the same request.
        """
        self.changes.refresh_if_stale()
        session = PostgresSession(self)
        try:
            try:
                yield session
            finally:
                session.close()
        except StaleCatalogError as error:
            self.changes.update(error.fingerprint)
            raise_without_context(
                DatabaseChangedError(
                    f"The tables of {self.location} have changed since the last call, for example "
                    "by an upgrade of the application. The catalog was updated; call again."
                )
            )
        except (psycopg.Error, pa.ArrowException) as error:
            raise_without_context(self._translate(error, session.seconds))

    def tables(self) -> dict[str, frozenset[str]]:
        """Return the columns of each table in the schema, including unreadable tables."""
        with self.session() as session:
            tables: dict[str, set[str]] = {}
            rows = session.execute(_TABLES, [self.schema])
            for row in rows:
                tables.setdefault(row["table_name"], set()).add(row["column_name"])
            self.unreadable = frozenset(row["table_name"] for row in rows if not row["readable"])
            if "workflow_status" not in tables:
                schemas = [row["name"] for row in session.execute(_DBOS_SCHEMAS)]
                self._raise_not_dbos(sorted(tables), schemas)
        return {table: frozenset(columns) for table, columns in tables.items()}

    def _raise_not_dbos(self, tables: list[str], schemas: list[str]) -> None:
        where = f"{self.location}, schema {self.schema!r}"
        if schemas:
            names = ", ".join(repr(name) for name in schemas)
            raise SchemaNotFoundError(
                f"No DBOS tables in {where}. Schemas of this database that have them: {names}. "
                f"Use connect(…, schema={schemas[0]!r})."
            )
        existing = ", ".join(map(sanitize, tables[:10])) or "no tables"
        raise NotDBOSDatabaseError(
            f"Not a DBOS system database: expected the table workflow_status in {where} and "
            f"found {existing}. Connect to the database that the application's configuration "
            "has as system_database_url."
        )

    def release(self) -> None:
        """Close the idle connections: a small connection pool may have no other slot."""
        self._idle.close()

    def close(self) -> None:
        """Close the idle connections; later sessions raise an error."""
        self._closed = True
        self._idle.close()

    def begin(self) -> tuple[_Connection, bytes]:
        """Return a connection, and the SQL that opens a transaction before its first statement."""
        if self._closed:
            raise DatabaseConnectionError(
                f"This client is closed ({self.location}). Call connect() again."
            )
        return self._idle.take() or self._connect(), self._opening

    def end(self, connection: _Connection) -> None:
        """Roll a transaction back and keep the connection for the next session."""
        self._idle.keep(connection)
        if self._closed:  # by another thread in the meantime
            self._idle.close()

    def _connect(self) -> _Connection:
        try:
            # Keep the password out of variables: some tools show those of a traceback.
            connection: _Connection = BoundedConnection.connect(
                **connection_parameters(self.location, self.statement_timeout),
                row_factory=dict_row,
                prepare_threshold=None,
                # _BEGIN opens the transaction, not psycopg.
                autocommit=True,
            )
        except psycopg.Error as error:
            raise_without_context(self._translate(error, 0.0, connecting=True))
        return connection

    def _translate(
        self, error: Exception, seconds: float, *, connecting: bool = False
    ) -> NotebookError:
        reason = self.location.redact(str(error)).strip()
        state = getattr(error, "sqlstate", None) or ""
        if "statement pooling mode" in reason:
            return DatabaseConnectionError(
                f"{self.location} is a connection pooler in statement pooling mode, which does not "
                f"support transactions ({reason}). Connect to the database directly, or to a pool "
                "in transaction or session mode, which DBOS needs too."
            )
        if state.startswith("28") or "authentication failed" in reason:
            return AuthenticationError(
                f"The server rejected the login to {self.location}: {reason}. Check the user and "
                "password (special characters percent-encoded), PGPASSWORD and ~/.pgpass."
            )
        if connecting:
            return DatabaseConnectionError(f"Cannot reach {self.location}: {reason}")
        if isinstance(error, NoAnswerError):
            return DatabaseConnectionError(
                f"{self.location} has not responded for {seconds:.0f} s, longer than "
                f"statement_timeout={self.statement_timeout:g} allows. The network or a proxy may "
                "have dropped the connection. The next call connects again."
            )
        if isinstance(error, _SCHEMA_ERRORS):
            self.changes.mark_stale()
            return DatabaseChangedError(
                f"{self.location} could not be read: {reason}. A migration may have changed its "
                "tables; the next call reads the catalog again."
            )
        if isinstance(error, psycopg.errors.QueryCanceled):
            return self._cancelled(reason, seconds)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return PermissionDeniedError(
                f"The role connected to {self.location} has no permission: {reason}. Ask for "
                f'GRANT USAGE ON SCHEMA "{self.schema}" and GRANT SELECT ON ALL TABLES IN SCHEMA '
                f'"{self.schema}".'
            )
        if "conflict with recovery" in reason or state == "40001":
            return QueryCancelledError(
                f"{self.location} is a standby and cancelled the query because it conflicted with "
                f"changes from the primary ({reason}). Call again, narrow the filters, or read "
                "from the primary."
            )
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return QueryCancelledError(
                f"{self.location} waited for a lock longer than its lock_timeout, for example "
                f"during a migration ({reason}). Call again."
            )
        # Without SQLSTATE, the error is libpq's and the server did not respond. Class 57P: the
        # server shut down. Class 08: a connection pooler had no connection.
        if isinstance(error, psycopg.OperationalError) and (
            not state or state.startswith(("57P", "08"))
        ):
            return DatabaseConnectionError(
                f"The connection to {self.location} was lost: {reason}. "
                "The next call connects again."
            )
        return NotebookError(f"{self.location} raised an error: {reason}")

    def _cancelled(self, reason: str, seconds: float) -> NotebookError:
        # Use the elapsed time to find the cause: the server's message may be in any language.
        limit = self.statement_timeout
        if limit is not None and seconds >= 0.95 * limit:
            return QueryTimeoutError(
                f"The query was cancelled by the server after {seconds:.1f} s ({reason}). Narrow "
                f"the filters, or use connect(…, statement_timeout=…) with more than {limit:g}. If "
                "a migration or another session has locked the table, call again."
            )
        if "user request" in reason:
            return QueryCancelledError(
                f"The query was cancelled after {seconds:.1f} s by another user, for example with "
                f"pg_cancel_backend ({reason}). Call again, or ask the server's administrator."
            )
        return QueryTimeoutError(
            f"The query was cancelled by the server after {seconds:.1f} s ({reason}): the role, "
            f"the database or the server of {self.location} has a stricter statement_timeout. "
            "Narrow the filters."
        )


def _fingerprint(schema: str) -> str:
    tables = sql.SQL(", ").join(map(sql.Literal, TABLES))
    # to_regnamespace parses its argument as an SQL identifier, so it must be quoted as one.
    name = sql.Literal(sql.Identifier(schema).as_string(None))
    return sql.SQL(_FINGERPRINT).format(tables=tables, schema=name).as_string(None)


class _IdleConnections:
    """Connections that are kept for the next session, for a few seconds."""

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Keep the parent's connections open: closing them here would end its sessions."""
        keep_for_parent(self._idle)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Condition()
        # Pairs of the time since when a connection is idle and the connection, oldest first.
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._closer: threading.Thread | None = None

    def take(self) -> _Connection | None:
        """Return a working connection, if there is one."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                _, connection = self._idle.pop()
            if _rolled_back(connection) and connection.is_alive():
                return connection
            if connection.abandoned:
                # The server does not respond; do not wait for each of the other connections.
                self.close()
            connection.close()

    def keep(self, connection: _Connection) -> None:
        """Roll back the transaction; keep the connection if it works and there is room."""
        status = connection.pgconn.transaction_status
        try:
            if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                # The response is read when the connection is used again.
                connection.pgconn.send_query(b"ROLLBACK")
                connection.pgconn.flush()
            elif status != TransactionStatus.IDLE:
                connection.close()
        except psycopg.Error:
            connection.close()
        if connection.closed:
            return
        with self._lock:
            if len(self._idle) < MAX_IDLE_CONNECTIONS:
                self._idle.append((time.monotonic(), connection))
                if self._closer is None:
                    self._closer = threading.Thread(
                        target=self._close_idle, name="dbos_notebook_idle", daemon=True
                    )
                    self._closer.start()
                return
        connection.close()

    def _close_idle(self) -> None:
        while True:
            with self._lock:
                if not self._idle:
                    self._closer = None
                    return
                since, connection = self._idle[0]
                wait = since + IDLE_SECONDS - time.monotonic()
                if wait > 0:
                    self._lock.wait(wait)
                    continue
                self._idle.popleft()
            connection.close()

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            idle, self._idle = self._idle, deque()
            self._lock.notify_all()
        for _, connection in idle:
            connection.close()


def _rolled_back(connection: _Connection) -> bool:
    """Read the response to the ROLLBACK that ended the last session."""
    connection.deadline = time.monotonic() + _ROLLBACK_SECONDS
    try:
        connection.wait(generators.fetch_many(connection.pgconn))
    except psycopg.Error:
        return False
    return True


class PostgresSession:
    """One snapshot, on a connection that is taken at the first statement."""

    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader
        self._limit = time_limit(reader.statement_timeout)
        self._connection: _Connection | None = None
        self._opening = b""
        self._process = os.getpid()
        self._streams = ExitStack()
        self._streaming = False
        self._started = self._ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the last statement has run, in seconds."""
        return self._ended - self._started

    @property
    def process(self) -> int | None:
        """The backend PID from the login; a pooler sends its own. ``None`` before a statement."""
        return None if self._connection is None else self._connection.info.backend_pid

    def close(self) -> None:
        """End the snapshot and close unfinished streams."""
        self._ended = time.monotonic()
        connection = self._connection
        if os.getpid() != self._process:
            # This is a forked child; the session belongs to the parent.
            keep_for_parent(connection, self._streams.pop_all())
            return
        try:
            self._streams.close()
        finally:
            self._connection = None
            if connection is not None:
                self._reader.end(connection)

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement with a small result and return its rows as dictionaries."""
        return self._fetch(self._sql(statement))

    def execute(self, query: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
        """Run an SQL string with psycopg's placeholders."""
        return self._fetch(self._cursor().mogrify(query, parameters).encode())

    def batches(
        self, statement: Select, schema: pa.Schema, transform: BatchTransform | None = None
    ) -> Generator[pa.RecordBatch]:
        """Stream the rows of a statement."""
        stream = record_batches(self._copy_blocks(self._copy(statement)), schema, _CSV, transform)
        return self._streams.enter_context(closing(stream))

    def tables(self, *queries: tuple[Select, pa.Schema]) -> list[list[pa.RecordBatch]]:
        """Run several statements with small results in one request."""
        copies = (self._copy(statement) for statement, _ in queries)
        connection, request = self._begin(b"; ".join(copies))
        connection.pgconn.send_query(request)
        results = connection.wait(generators.execute(connection.pgconn))
        tables = []
        for _, schema in queries:
            _raise_failure(results)
            rows = list(_copy_rows(connection))
            block = Block(b"".join(rows), max(map(len, rows), default=0), last=True)
            # record_batches takes a generator, here of one block or none.
            blocks = (block for _ in rows[:1])
            tables.append(list(record_batches(blocks, schema, _CSV)))
            results = connection.wait(generators.fetch_many(connection.pgconn))
        _raise_failure(results)
        return tables

    def explain(self, statement: Select) -> str:
        """Return the output of EXPLAIN."""
        rows = self._fetch(b"EXPLAIN " + self._sql(statement))
        return "\n".join(row["QUERY PLAN"] for row in rows)

    def _begin(self, statement: bytes) -> tuple[_Connection, bytes]:
        """Return the connection, and the statement preceded by the opening of the transaction."""
        if self._streaming:
            raise RuntimeError("A stream of this session is still open: read or close it first.")
        connection = self._connected()
        opening, self._opening = self._opening, b""
        self._started = time.monotonic()
        connection.time_limit, connection.extends_deadline = self._limit, True
        connection.deadline = None if self._limit is None else self._started + self._limit
        return connection, opening + statement

    def _connected(self) -> _Connection:
        if self._connection is None:
            self._connection, self._opening = self._reader.begin()
        return self._connection

    def _fetch(self, statement: bytes) -> list[dict[str, Any]]:
        begins = bool(self._opening)
        connection, request = self._begin(statement)
        with connection.cursor() as cursor:
            cursor.execute(request)
            if begins:
                for _ in range(_FINGERPRINT_RESULT):
                    cursor.nextset()
                self._check(cursor.pgresult)
            while cursor.nextset():
                pass
            return cursor.fetchall()

    def _check(self, result: PGresult | None) -> None:
        """Raise StaleCatalogError if the tables have changed since the catalog was read."""
        value = result.get_value(0, 0) if result is not None else None
        fingerprint = (value or b"").decode()
        if self._reader.changes.has_changed(fingerprint):
            raise StaleCatalogError(fingerprint)

    def _cursor(self) -> psycopg.ClientCursor[Any]:
        return psycopg.ClientCursor(self._connected())

    def _sql(self, statement: sa.Executable) -> bytes:
        compiled: Any = cast(sa.ClauseElement, statement).compile(
            dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
        )
        # COPY supports no server-side parameters; psycopg inserts them, quoted by libpq.
        return self._cursor().mogrify(str(compiled), compiled.params).encode()

    def _copy(self, statement: sa.Executable) -> bytes:
        return b"COPY (" + self._sql(statement) + b") TO STDOUT (FORMAT csv)"

    def _copy_blocks(self, copy: bytes) -> Generator[Block]:
        """Yield the rows of COPY in blocks.

        psycopg's ``Copy`` runs a generator for each row, which costs more than the row itself, and
        allows no statement before COPY. libpq's own function returns the rows that have already
        arrived. Each row is copied immediately, because the garbage collector would spend more time
        on a list of psycopg's buffers than the rows take.
        """
        begins = bool(self._opening)
        connection, request = self._begin(copy)
        pgconn = connection.pgconn
        self._streaming = True
        complete = False
        try:
            pgconn.send_query(request)
            results = connection.wait(generators.execute(pgconn))
            complete = results[-1].status != ExecStatus.COPY_OUT
            _raise_failure(results)
            if begins:
                self._check(results[_FINGERPRINT_RESULT])
            size = FIRST_BLOCK_BYTES
            data, longest = bytearray(), 0
            while True:
                count, row = pgconn.get_copy_data(1)
                if count == 0:
                    connection.wait(_wait_for_data(pgconn))
                    continue
                if count < 0:
                    complete = True
                    _raise_failure(connection.wait(generators.fetch_many(pgconn)))
                    break
                data += row
                if count > longest:
                    longest = count
                if len(data) >= size:
                    yield Block(data, longest, last=False)
                    data, longest = bytearray(), 0
                    size = min(size * 3 // 2, MAX_BLOCK_BYTES)
            self._ended = time.monotonic()
            if data:
                yield Block(data, longest, last=True)
        finally:
            self._streaming = False
            if not complete and not connection.closed:
                connection.stop_copying()


def _copy_rows(connection: _Connection) -> Generator[bytes]:
    """Yield all rows of a COPY."""
    while True:
        count, row = connection.pgconn.get_copy_data(1)
        if count < 0:
            return
        if count == 0:
            connection.wait(_wait_for_data(connection.pgconn))
        else:
            yield bytes(row)


def _wait_for_data(pgconn: PGconn) -> Generator[waiting.Wait, Any, None]:
    """Wait for data from the server and read it."""
    while not (yield waiting.Wait.R):
        pass
    pgconn.consume_input()


def _raise_failure(results: list[Any]) -> None:
    """Raise the error of a failed request."""
    last = results[-1]
    if last.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(last)
