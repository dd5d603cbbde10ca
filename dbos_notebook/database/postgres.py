"""Postgres: read-only transactions through psycopg, and COPY into Arrow.

Rows travel as COPY's CSV; docs/performance.md says what that buys. No setting outlives its
transaction, so that nothing of ours reaches other clients of a connection pooler:
docs/security.md.
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
    FIRST_BYTES,
    LARGEST_BYTES,
    Block,
    Dialect,
    record_batches,
)
from dbos_notebook.database.fork_safety import keep_for_parent, reset_after_fork
from dbos_notebook.database.reader import TABLES, SchemaChanges
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
    raise_alone,
)
from dbos_notebook.text import printable

if TYPE_CHECKING:
    import sqlalchemy as sa
    from psycopg.pq.abc import PGconn, PGresult

    from dbos_notebook.database.csv_blocks import Each
    from dbos_notebook.database.location import Location

KEPT_CONNECTIONS = 4
IDLE_SECONDS = 5.0
"""A connection that nobody has used for so long is closed: it may hold a place in a pool."""
IDLE_IN_TRANSACTION_SECONDS = 60
"""The server ends a transaction of ours after this pause, should the notebook be suspended."""
_SETTLE_SECONDS = 1.0
_DIALECT: Any = cast(Any, PGDialect_psycopg)()
# NULL is an unquoted empty field, the empty text a quoted one.
_CSV = Dialect(quote='"', nulls=("",))

# One request opens the transaction, sets its limits, and asks the first question: the server may
# be far. A limit that is stricter already is kept; 0 is none. Both settings have units ("30s").
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
# What changes when a table is created or dropped, or gets another column. A column that is renamed
# or dropped leaves it as it is, and fails loudly where it is read. It is read by index (0.1 ms),
# takes no lock on DBOS's tables, needs no privilege, and cannot fail: without the schema it is ".".
_FINGERPRINT = """
    SELECT pg_catalog.concat(sum(c.oid::bigint), '.', sum(c.relnatts))
    FROM pg_catalog.pg_class c
    WHERE c.relname IN ({tables}) AND c.relnamespace = pg_catalog.to_regnamespace({schema});
"""
_FINGERPRINT_RESULT = 2
"""Which of the results of the first request it is, after those of BEGIN and of the limits."""

_TABLES = """
    SELECT c.relname AS table_name, a.attname AS column_name,
        pg_catalog.has_any_column_privilege(c.oid, 'SELECT') AS readable
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'f')
"""
_SCHEMAS_OF_DBOS = """
    SELECT n.nspname AS name FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'workflow_status' ORDER BY 1
"""

_CHANGED = (
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
)
_Connection = BoundedConnection[dict[str, Any]]


class OtherTablesError(Exception):
    """The catalog says other tables than those that a session found when it began."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(fingerprint)
        self.fingerprint = fingerprint


