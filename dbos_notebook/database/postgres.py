"""Postgres: read-only psycopg sessions, and COPY into Arrow.

Rows travel as COPY's CSV; docs/performance.md tells what that buys.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from dbos_notebook.database.blocks import (
    FIRST_BYTES,
    LARGEST_BYTES,
    Block,
    Dialect,
    record_batches,
)
from dbos_notebook.database.changes import SchemaChanges
from dbos_notebook.database.forking import keep_for_parent, reset_after_fork
from dbos_notebook.errors import (
    AuthenticationError,
    DatabaseChangedError,
    DatabaseConnectionError,
    NotDBOSDatabaseError,
    NotebookError,
    PermissionDeniedError,
    QueryTimeoutError,
    SchemaNotFoundError,
    raise_alone,
)
from dbos_notebook.printable import printable

if TYPE_CHECKING:
    import sqlalchemy as sa
    from psycopg.abc import Buffer

    from dbos_notebook.database.blocks import Each
    from dbos_notebook.database.locate import Location

CONNECT_TIMEOUT_SECONDS = 10
KEPT_CONNECTIONS = 4
_DIALECT: Any = cast(Any, PGDialect_psycopg)()
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# NULL is an unquoted empty field, the empty text a quoted one.
_CSV = Dialect(quote='"', nulls=("",))

_TABLES = """
    SELECT c.relname AS table_name, a.attname AS column_name
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'f')
"""
# Creating, altering and dropping tables changes it; renaming or dropping a column alone does not,
# but fails loudly where the column is read. It reads the system catalog by index (0.1 ms), takes no
# lock on a table of DBOS's, needs no privilege, and cannot fail: without the schema it is empty.
_FINGERPRINT = """
    SELECT pg_catalog.concat(sum(c.oid::int8), '.', sum(c.relnatts)) AS fingerprint
    FROM pg_catalog.pg_class c
    WHERE c.relname IN ({tables}) AND c.relnamespace = pg_catalog.to_regnamespace({schema})
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


def _fingerprint_of(schema: str) -> str:
    from dbos_notebook.tables.vocabulary import expected_columns

    tables = sql.SQL(", ").join(map(sql.Literal, expected_columns()))
    # As an identifier, because to_regnamespace reads it as one.
    name = sql.Literal(sql.Identifier(schema).as_string())
    return sql.SQL(_FINGERPRINT).format(tables=tables, schema=name).as_string()


