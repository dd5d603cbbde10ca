"""A lazily created ``DBOSClient`` and the thread pool that calls it.

Calls run on threads because a cell runs inside an event loop, where DBOS warns about blocking
calls, and because waiting for a thread lets Ctrl-C in. ``DBOSClient`` runs no migrations, and a
SQLite file is opened so that it is never created. The connections are those of ``transactions``:
no setting outlives a transaction, and no connection stays open after a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from dbos_notebook.database.fork_safety import keep_for_parent, reset_after_fork
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

    from dbos_notebook.control.transactions import Attempt
    from dbos_notebook.database.location import Location
from dbos_notebook.control import safe_serializer
from dbos_notebook.control.dbos_client import make_client
from dbos_notebook.control.permissions import not_allowed, read_only

T = TypeVar("T")

POSTGRES_CONNECTIONS = 6
"""Calls at a time, each on a connection of its own. SQLite has one writer: there it is one."""
ANOTHER_SECONDS = 2
"""How long one more connection is waited for, while others are open: a pool may have no more."""
_UNREACHED = ("connection failed", "connection to server", "connection is bad", "failed to resolve")


class ClientPool:
    """Calls DBOS's own client, and tells its errors in ours."""

    def __init__(
        self,
        location: Location,
        schema: str | None,
        application_name: str | None,
        statement_timeout: float | None = None,
    ) -> None:
        self.location = location
        self.width = 1 if location.path else POSTGRES_CONNECTIONS
        self.schema = schema
        self.application_name = application_name
        self.statement_timeout = statement_timeout
        self._closed = False
        self._reset()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child: threads are not forked, connections are the parent's."""
        keep_for_parent(self._client, self._engine, self._pool)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._client: DBOSClient | None = None
        self._engine: sa.Engine | None = None
        self._file: tuple[int, int] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._here = threading.local()
        self._uses = 0
        # How many calls run, and how many may: as many as there are connections to be had.
        self._turn = threading.Condition()
        self._calling = 0
        # Connections that are kept for the next call of DBOS, and hold a place in a pool.
        self._kept = 0
        self._places = self.width
        # The calls that run now.
        self._attempts: set[Attempt] = set()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run something on one of the pool's threads."""
        with self._lock:
            self._require_open()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.width, thread_name_prefix="dbos_control")
            return self._pool.submit(call)

    @property
    def closed(self) -> bool:
        """Whether the client was closed, such as by another thread while a call runs."""
        return self._closed

    def _require_open(self) -> None:
        if self._closed:
            raise self.closed_error()

    def closed_error(self) -> DatabaseConnectionError:
        """Return the error of a call on a client that is closed."""
        return DatabaseConnectionError(
            f"This client is closed ({self.location}). Call connect() again."
        )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep connections open from one call of DBOS to the next, until the block ends."""
        with self._lock:
            self._uses += 1
        try:
            yield
        finally:
            with self._lock:
                self._uses -= 1
                engine = self._engine if self._uses == 0 else None
            if engine is not None:
                with self._turn:
                    self._kept = 0
                engine.dispose()

    @contextmanager
    def attempting(self, attempt: Attempt) -> Iterator[None]:
        """Let the transactions that this thread begins be noted in an attempt."""
        with self._turn:
            self._turn.wait_for(lambda: self._calling < self._places)
            self._calling += 1
            self._attempts.add(attempt)
        self._here.attempt = attempt
        attempt.restart()
        try:
            yield
        finally:
            del self._here.attempt
            with self._turn:
                self._calling -= 1
                self._attempts.discard(attempt)
                self._turn.notify_all()

    def make_do(self, error: BaseException) -> bool:
        """Do with fewer connections if an error says so; return whether to call again."""
        from dbos_notebook.control.transactions import NoConnectionError

        if not isinstance(getattr(error, "orig", None) or error, NoConnectionError):
            return False
        with self._turn:
            self._places = max(1, min(self._places, self._calling) - 1)
        return True

    def _others_open(self) -> bool:
        """Whether other connections of ours are open, which may be all that there are."""
        return self._calling > 1 or self._kept > 0

    def client(self) -> DBOSClient:
        """Return DBOS's client; only the pool's threads ask for it."""
        with self._lock:
            # The client was closed meanwhile: another engine would be closed by nobody.
            self._require_open()
            file = self._which_file()
            if self._engine is not None and file != self._file:
                self._engine.dispose()
            self._file = file
            if self._client is None:
                self._engine = self._engine_of_file() if self.location.path else self._made_engine()
                self._client = make_client(
                    system_database_engine=self._engine,
                    dbos_system_schema=self.schema,
                    system_database_pool_size=self.width,
                    application_name=self.application_name,
                    serializer=safe_serializer.serializer,
                    # Connecting is left to the first call, and a cell must not hang on a database
                    # that is gone.
                    lazy=True,
                    retry_connection_errors=False,
                )
            return self._client

    def _engine_of_file(self) -> sa.Engine:
        """Return the engine whose connection DBOS uses on a SQLite file."""
        import sqlalchemy as sa

        from dbos_notebook.control.transactions import make_engine

        engine = make_engine(
            self._sqlite_url(), self.location, self.statement_timeout, self._attempt
        )
        sa.event.listen(engine, "checkin", self._returned)
        return engine

    def _attempt(self) -> Attempt:
        """Return the call of this thread."""
        from dbos_notebook.control.transactions import Attempt

        found: Attempt | None = getattr(self._here, "attempt", None)
        return found or Attempt(self.statement_timeout)

    def _returned(self, _connection: Any, record: Any) -> None:
        # A call that was given up may end after the others.
        if self._uses == 0 or self._closed:
            record.invalidate()

    def _made_engine(self) -> sa.Engine:
        """Return the engine whose connections DBOS uses on Postgres."""
        import psycopg
        import sqlalchemy as sa

        from dbos_notebook.control.transactions import ControlConnection, NoConnectionError
        from dbos_notebook.database.connection import (
            NoAnswerError,
            connection_parameters,
            time_limit,
        )

        attempt = self._attempt

        def connect(_dialect: Any, _record: Any, _args: Any, given: dict[str, Any]) -> Any:
            hurry = {"connect_timeout": ANOTHER_SECONDS} if self._others_open() else {}
            try:
                connection = ControlConnection.connect(
                    **connection_parameters(self.location, self.statement_timeout) | hurry,
                    **given,
                    # Each transaction is begun by a request of ours, not by one of psycopg's.
                    autocommit=True,
                    prepare_threshold=None,
                )
            except psycopg.OperationalError as error:
                # 53300: the server, or the role, may have no more.
                scarce = isinstance(error, psycopg.errors.ConnectionTimeout)
                if self._others_open() and (scarce or "too many connections" in str(error)):
                    raise NoConnectionError(str(error)) from None
                raise
            # Set here and not in a listener for "connect", which comes after SQLAlchemy's own
            # first statements on the first connection: they must be bounded as well.
            connection.attempt = current = attempt()
            connection.deadline = current.deadline
            connection.time_limit = time_limit(self.statement_timeout)
            return connection

        def begin(connection: sa.Connection) -> None:
            # Whoever uses the pool of another engine has another class.
            driver = connection.connection.driver_connection
            if not isinstance(driver, ControlConnection):
                raise TypeError(f"{type(driver)} is no connection of this engine")
            current, others = attempt(), self._others_open()
            try:
                with current.hurried(ANOTHER_SECONDS) if others else nullcontext():
                    driver.begin(current, self.statement_timeout, self.location)
            except NoAnswerError as error:
                connection.invalidate(error)
                current.check()
                if others:
                    # A pooler lets everybody in, and then has no connection to the server left.
                    raise NoConnectionError("no connection came in time") from error
                raise
            except Exception as error:
                if driver.closed:
                    connection.invalidate(error)
                raise

        def returned(connection: Any, record: Any) -> None:
            # A call that was given up may end after the others, and any after the client's close.
            if self._uses == 0 or self._closed:
                record.invalidate()
            elif connection is not None and not connection.closed:
                record.info["kept"] = True
                with self._turn:
                    self._kept += 1

        def taken(_connection: Any, record: Any, _proxy: Any) -> None:
            if record.info.pop("kept", False):
                with self._turn:
                    self._kept = max(0, self._kept - 1)

        engine = sa.create_engine(
            "postgresql+psycopg://",
            pool_size=self.width,
            max_overflow=0,
            use_native_hstore=False,
        )
        sa.event.listen(engine, "do_connect", connect)
        sa.event.listen(engine, "begin", begin)
        sa.event.listen(engine, "checkin", returned)
        sa.event.listen(engine, "checkout", taken)
        return engine

    def _which_file(self) -> tuple[int, int] | None:
        """Tell a SQLite file from another one of the same name.

        Who begins anew puts one in its place; a connection would go on with the one that is gone.
        """
        if not self.location.path:
            return None
        try:
            found = self.location.path.stat()
        except OSError:  # the call says what is wrong
            return self._file
        return found.st_dev, found.st_ino

    def _sqlite_url(self) -> str:
        import sqlalchemy as sa

        # mode=rw: a file that has gone is an error, not a new file.
        name = f"file:{quote(str(self.location.path))}"
        query = {"mode": "rw", "uri": "true"}
        return str(sa.URL.create("sqlite", database=name, query=query))

    def close(self) -> None:
        """Close DBOS's client and end the threads. Safe to call twice."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            client, self._client = self._client, None
            engine, self._engine = self._engine, None
        if self.location.path:
            # Nothing is written once the client is closed.
            with self._turn:
                running = list(self._attempts)
            for attempt in running:
                attempt.give_up()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        if client is not None:
            client.destroy()
        if engine is not None:
            engine.dispose()

    def reason(self, error: BaseException) -> str:
        """Say in one line, without secrets or SQL, what went wrong."""
        # SQLAlchemy's text has the statement and its parameters, which are payloads.
        original = getattr(error, "orig", None) or error
        lines = str(original).strip().splitlines() or [type(original).__name__]
        return self.location.redact(lines[0])

    def fatal(self, error: BaseException, attempt: Attempt | None = None) -> NotebookError | None:
        """Return the error that ends a whole call; ``None``: it is about one workflow alone."""
        import psycopg
        import sqlalchemy as sa

        if isinstance(error, ReadOnlyError):
            return read_only(self.location, str(error))
        if isinstance(error, NotebookError):
            return error
        if isinstance(error, sa.exc.TimeoutError):
            return DatabaseConnectionError(f"{self.location} gave no connection in 30 s.")
        original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if isinstance(original, psycopg.Error):
            return self._fatal_in_postgres(original, attempt)
        if not isinstance(error, sa.exc.DBAPIError):
            return None
        reason = self.reason(error)
        if "readonly" in reason:
            return not_allowed(self.location, reason)
        lost = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
        if lost or error.connection_invalidated:
            return DatabaseConnectionError(f"The connection to {self.location} was lost: {reason}.")
        return None

    def _fatal_in_postgres(
        self, error: psycopg.Error, attempt: Attempt | None
    ) -> NotebookError | None:
        import psycopg

        from dbos_notebook.database.connection import NoAnswerError

        reason, state = self.reason(error), error.sqlstate or ""
        limit = self.statement_timeout
        waits_for = attempt.waits_for if attempt else None
        if isinstance(error, NoAnswerError):
            if waits_for:
                return self._waited(waits_for)
            told = "" if limit is None else f", longer than statement_timeout={limit:g} allows"
            return DatabaseConnectionError(
                f"{self.location} has not answered{told}: the network, or what stands between, may "
                "have dropped the connection. The next call connects again."
            )
        if "statement pooling mode" in reason:
            return DatabaseConnectionError(
                f"{self.location} is a connection pooler in statement pooling mode, which allows "
                f"no transactions ({reason}), and DBOS needs them: use the database itself, or a "
                "pool in transaction or session mode."
            )
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return read_only(self.location, reason)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return not_allowed(self.location, reason)
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return self._waited(waits_for or f"it waited for a lock ({reason})")
        if isinstance(error, psycopg.errors.QueryCanceled):
            if waits_for:
                return self._waited(waits_for)
            return QueryCancelledError(
                f"{self.location} cancelled the statement ({reason}): its time was over, by "
                "connect(…, statement_timeout=…) or a stricter one of the role, the database or "
                "the server; or somebody cancelled it."
            )
        # Without a state, the words are libpq's: no server has answered. 57P: it shut down.
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            if isinstance(error, psycopg.errors.ConnectionTimeout) or reason.startswith(_UNREACHED):
                return DatabaseConnectionError(f"Cannot reach {self.location}: {reason}.")
            if not state or state.startswith(("57P", "08")):
                return DatabaseConnectionError(
                    f"The connection to {self.location} was lost: {reason}."
                )
            if state.startswith("53"):
                # Disk full, too many connections: it would be the same for the next.
                return NotebookError(f"{self.location} could not do it: {reason}.")
        return None

    def _waited(self, what: str) -> QueryTimeoutError:
        limit = self.statement_timeout
        allowed = "" if limit is None else f" longer than statement_timeout={limit:g} s allows"
        return QueryTimeoutError(
            f"The call of DBOS on {self.location} took{allowed or ' too long'}: {what}. Call again "
            "when that has ended, or connect(…, statement_timeout=…) with more."
        )
