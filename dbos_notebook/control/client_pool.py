"""A lazily created ``DBOSClient`` and the thread pool that calls it.

Calls run on threads because a notebook's cell runs inside an event loop, where DBOS warns about
blocking calls, and because Ctrl-C can interrupt the wait for a thread. ``DBOSClient`` runs no
migrations, and a SQLite file is opened in a mode that never creates it. The connections are those
of ``transactions``: no setting outlives a transaction, and no connection stays open after a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from dbos_notebook.control.dbos_client import make_client
from dbos_notebook.control.permissions import not_allowed, read_only
from dbos_notebook.control.safe_serializer import safe_serializer
from dbos_notebook.database.process_fork import keep_for_parent, reset_after_fork
from dbos_notebook.errors import (
    DatabaseConnectionError,
    NotebookError,
    QueryCancelledError,
    QueryTimeoutError,
    ReadOnlyError,
)

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy as sa
    from dbos import DBOSClient
    from sqlalchemy.pool import ConnectionPoolEntry

    from dbos_notebook.control.transactions import Attempt
    from dbos_notebook.database.location import Location

T = TypeVar("T")

MAX_CALLS = 6
"""Concurrent calls on Postgres, each with its own connection. SQLite allows one writer, so one."""
EXTRA_CONNECTION_SECONDS = 2
"""How long to wait for another connection while some are open: a pooler may have no more."""
_UNREACHABLE = (
    "connection failed",
    "connection to server",
    "connection is bad",
    "failed to resolve",
)


class ClientPool:
    """Calls DBOS's own client on threads and translates its errors.

    Attributes
    ----------
    max_calls
        How many calls run at the same time.
    """

    def __init__(
        self,
        location: Location,
        schema: str | None,
        application_name: str | None,
        statement_timeout: float | None = None,
    ) -> None:
        self.location = location
        self.max_calls = 1 if location.path else MAX_CALLS
        self.schema = schema
        self.application_name = application_name
        self.statement_timeout = statement_timeout
        self._closed = False
        self._reset()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Reset in a forked child: it has no threads, and the connections are the parent's."""
        keep_for_parent(self._client, self._engine, self._executor)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._client: DBOSClient | None = None
        self._engine: sa.Engine | None = None
        self._file_id: tuple[int, int] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._thread = threading.local()
        # How many blocks of keep_connections() are active.
        self._users = 0
        # The condition guards the four fields below.
        self._condition = threading.Condition()
        self._running = 0
        # At most as many calls run as there are connections available.
        self._limit = self.max_calls
        # Idle connections that are kept for the next call of DBOS, and occupy a pooler.
        self._idle = 0
        self._attempts: set[Attempt] = set()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run a function on one of the pool's threads."""
        with self._lock:
            self._require_open()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(
                    self.max_calls, thread_name_prefix="dbos_control"
                )
            return self._executor.submit(call)

    @property
    def closed(self) -> bool:
        """Whether the client was closed, for example by another thread during a call."""
        return self._closed

    def _require_open(self) -> None:
        if self._closed:
            raise self.closed_error()

    def closed_error(self) -> DatabaseConnectionError:
        """Return the error for a call on a closed client."""
        return DatabaseConnectionError(
            f"This client is closed ({self.location}). Call connect() again."
        )

    @contextmanager
    def keep_connections(self) -> Iterator[None]:
        """Keep connections open between calls of DBOS until the block ends."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                engine = self._engine if self._users == 0 else None
            if engine is not None:
                with self._condition:
                    self._idle = 0
                engine.dispose()

    @contextmanager
    def register(self, attempt: Attempt) -> Iterator[None]:
        """Record the transactions that this thread begins in an attempt."""
        with self._condition:
            self._condition.wait_for(lambda: self._running < self._limit)
            self._running += 1
            self._attempts.add(attempt)
        self._thread.attempt = attempt
        attempt.restart()
        try:
            yield
        finally:
            del self._thread.attempt
            with self._condition:
                self._running -= 1
                self._attempts.discard(attempt)
                self._condition.notify_all()

    def reduce_calls(self, error: BaseException) -> bool:
        """Run fewer calls at a time if no connection was available; return whether to retry."""
        from dbos_notebook.control.transactions import NoConnectionError

        if not isinstance(getattr(error, "orig", None) or error, NoConnectionError):
            return False
        with self._condition:
            self._limit = max(1, min(self._limit, self._running) - 1)
        return True

    def _others_open(self) -> bool:
        """Return whether this pool has other connections, which may be all that are available."""
        return self._running > 1 or self._idle > 0

    def client(self) -> DBOSClient:
        """Return DBOS's client. Only the pool's threads call this."""
        with self._lock:
            # If the client was closed meanwhile, nobody would close another engine.
            self._require_open()
            file_id = self._read_file_id()
            if self._engine is not None and file_id != self._file_id:
                self._engine.dispose()
            self._file_id = file_id
            if self._client is None:
                self._engine = (
                    self._sqlite_engine() if self.location.path else self._postgres_engine()
                )
                self._client = make_client(
                    system_database_engine=self._engine,
                    dbos_system_schema=self.schema,
                    system_database_pool_size=self.max_calls,
                    application_name=self.application_name,
                    serializer=safe_serializer,
                    # The first call connects, and a cell must not hang on a lost database.
                    lazy=True,
                    retry_connection_errors=False,
                )
            return self._client

    def _sqlite_engine(self) -> sa.Engine:
        """Return the engine that DBOS uses for a SQLite file."""
        import sqlalchemy as sa

        from dbos_notebook.control.transactions import make_sqlite_engine

        # mode=rw: a missing file is an error, not a new file.
        url = sa.URL.create(
            "sqlite",
            database=f"file:{quote(str(self.location.path))}",
            query={"mode": "rw", "uri": "true"},
        )
        engine = make_sqlite_engine(
            str(url), self.location, self.statement_timeout, self._current_attempt
        )

        def checkin(_connection: object, record: ConnectionPoolEntry) -> None:
            if not self._keeps_connections():
                record.invalidate()

        sa.event.listen(engine, "checkin", checkin)
        return engine

    def _current_attempt(self) -> Attempt:
        """Return the attempt of this thread."""
        from dbos_notebook.control.transactions import Attempt

        attempt: Attempt | None = getattr(self._thread, "attempt", None)
        return attempt or Attempt(self.statement_timeout)

    def _keeps_connections(self) -> bool:
        # False at the end of an aborted call that outlasts the others, or the client.
        return self._users > 0 and not self._closed

    def _postgres_engine(self) -> sa.Engine:
        """Return the engine that DBOS uses for Postgres."""
        import psycopg
        import sqlalchemy as sa

        from dbos_notebook.control.transactions import ControlConnection, NoConnectionError
        from dbos_notebook.database.connection import (
            NoAnswerError,
            connection_parameters,
            time_limit,
        )

        def connect(
            _dialect: object, _record: object, _arguments: object, options: dict[str, Any]
        ) -> ControlConnection:
            parameters = connection_parameters(self.location, self.statement_timeout)
            if self._others_open():
                parameters["connect_timeout"] = EXTRA_CONNECTION_SECONDS
            try:
                connection = ControlConnection.connect(
                    **parameters,
                    **options,
                    # ControlConnection.begin() begins each transaction, not psycopg.
                    autocommit=True,
                    prepare_threshold=None,
                )
            except psycopg.OperationalError as error:
                # 53300: the server or the role has reached its limit.
                timed_out = isinstance(error, psycopg.errors.ConnectionTimeout)
                if self._others_open() and (timed_out or "too many connections" in str(error)):
                    raise NoConnectionError(str(error)) from None
                raise
            # Set here and not in a listener for "connect", which runs after SQLAlchemy's own
            # first statements on the first connection: the deadline applies to them as well.
            connection.attempt = attempt = self._current_attempt()
            connection.deadline = attempt.deadline
            connection.time_limit = time_limit(self.statement_timeout)
            return connection

        def begin(connection: sa.Connection) -> None:
            driver = connection.connection.driver_connection
            if not isinstance(driver, ControlConnection):
                raise TypeError(f"{type(driver)} is not a connection of this engine")
            attempt, others = self._current_attempt(), self._others_open()
            try:
                with attempt.limit(EXTRA_CONNECTION_SECONDS) if others else nullcontext():
                    driver.begin(attempt, self.statement_timeout, self.location)
            except NoAnswerError as error:
                connection.invalidate(error)
                attempt.check()
                if others:
                    # A pooler accepts every client, even if no connection to the server is free.
                    raise NoConnectionError("no connection became available in time") from error
                raise
            except Exception as error:
                if driver.closed:
                    connection.invalidate(error)
                raise

        def checkin(connection: ControlConnection | None, record: ConnectionPoolEntry) -> None:
            if not self._keeps_connections():
                record.invalidate()
            elif connection is not None and not connection.closed:
                record.info["idle"] = True
                with self._condition:
                    self._idle += 1

        def checkout(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
            if record.info.pop("idle", False):
                with self._condition:
                    self._idle = max(0, self._idle - 1)

        engine = sa.create_engine(
            "postgresql+psycopg://",
            pool_size=self.max_calls,
            max_overflow=0,
            use_native_hstore=False,
        )
        sa.event.listen(engine, "do_connect", connect)
        sa.event.listen(engine, "begin", begin)
        sa.event.listen(engine, "checkin", checkin)
        sa.event.listen(engine, "checkout", checkout)
        return engine

    def _read_file_id(self) -> tuple[int, int] | None:
        """Return what identifies a SQLite file, which may be replaced by one of the same name.

        An open connection would continue to use the file that was replaced.
        """
        if not self.location.path:
            return None
        try:
            status = self.location.path.stat()
        except OSError:  # the call raises a better error
            return self._file_id
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Close DBOS's client and stop the threads. Safe to call twice."""
        with self._lock:
            self._closed = True
            executor, self._executor = self._executor, None
            client, self._client = self._client, None
            engine, self._engine = self._engine, None
        if self.location.path:
            # Nothing may be written after the client was closed.
            with self._condition:
                attempts = list(self._attempts)
            for attempt in attempts:
                attempt.abort()
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
        if client is not None:
            client.destroy()
        if engine is not None:
            engine.dispose()

    def reason(self, error: BaseException) -> str:
        """Return an error's message as one line without secrets or SQL."""
        # SQLAlchemy's message contains the statement and its parameters, which are payloads.
        original = getattr(error, "orig", None) or error
        lines = str(original).strip().splitlines() or [type(original).__name__]
        return self.location.redact(lines[0])

    def fatal(self, error: BaseException, attempt: Attempt | None = None) -> NotebookError | None:
        """Return the error that stops the whole call; ``None`` if it concerns one workflow only."""
        import psycopg
        import sqlalchemy as sa

        if isinstance(error, ReadOnlyError):
            return read_only(self.location, str(error))
        if isinstance(error, NotebookError):
            return error
        if isinstance(error, sa.exc.TimeoutError):
            return DatabaseConnectionError(
                f"No connection to {self.location} became available in 30 s. Call again."
            )
        original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if isinstance(original, psycopg.Error):
            return self._fatal_postgres_error(original, attempt)
        if not isinstance(error, sa.exc.DBAPIError):
            return None
        reason = self.reason(error)
        if "readonly" in reason:
            return not_allowed(self.location, reason)
        lost = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
        if lost or error.connection_invalidated:
            return DatabaseConnectionError(f"The connection to {self.location} was lost: {reason}.")
        return None

    def _fatal_postgres_error(
        self, error: psycopg.Error, attempt: Attempt | None
    ) -> NotebookError | None:
        import psycopg

        from dbos_notebook.database.connection import NoAnswerError

        reason, state = self.reason(error), error.sqlstate or ""
        limit = self.statement_timeout
        waits_for = attempt.waits_for if attempt else None
        if isinstance(error, NoAnswerError):
            if waits_for:
                return self._timeout_error(waits_for)
            within = "" if limit is None else f" within statement_timeout={limit:g} s"
            return DatabaseConnectionError(
                f"{self.location} has not responded{within}: the network, or a proxy in between, "
                "may have dropped the connection. The next call reconnects."
            )
        if "statement pooling mode" in reason:
            return DatabaseConnectionError(
                f"{self.location} is a connection pooler in statement pooling mode, which allows "
                f"no transactions ({reason}), but DBOS needs them. Connect to the database "
                "directly, or through a pool in transaction or session mode."
            )
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return read_only(self.location, reason)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return not_allowed(self.location, reason)
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return self._timeout_error(waits_for or f"it waited for a lock ({reason})")
        if isinstance(error, psycopg.errors.QueryCanceled):
            if waits_for:
                return self._timeout_error(waits_for)
            return QueryCancelledError(
                f"{self.location} cancelled the statement ({reason}): it exceeded "
                "connect(…, statement_timeout=…) or a stricter timeout of the role, the database "
                "or the server, or somebody cancelled it."
            )
        # Without SQLSTATE the message is libpq's: no server has answered. 57P: it shut down.
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            if isinstance(error, psycopg.errors.ConnectionTimeout) or reason.startswith(
                _UNREACHABLE
            ):
                return DatabaseConnectionError(f"Cannot reach {self.location}: {reason}.")
            if not state or state.startswith(("57P", "08")):
                return DatabaseConnectionError(
                    f"The connection to {self.location} was lost: {reason}."
                )
            if state.startswith("53"):
                # Disk full or too many connections: the next workflow would fail the same way.
                return NotebookError(
                    f"{self.location} lacks resources: {reason}. Call again later."
                )
        return None

    def _timeout_error(self, reason: str) -> QueryTimeoutError:
        limit = self.statement_timeout
        exceeded = "timed out" if limit is None else f"exceeded statement_timeout={limit:g} s"
        return QueryTimeoutError(
            f"The DBOS call on {self.location} {exceeded}: {reason}. Call again when that has "
            "ended, or connect(…, statement_timeout=…) with a longer timeout."
        )