class PostgresReader:
    """Opens read-only snapshots on a Postgres system database.

    Connections are made on demand and a few are kept: a widget may refresh on one thread
    while a cell reads on another. A kept one that the server has dropped is replaced.
    """

    dialect = "postgresql"

    def __init__(self, location: Location, schema: str, statement_timeout: float | None) -> None:
        self.location = location
        self.schema: str | None = schema
        self._timeout_ms = 0 if statement_timeout is None else max(1, int(statement_timeout * 1000))
        self._kept: list[psycopg.Connection[dict[str, Any]]] = []
        self._lock = threading.Lock()
        self._closed = False
        self.changes = SchemaChanges()
        # One round trip begins the transaction and looks whether the tables are still the same.
        self._begin_statement = f"{_BEGIN}; {_fingerprint_of(schema)}"
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent: closed here, its sessions would end."""
        keep_for_parent(self._kept)
        self._kept = []
        self._lock = threading.Lock()

    @contextmanager
    def session(self) -> Iterator[PostgresSession]:
        """Open a REPEATABLE READ, READ ONLY transaction; roll it back at the end."""
        connection, fingerprint = self._take()
        try:
            changed = self.changes.update(fingerprint)
        except BaseException:
            self._give_back(connection)
            raise
        if changed:
            # Begun again, so that what is read fits the tables that were read.
            self._give_back(connection)
            connection, _ = self._take()
        process = os.getpid()
        try:
            with ExitStack() as streams:
                try:
                    yield PostgresSession(connection, streams)
                finally:
                    if os.getpid() != process:
                        # This is a forked child, and the session is its parent's.
                        keep_for_parent(connection, streams.pop_all())
        except (psycopg.Error, pa.ArrowException) as error:
            raise_alone(self._translate(error))
        finally:
            if os.getpid() == process:
                self._give_back(connection)

    def tables(self) -> dict[str, frozenset[str]]:
        """Read the tables and columns of the schema, whatever the role may select."""
        with self.session() as session:
            connection = session.connection
            found: dict[str, set[str]] = {}
            for row in connection.execute(_TABLES, [self.schema]):
                found.setdefault(row["table_name"], set()).add(row["column_name"])
            if "workflow_status" not in found:
                schemas = [row["name"] for row in connection.execute(_SCHEMAS_OF_DBOS)]
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

    def close(self) -> None:
        """Close the kept connections; later sessions are refused."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()

    def _take(self) -> tuple[psycopg.Connection[dict[str, Any]], str]:
        while True:
            with self._lock:
                if self._closed:
                    raise DatabaseConnectionError(
                        f"This client is closed ({self.location}). Call connect() again."
                    )
                connection = self._kept.pop() if self._kept else None
            if connection is None:
                return self._begun()
            try:
                # Shows too whether the server is still there.
                return connection, self._begin(connection)
            except psycopg.Error:
                connection.close()

    def _begin(self, connection: psycopg.Connection[dict[str, Any]]) -> str:
        """Begin a transaction; return the fingerprint of the tables."""
        cursor = connection.execute(self._begin_statement.encode())
        cursor.nextset()
        row = cursor.fetchone()
        return str(row["fingerprint"]) if row else ""

    def _give_back(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        if not connection.broken:
            try:
                connection.rollback()
            except psycopg.Error:
                connection.close()
        with self._lock:
            keep = not self._closed and len(self._kept) < KEPT_CONNECTIONS
            if keep and not connection.closed:
                self._kept.append(connection)
                return
        connection.close()

    def _begun(self) -> tuple[psycopg.Connection[dict[str, Any]], str]:
        try:
            # Not in a variable: some tools show those of a traceback, and one has the password.
            connection = psycopg.connect(
                **{
                    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                    "application_name": "dbos_notebook",
                    **self.location.parameters,
                    "client_encoding": "utf8",
                },
                row_factory=dict_row,
                prepare_threshold=None,
                # The transaction is begun by one statement of ours, not by two of psycopg's: each
                # goes to the server and back, which may be far.
                autocommit=True,
            )
        except psycopg.Error as error:
            raise_alone(self._translate(error, connecting=True))
        try:
            # SET, not the startup packet: connection poolers refuse its options. Both settings
            # hold for the session, so even SQL smuggled past us could not write.
            connection.execute(
                b"SET default_transaction_read_only = on; SET statement_timeout = %d"
                % self._timeout_ms
            )
            return connection, self._begin(connection)
        except psycopg.Error as error:
            connection.close()
            raise_alone(self._translate(error, connecting=True))

    def _translate(self, error: Exception, *, connecting: bool = False) -> NotebookError:
        reason = self.location.redact(str(error)).strip()
        state = getattr(error, "sqlstate", None) or ""
        if state.startswith("28") or "authentication failed" in reason:
            return AuthenticationError(
                f"The server refused the login to {self.location}: {reason}. Check the user and "
                "password (special characters percent-encoded), PGPASSWORD and ~/.pgpass."
            )
        if connecting:
            return DatabaseConnectionError(f"Cannot reach {self.location}: {reason}")
        if isinstance(error, psycopg.errors.QueryCanceled):
            return QueryTimeoutError(
                f"The query was cancelled by the server after {self._timeout_ms / 1000:g} s "
                f"({reason}). Narrow the filters, or connect(…, statement_timeout=…) with more."
            )
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return PermissionDeniedError(
                f"The role connected to {self.location} may not read this: {reason}. Ask for "
                f'GRANT USAGE ON SCHEMA "{self.schema}" and GRANT SELECT ON ALL TABLES IN SCHEMA '
                f'"{self.schema}".'
            )
        if isinstance(error, _CHANGED):
            self.changes.forget()
            return DatabaseChangedError(
                f"{self.location} could not be read: {reason}. Its tables may have been changed "
                "by a migration; the next call reads them again."
            )
        if isinstance(error, psycopg.OperationalError):
            return DatabaseConnectionError(
                f"The connection to {self.location} was lost: {reason}. "
                "The next call connects again."
            )
        return NotebookError(f"{self.location} could not answer: {reason}")


class PostgresSession:
    """One snapshot on a connection that the reader lent.

    Streams that were not read to their end are closed by ``streams``: a COPY holds the
    connection's lock, and the reader's rollback would wait for it for ever.
    """

    def __init__(self, connection: psycopg.Connection[dict[str, Any]], streams: ExitStack) -> None:
        self.connection = connection
        self._streams = streams

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement of few rows and return them as dictionaries."""
        return self.connection.execute(self._sql(statement)).fetchall()

    def batches(
        self,
        statement: sa.Select[Any] | sa.CompoundSelect[Any],
        schema: pa.Schema,
        each: Each | None = None,
    ) -> Generator[pa.RecordBatch]:
        """Stream a statement's rows."""
        copy = b"COPY (" + self._sql(statement) + b") TO STDOUT (FORMAT csv)"
        blocks = _copy_blocks(self.connection, copy)
        return self._streams.enter_context(closing(record_batches(blocks, schema, _CSV, each)))

    def explain(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> str:
        """Return EXPLAIN's text."""
        rows = self.connection.execute(b"EXPLAIN " + self._sql(statement)).fetchall()
        return "\n".join(row["QUERY PLAN"] for row in rows)

    def _sql(self, statement: sa.Executable) -> bytes:
        if self.connection.lock.locked():
            # It would wait for itself for ever.
            raise RuntimeError("A stream of this session is still open: read or close it first.")
        compiled = cast(Any, statement).compile(
            dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
        )
        # COPY takes no server-side parameters; psycopg binds them here, quoted by libpq.
        cursor = psycopg.ClientCursor(self.connection)
        return cursor.mogrify(str(compiled), compiled.params).encode()


def _copy_blocks(connection: psycopg.Connection[Any], statement: bytes) -> Generator[Block]:
    """Yield COPY's rows in blocks.

    ``Copy.read`` runs a generator for each row, which costs more than the row. libpq's
    own call takes the rows that have already arrived; ``Copy.read`` serves where one must wait,
    and so keeps psycopg's handling of interrupts. An exception in the block makes
    psycopg cancel the query on the server. Each row is copied at once: a list of psycopg's
    buffers would keep the garbage collector busier than the rows keep us.
    """
    get_copy_data = connection.pgconn.get_copy_data
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        wanted = FIRST_BYTES
        data, longest = bytearray(), 0
        while True:
            row: Buffer
            count, row = get_copy_data(1)
            if count == 0:
                row = copy.read()
                count = len(row)
                if count == 0:
                    break
            elif count < 0:
                _finish(connection)
                break
            data += row
            if count > longest:
                longest = count
            if len(data) >= wanted:
                yield Block(data, longest, last=False)
                data, longest = bytearray(), 0
                wanted = min(wanted * 3 // 2, LARGEST_BYTES)
    if data:
        yield Block(data, longest, last=True)


def _finish(connection: psycopg.Connection[Any]) -> None:
    """Take the result that ends a COPY; raise its error if it has one."""
    failure: psycopg.Error | None = None
    while (result := connection.pgconn.get_result()) is not None:
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            field = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
            state = (field or b"XX000").decode()
            failure = psycopg.errors.lookup(state)(result.get_error_message())
    if failure is not None:
        raise failure