class PostgresReader:
    """Opens read-only snapshots on a Postgres system database.

    Connections are made on demand, and kept for a few seconds: a widget may refresh on one thread
    while a cell reads on another. A kept one that the server has dropped is replaced.
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
        """Open a REPEATABLE READ, READ ONLY transaction; roll it back at the end.

        It begins with the first statement, in the same request.
        """
        self.changes.settle()
        session = PostgresSession(self)
        try:
            try:
                yield session
            finally:
                session.close()
        except OtherTablesError as error:
            self.changes.update(error.fingerprint)
            raise_alone(
                DatabaseChangedError(
                    f"The tables of {self.location} have changed since the last call, such as when "
                    "the application is upgraded. They have been read again: call again."
                )
            )
        except (psycopg.Error, pa.ArrowException) as error:
            raise_alone(self._translate(error, session.seconds))

    def tables(self) -> dict[str, frozenset[str]]:
        """Read the tables and columns of the schema, whatever the role may select."""
        with self.session() as session:
            found: dict[str, set[str]] = {}
            rows = session.execute(_TABLES, [self.schema])
            for row in rows:
                found.setdefault(row["table_name"], set()).add(row["column_name"])
            self.unreadable = frozenset(row["table_name"] for row in rows if not row["readable"])
            if "workflow_status" not in found:
                schemas = [row["name"] for row in session.execute(_SCHEMAS_OF_DBOS)]
                self._refuse(sorted(found), schemas)
        return {table: frozenset(columns) for table, columns in found.items()}

    def _refuse(self, found: list[str], schemas: list[str]) -> None:
        where = f"{self.location}, schema {self.schema!r}"
        if schemas:
            names = ", ".join(repr(name) for name in schemas)
            raise SchemaNotFoundError(
                f"No DBOS tables in {where}. Schemas of this database that have them: {names}. "
                f"Use connect(…, schema={schemas[0]!r})."
            )
        have = ", ".join(map(printable, found[:10])) if found else "no tables"
        raise NotDBOSDatabaseError(
            f"Not a DBOS system database: looked for the table workflow_status in {where} and "
            f"found {have}. DBOS keeps its tables in the database that its configuration "
            "names as system_database_url."
        )

    def release(self) -> None:
        """Close what is kept for the next session: a small pool may have no other place."""
        self._idle.close()

    def close(self) -> None:
        """Close the kept connections; later sessions are refused."""
        self._closed = True
        self._idle.close()

    def begin(self) -> tuple[_Connection, bytes]:
        """Return a connection, and what opens a transaction on it before its first statement."""
        if self._closed:
            raise DatabaseConnectionError(
                f"This client is closed ({self.location}). Call connect() again."
            )
        return self._idle.take() or self._connect(), self._opening

    def end(self, connection: _Connection) -> None:
        """Roll a transaction back, and keep the connection for the next session."""
        self._idle.keep(connection)
        if self._closed:
            # By another thread, meanwhile.
            self._idle.close()

    def _connect(self) -> _Connection:
        try:
            # Not in a variable: some tools show those of a traceback, and one has the password.
            connection: _Connection = BoundedConnection.connect(
                **connection_parameters(self.location, self.statement_timeout),
                row_factory=dict_row,
                prepare_threshold=None,
                # The transaction is begun by a statement of ours, not by one of psycopg's.
                autocommit=True,
            )
        except psycopg.Error as error:
            raise_alone(self._translate(error, 0.0, connecting=True))
        return connection

    def _translate(
        self, error: Exception, seconds: float, *, connecting: bool = False
    ) -> NotebookError:
        reason = self.location.redact(str(error)).strip()
        state = getattr(error, "sqlstate", None) or ""
        if "statement pooling mode" in reason:
            return DatabaseConnectionError(
                f"{self.location} is a connection pooler in statement pooling mode, which allows "
                f"no transactions ({reason}). Reading needs one, and so does DBOS: use the "
                "database itself, or a pool in transaction or session mode."
            )
        if state.startswith("28") or "authentication failed" in reason:
            return AuthenticationError(
                f"The server refused the login to {self.location}: {reason}. Check the user and "
                "password (special characters percent-encoded), PGPASSWORD and ~/.pgpass."
            )
        if connecting:
            return DatabaseConnectionError(f"Cannot reach {self.location}: {reason}")
        if isinstance(error, NoAnswerError):
            return DatabaseConnectionError(
                f"{self.location} has not answered for {seconds:.0f} s, longer than "
                f"statement_timeout={self.statement_timeout:g} allows: the network, or what stands "
                "between, may have dropped the connection. The next call connects again."
            )
        if isinstance(error, _CHANGED):
            self.changes.doubt()
            return DatabaseChangedError(
                f"{self.location} could not be read: {reason}. Its tables may have been changed "
                "by a migration; the next call reads them again."
            )
        if isinstance(error, psycopg.errors.QueryCanceled):
            return self._cancelled(reason, seconds)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return PermissionDeniedError(
                f"The role connected to {self.location} may not read this: {reason}. Ask for "
                f'GRANT USAGE ON SCHEMA "{self.schema}" and GRANT SELECT ON ALL TABLES IN SCHEMA '
                f'"{self.schema}".'
            )
        if "conflict with recovery" in reason or state == "40001":
            return QueryCancelledError(
                f"{self.location} is a standby, and cancelled the query because it stood in the "
                f"way of changes from the primary ({reason}). Call again, narrow the filters, or "
                "read from the primary."
            )
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return QueryCancelledError(
                f"{self.location} waited longer for a lock than its lock_timeout allows, such as "
                f"while a migration runs ({reason}). Call again."
            )
        # Without a state, the words are libpq's: no server has answered. 57P: it shut down. 08: a
        # connection pooler had none for us.
        if isinstance(error, psycopg.OperationalError) and (
            not state or state.startswith(("57P", "08"))
        ):
            return DatabaseConnectionError(
                f"The connection to {self.location} was lost: {reason}. "
                "The next call connects again."
            )
        return NotebookError(f"{self.location} could not answer: {reason}")

    def _cancelled(self, reason: str, seconds: float) -> NotebookError:
        # What ran out is known by the time: a server may speak any language.
        limit = self.statement_timeout
        if limit is not None and seconds >= 0.95 * limit:
            return QueryTimeoutError(
                f"The query was cancelled by the server after {seconds:.1f} s ({reason}). Narrow "
                f"the filters, or connect(…, statement_timeout=…) with more than {limit:g}; or, if "
                "a migration or another session has locked the table, call again."
            )
        if "user request" in reason:
            return QueryCancelledError(
                f"Somebody cancelled the query after {seconds:.1f} s, such as with "
                f"pg_cancel_backend ({reason}). Call again, or ask who administers the server."
            )
        return QueryTimeoutError(
            f"The query was cancelled by the server after {seconds:.1f} s ({reason}): the role, "
            f"the database or the server of {self.location} has a stricter statement_timeout of "
            "its own. Narrow the filters."
        )


def _fingerprint(schema: str) -> str:
    tables = sql.SQL(", ").join(map(sql.Literal, TABLES))
    # to_regnamespace reads its argument as SQL reads a name, so it must be quoted as one.
    name = sql.Literal(sql.Identifier(schema).as_string(None))
    return sql.SQL(_FINGERPRINT).format(tables=tables, schema=name).as_string(None)


class _IdleConnections:
    """Connections that wait for the next session, a few seconds at most."""

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent: closed here, its sessions would end."""
        keep_for_parent(self._idle)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Condition()
        # With the moment since when each is idle; the one that was used last stands last.
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._closer: threading.Thread | None = None

    def take(self) -> _Connection | None:
        """Return a connection that still works, if there is one."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                _, connection = self._idle.pop()
            if _rolled_back(connection) and connection.is_alive():
                return connection
            if connection.abandoned:
                # Nobody answers there; each of the others would be waited for as well.
                self.close()
            connection.close()

    def keep(self, connection: _Connection) -> None:
        """Roll back what the connection has done, and keep it if it works and there is room."""
        status = connection.pgconn.transaction_status
        try:
            if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                # The answer is read when the connection is used again, not waited for.
                connection.pgconn.send_query(b"ROLLBACK")
                connection.pgconn.flush()
            elif status != TransactionStatus.IDLE:
                connection.close()
        except psycopg.Error:
            connection.close()
        if connection.closed:
            return
        with self._lock:
            if len(self._idle) < KEPT_CONNECTIONS:
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
    """Read the answer to the ROLLBACK that ended the last session."""
    connection.deadline = time.monotonic() + _SETTLE_SECONDS
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
        """How long the last statement has run."""
        return self._ended - self._started

    @property
    def process(self) -> int | None:
        """The ID of the server's process as it was given at login; a pooler gives one of its own.

        ``None`` before the first statement.
        """
        return None if self._connection is None else self._connection.info.backend_pid

    def close(self) -> None:
        """End the snapshot. Streams that were not read to their end are closed."""
        self._ended = time.monotonic()
        connection = self._connection
        if os.getpid() != self._process:
            # This is a forked child, and the session is its parent's.
            keep_for_parent(connection, self._streams.pop_all())
            return
        try:
            self._streams.close()
        finally:
            self._connection = None
            if connection is not None:
                self._reader.end(connection)

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement of few rows and return them as dictionaries."""
        return self._fetch(self._sql(statement))

    def execute(self, query: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
        """Run a statement in Postgres' own words."""
        return self._fetch(self._cursor().mogrify(query, parameters).encode())

    def batches(
        self,
        statement: sa.Select[Any] | sa.CompoundSelect[Any],
        schema: pa.Schema,
        each: Each | None = None,
    ) -> Generator[pa.RecordBatch]:
        """Stream a statement's rows."""
        stream = record_batches(self._copy_blocks(self._copy(statement)), schema, _CSV, each)
        return self._streams.enter_context(closing(stream))

    def tables(
        self, *queries: tuple[sa.Select[Any] | sa.CompoundSelect[Any], pa.Schema]
    ) -> list[list[pa.RecordBatch]]:
        """Run several statements of few rows in one request."""
        copies = (self._copy(statement) for statement, _ in queries)
        connection, request = self._begin(b"; ".join(copies))
        connection.pgconn.send_query(request)
        results = connection.wait(generators.execute(connection.pgconn))
        found = []
        for _, schema in queries:
            _raise_failure(results)
            rows = list(_arriving(connection))
            block = Block(b"".join(rows), max(map(len, rows), default=0), last=True)
            # A generator, as of any stream, but with one block or none.
            blocks = (each for each in ([block] if rows else []))
            found.append(list(record_batches(blocks, schema, _CSV)))
            results = connection.wait(generators.fetch_many(connection.pgconn))
        _raise_failure(results)
        return found

    def explain(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> str:
        """Return EXPLAIN's text."""
        rows = self._fetch(b"EXPLAIN " + self._sql(statement))
        return "\n".join(row["QUERY PLAN"] for row in rows)

    def _begin(self, statement: bytes) -> tuple[_Connection, bytes]:
        """Return the connection, and a statement with what must stand before it."""
        if self._streaming:
            raise RuntimeError("A stream of this session is still open: read or close it first.")
        if self._connection is None:
            self._connection, self._opening = self._reader.begin()
        opening, self._opening = self._opening, b""
        self._started = time.monotonic()
        self._connection.time_limit, self._connection.renewed = self._limit, True
        self._connection.deadline = None if self._limit is None else self._started + self._limit
        return self._connection, opening + statement

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
        """Raise where the statement was made for other tables than there are now."""
        value = result.get_value(0, 0) if result is not None else None
        fingerprint = (value or b"").decode()
        if self._reader.changes.differs(fingerprint):
            raise OtherTablesError(fingerprint)

    def _cursor(self) -> psycopg.ClientCursor[Any]:
        if self._connection is None:
            self._connection, self._opening = self._reader.begin()
        return psycopg.ClientCursor(self._connection)

    def _sql(self, statement: sa.Executable) -> bytes:
        compiled = cast(Any, statement).compile(
            dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
        )
        # COPY takes no server-side parameters; psycopg binds them here, quoted by libpq.
        return self._cursor().mogrify(str(compiled), compiled.params).encode()

    def _copy(self, statement: sa.Executable) -> bytes:
        return b"COPY (" + self._sql(statement) + b") TO STDOUT (FORMAT csv)"

    def _copy_blocks(self, copy: bytes) -> Generator[Block]:
        """Yield COPY's rows in blocks.

        psycopg's ``Copy`` runs a generator for each row, which costs more than the row, and takes
        no statement before COPY. libpq's own call takes the rows that have already arrived. Each
        row is copied at once: a list of psycopg's buffers would keep the garbage collector busier
        than the rows keep us.
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
            wanted = FIRST_BYTES
            data, longest = bytearray(), 0
            while True:
                count, row = pgconn.get_copy_data(1)
                if count == 0:
                    connection.wait(_more_data(pgconn))
                    continue
                if count < 0:
                    complete = True
                    _raise_failure(connection.wait(generators.fetch_many(pgconn)))
                    break
                data += row
                if count > longest:
                    longest = count
                if len(data) >= wanted:
                    yield Block(data, longest, last=False)
                    data, longest = bytearray(), 0
                    wanted = min(wanted * 3 // 2, LARGEST_BYTES)
            self._ended = time.monotonic()
            if data:
                yield Block(data, longest, last=True)
        finally:
            self._streaming = False
            if not complete and not connection.closed:
                connection.stop_copying()


def _arriving(connection: _Connection) -> Generator[bytes]:
    """Yield the rows of a COPY, to its end."""
    while True:
        count, row = connection.pgconn.get_copy_data(1)
        if count < 0:
            return
        if count == 0:
            connection.wait(_more_data(connection.pgconn))
        else:
            yield bytes(row)


def _more_data(pgconn: PGconn) -> Generator[waiting.Wait, Any, None]:
    """Wait until the server has sent something, and read it."""
    while not (yield waiting.Wait.R):
        pass
    pgconn.consume_input()


def _raise_failure(results: list[Any]) -> None:
    """Raise the error in which a request ended, if it did."""
    last = results[-1]
    if last.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(last)
