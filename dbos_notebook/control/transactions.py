"""The transactions of control, on Postgres and SQLite: limited in time, with known outcomes."""

from __future__ import annotations

import datetime as dt
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import sqlalchemy as sa

from dbos_notebook.control.dbos_client import sets_isolation_level
from dbos_notebook.database.connection import BoundedConnection, NoAnswerError, time_limit
from dbos_notebook.database.postgres import IDLE_IN_TRANSACTION_SECONDS
from dbos_notebook.database.sqlite import BUSY_TIMEOUT_SECONDS, define_unixepoch
from dbos_notebook.errors import (
    DatabaseConnectionError,
    DatabaseLockedError,
    NotebookError,
    QueryTimeoutError,
    ReadOnlyError,
)
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session

STANDBY = "the server is a standby, which is read-only"
READ_ONLY_SESSION = (
    "its sessions are read-only (default_transaction_read_only is on for the role, the database "
    "or the server)"
)
OtherServer = Literal["a standby", "another server"]
Outcome = Literal["committed", "aborted", "ended"]

_STATEMENT_GRACE_SECONDS = 1.0
"""How much longer than ``lock_timeout`` a statement may take."""
_RETRY_SECONDS = 0.05
"""How long SQLite itself waits for a lock, before the connection checks its attempt."""
_INSTRUCTIONS_PER_CHECK = 10_000
"""How many instructions SQLite executes between two checks of the attempt."""
_LOCKED_MESSAGES = ("database is locked", "database table is locked")

# One request. Stricter limits of the session are kept, and 0 means no limit. lock_timeout is the
# shortest, because its error names the cause. The start of a transaction has microseconds, so that
# it and the process ID identify the transaction; it is NULL where the server does not track it.
_BEGIN_SQL = """
    BEGIN{isolation};
    SELECT pg_catalog.set_config(name, LEAST(NULLIF(now, 0), wanted)::text, true)
    FROM (
        SELECT name, wanted,
            (EXTRACT(EPOCH FROM pg_catalog.current_setting(name)::interval) * 1000)::bigint AS now
        FROM (VALUES {limits}) AS ours (name, wanted)
    ) AS limits
    WHERE wanted > 0;
    SELECT pg_catalog.pg_is_in_recovery(),
        pg_catalog.current_setting('transaction_read_only') = 'on',
        pg_catalog.pg_backend_pid(),
        (EXTRACT(EPOCH FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,
        CASE WHEN pg_catalog.current_setting('track_activities') = 'on'
        THEN (EXTRACT(EPOCH FROM pg_catalog.now()) * 1000000)::bigint END,
        {address}
"""
# The server's own address, also behind a pooler or a load balancer. NULL on a Unix socket.
_ADDRESS_SQL = (
    "pg_catalog.host(pg_catalog.inet_server_addr()) || ' ' || pg_catalog.inet_server_port()::text"
)
# A process whose state this role may not see may still run the transaction: after SET ROLE a
# session does not even see its own state. A server that was restarted has ended all transactions;
# it is identified by its address. Another server, such as a standby that was started later or
# promoted, proves nothing.
_ENDED_SQL = """
    SELECT tx.number AS number,
        CASE WHEN here.standby THEN false
        WHEN tx.server = here.started THEN NOT EXISTS (
            SELECT 1 FROM pg_catalog.pg_stat_activity AS a
            WHERE a.pid = tx.pid
                AND (a.state IS NULL OR a.state = 'disabled'
                    OR (EXTRACT(EPOCH FROM a.xact_start) * 1000000)::bigint = tx.started)
        ) ELSE tx.address = here.address AND here.started > tx.started END AS ended
    FROM (
        SELECT number, pid, server, started, address
        FROM unnest(CAST(:pids AS integer[]), CAST(:servers AS bigint[]),
            CAST(:starts AS bigint[]), CAST(:addresses AS text[]))
            WITH ORDINALITY AS tx (pid, server, started, address, number)
    ) AS tx
    CROSS JOIN (
        SELECT (EXTRACT(EPOCH FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint
            AS started, pg_catalog.pg_is_in_recovery() AS standby, {address} AS address
    ) AS here
"""
_SERVER_SQL = """
    SELECT (EXTRACT(EPOCH FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS started,
        pg_catalog.pg_is_in_recovery() AS standby
"""
# The holders of the locks that processes wait for. Columns are NULL where this role may not see
# another session.
_WAITS_SQL = """
    SELECT waiting.pid AS waiting, waiting.wait_event_type AS kind, waiting.wait_event AS event,
        holder.pid AS pid, holder.usename AS role, holder.application_name AS application,
        holder.state AS state,
        EXTRACT(EPOCH FROM clock_timestamp() - holder.xact_start)::float8 AS seconds
    FROM pg_catalog.pg_stat_activity AS waiting
    LEFT JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS blocking (pid) ON true
    LEFT JOIN pg_catalog.pg_stat_activity AS holder ON holder.pid = blocking.pid
    WHERE waiting.pid = ANY (CAST(:pids AS integer[]))
"""


class CallAbortedError(NoAnswerError):
    """The call was aborted after Ctrl-C, the failure of another call, or the client's close."""


class NoConnectionError(psycopg.OperationalError):
    """No further connection is available. Nothing was begun; the pool has other connections."""


@dataclass
class Transaction:
    """One transaction that control began.

    Attributes
    ----------
    pid
        The server process that runs it; 0 if unknown.
    server
        When the server started, in microseconds since 1970, which identifies it.
    started
        When it began, in microseconds since 1970 by the server's clock; ``None`` if unknown.
    commit_sent
        Whether COMMIT was sent. Before that it can only be rolled back.
    address
        The address at which the server accepts connections; ``None`` on a Unix socket.
    outcome
        ``ended``: committed or aborted, which only its rows show. ``None``: it may still run.
    """

    pid: int
    server: int
    started: int | None
    address: str | None = None
    commit_sent: bool = False
    outcome: Outcome | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether it may still be committed, so that its rows do not show the outcome yet."""
        return self.commit_sent and self.outcome is None


class Attempt:
    """One call of DBOS as its connection sees it: its deadline and its transactions.

    Attributes
    ----------
    waits_for
        What the server's process was waiting for when it was last checked.
    """

    def __init__(self, statement_timeout: float | None, server: int = 0) -> None:
        self._limit = time_limit(statement_timeout)
        self.server = server
        self.restart()
        self.transactions: list[Transaction] = []
        self.waits_for: str | None = None
        self._lock = threading.Lock()
        self._aborted = False

    def restart(self) -> None:
        """Start the time limit now."""
        self.started = self.checked_at = time.monotonic()
        self.started_at = dt.datetime.now(dt.UTC)
        self.deadline = None if self._limit is None else self.started + self._limit

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Shorten the deadline during a block, unless less time is left."""
        deadline = self.deadline
        self.deadline = min(deadline or math.inf, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.deadline = deadline

    def abort(self) -> None:
        """Stop the call. A COMMIT that was not sent yet is not sent any more."""
        with self._lock:
            self._aborted = True

    def check(self) -> None:
        """Raise if the call was aborted or its deadline has passed."""
        if self._aborted:
            raise CallAbortedError("the call was aborted")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise NoAnswerError("no answer before the deadline")

    def before_commit(self, transaction: Transaction) -> None:
        """Record that COMMIT is about to be sent, or raise if the call was aborted."""
        with self._lock:
            if not self._aborted:
                transaction.commit_sent = True
        self.check()

    @property
    def in_doubt(self) -> list[Transaction]:
        """The transactions that may or may not be committed."""
        return [transaction for transaction in self.transactions if transaction.in_doubt]

    @property
    def wrote(self) -> bool:
        """Whether anything was committed, or may have been."""
        return any(
            transaction.commit_sent and transaction.outcome != "aborted"
            for transaction in self.transactions
        )


class ControlConnection(BoundedConnection[Any]):
    """A Postgres connection that records its transactions in the attempt that uses it."""

    attempt: Attempt | None = None
    current_transaction: Transaction | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server until the attempt is aborted or its deadline passes."""
        return super().wait(self._checked(gen), interval, timeout)

    def _checked(self, gen: PQGen[Any]) -> PQGen[Any]:
        attempt = self.attempt
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and attempt is not None:
                    attempt.check()
                state = gen.send(ready)
        except StopIteration as end:
            return end.value

    def begin(self, attempt: Attempt, statement_timeout: float | None, location: Location) -> None:
        """Begin a transaction with its limits; raise if it cannot write."""
        self.attempt, self.current_transaction = attempt, None
        attempt.check()
        self.current_transaction = transaction = self._begin_transaction(statement_timeout)
        attempt.transactions.append(transaction)
        if attempt.server and transaction.server not in (0, attempt.server):
            raise DatabaseConnectionError(
                f"{location} leads to another server than when this call was prepared: the server "
                "was restarted, another one took over, or the address has several servers. Call "
                "again; an address of several hosts needs target_session_attrs=read-write."
            )

    def _begin_transaction(self, statement_timeout: float | None) -> Transaction:
        row = self._last_row(_begin(statement_timeout))
        standby, read_only, pid, server, started, address = row
        if standby:
            raise ReadOnlyError(STANDBY)
        if read_only:
            raise ReadOnlyError(READ_ONLY_SESSION)
        return Transaction(pid, server, started, address)

    def _last_row(self, request: str) -> tuple[Any, ...]:
        with self.cursor() as cursor:
            cursor.execute(request.encode())
            while cursor.nextset():
                pass
            row: tuple[Any, ...] | None = cursor.fetchone()
        if row is None:
            raise psycopg.InterfaceError("BEGIN returned no row")
        return row

    def commit(self) -> None:
        """Commit, and record the outcome."""
        transaction, attempt = self.current_transaction, self.attempt
        if transaction is None or attempt is None:
            super().commit()
            return
        attempt.before_commit(transaction)
        try:
            super().commit()
        except psycopg.Error as error:
            if error.sqlstate and not self.closed:
                # The server has refused it and the connection is intact.
                transaction.outcome = "aborted"
            raise
        transaction.outcome = "committed"

    def _cancel_and_finish(self) -> None:
        if self.current_transaction is not None and self.current_transaction.in_doubt:
            # Cancelling a COMMIT that waits for a standby makes it visible before it is replicated.
            self.pgconn.finish()
        else:
            super()._cancel_and_finish()


def _begin(statement_timeout: float | None) -> str:
    lock_timeout = 0 if statement_timeout is None else max(1, int(statement_timeout * 1000))
    limits = {
        "lock_timeout": lock_timeout,
        "statement_timeout": lock_timeout and lock_timeout + int(_STATEMENT_GRACE_SECONDS * 1000),
        # A notebook that is suspended during a transaction must not keep its locks.
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_SECONDS * 1000,
    }
    # dbos before 2.12 sets this level in its first statement, which fails here, after another
    # statement, unless the transaction has the level already.
    isolation = " ISOLATION LEVEL REPEATABLE READ" if sets_isolation_level() else ""
    return _BEGIN_SQL.format(
        isolation=isolation,
        address=_ADDRESS_SQL,
        limits=", ".join(f"('{name}', {ms})" for name, ms in limits.items()),
    )


def update_outcomes(session: Session, transactions: Sequence[Transaction]) -> None:
    """Ask the server which transactions have ended, and set their ``outcome``.

    Their rows must be read in another session afterwards: this session's snapshot is older than
    the answer.
    """
    known = [
        transaction
        for transaction in transactions
        if transaction.started is not None and transaction.server
    ]
    if not known:
        return
    statement = sa.text(_ENDED_SQL.format(address=_ADDRESS_SQL)).bindparams(
        pids=_array([transaction.pid for transaction in known]),
        servers=_array([transaction.server for transaction in known]),
        starts=_array([transaction.started for transaction in known]),
        addresses="{"
        + ",".join(
            f'"{transaction.address}"' if transaction.address else "NULL" for transaction in known
        )
        + "}",
    )
    for row in session.rows(statement):
        if row["ended"]:
            known[row["number"] - 1].outcome = "ended"


def read_other_server(session: Session, server: int) -> OtherServer | None:
    """Return what kind of server answers, or ``None`` if it is the one with this start time.

    A transaction that was committed may be missing on another server.

    Parameters
    ----------
    server
        When the expected server started, in microseconds since 1970.
    """
    row = session.rows(sa.text(_SERVER_SQL))[0]
    if row["standby"]:
        return "a standby"
    return None if row["started"] == server else "another server"


def _array(numbers: Sequence[int | None]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def read_waits(session: Session, pids: Sequence[int]) -> dict[int, str]:
    """Return what server processes wait for, by process ID; others are left out."""
    reasons: dict[int, list[str]] = {}
    statement = sa.text(_WAITS_SQL).bindparams(pids=_array(pids))
    for row in session.rows(statement):
        if row["event"] == "SyncRep":
            reasons[row["waiting"]] = ["its COMMIT waits for a synchronous standby"]
        elif row["pid"] is not None:
            reasons.setdefault(row["waiting"], []).append(_describe_session(row))
    return {pid: _describe_waits(parts) for pid, parts in reasons.items()}


def _describe_session(row: dict[str, Any]) -> str:
    details = [
        f"role {sanitize(row['role'])}" if row["role"] else "",
        f"application {sanitize(row['application'])!r}" if row["application"] else "",
        row["state"] or "",
    ]
    if row["seconds"] is not None:
        details.append(f"in its transaction for {row['seconds']:.0f} s")
    text = ", ".join(detail for detail in details if detail)
    return f"session {row['pid']}{f' ({text})' if text else ''}"


def _describe_waits(parts: Sequence[str]) -> str:
    if parts[0].startswith("its COMMIT"):
        return parts[0]
    return f"it waited for a lock held by {' and '.join(dict.fromkeys(parts))}"


class SQLiteConnection(sqlite3.Connection):
    """A SQLite connection that waits for locks itself and records its transactions."""

    attempt: Attempt | None = None
    current_transaction: Transaction | None = None
    lock_timeout: float = BUSY_TIMEOUT_SECONDS

    def begin(self, attempt: Attempt) -> None:
        """Begin a transaction and take the write lock."""
        self.attempt, self.current_transaction = attempt, None
        self._wait_for("BEGIN IMMEDIATE")
        self.current_transaction = Transaction(0, 0, None)
        attempt.transactions.append(self.current_transaction)

    def commit(self) -> None:
        """Commit unless the call was aborted, and record the outcome."""
        transaction, attempt = self.current_transaction, self.attempt
        if transaction is None or attempt is None or not self.in_transaction:
            super().commit()
            return
        try:
            attempt.before_commit(transaction)
            self._wait_for("COMMIT")
        except BaseException:
            # Either the transaction is still open and is rolled back, or SQLite has ended it, and
            # only its rows show how.
            still_open = self.in_transaction
            if still_open:
                self.rollback()
            transaction.outcome = "aborted" if still_open else "ended"
            raise
        transaction.outcome = "committed"

    def must_stop(self) -> bool:
        """Return whether to interrupt a statement: the call was aborted or its time is over."""
        try:
            if self.attempt is not None:
                self.attempt.check()
        except NoAnswerError:
            return True
        return False

    def _wait_for(self, statement: str) -> None:
        deadline = time.monotonic() + self.lock_timeout
        while True:
            if self.attempt is not None:
                self.attempt.check()
            try:
                self.execute(statement)
            except sqlite3.OperationalError as error:
                if not _is_locked(error) or time.monotonic() > deadline:
                    raise
            else:
                return


def _is_locked(error: BaseException) -> bool:
    return str(error).startswith(_LOCKED_MESSAGES)


def make_sqlite_engine(
    url: str, location: Location, statement_timeout: float | None, attempt: Callable[[], Attempt]
) -> sa.Engine:
    """Return the engine that DBOS uses for a SQLite file.

    Parameters
    ----------
    url
        The file's SQLAlchemy URL.
    attempt
        Returns the attempt of the calling thread.
    """
    lock_timeout = min(BUSY_TIMEOUT_SECONDS, statement_timeout or BUSY_TIMEOUT_SECONDS)

    def connected(connection: SQLiteConnection, _record: object) -> None:
        # ``begin`` below begins transactions, with the write lock as DBOS's own engine does.
        connection.isolation_level = None
        connection.lock_timeout = lock_timeout
        connection.execute("PRAGMA foreign_keys=ON")
        define_unixepoch(connection)
        connection.set_progress_handler(connection.must_stop, _INSTRUCTIONS_PER_CHECK)

    def begin(connection: sa.Connection) -> None:
        driver = connection.connection.driver_connection
        if not isinstance(driver, SQLiteConnection):
            raise TypeError(f"{type(driver)} is not a connection of this engine")
        try:
            driver.begin(attempt())
        except (sqlite3.Error, NoAnswerError) as error:
            translated = sqlite_error(error, location, statement_timeout)
            if translated is None and isinstance(error, sqlite3.Error):
                # As SQLAlchemy wraps errors of its own statements.
                raise sa.exc.DBAPIError.instance(
                    "BEGIN IMMEDIATE", None, error, sqlite3.Error
                ) from error
            raise translated or error from None

    def failed(context: sa.engine.ExceptionContext) -> None:
        # DBOS would retry after SQLAlchemy's own error, without end.
        error = context.original_exception
        if isinstance(error, sqlite3.OperationalError) and str(error) == "interrupted":
            try:
                attempt().check()
            except NoAnswerError as reason:
                error = reason
        translated = sqlite_error(error, location, statement_timeout)
        if translated is not None:
            raise translated

    engine = sa.create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        poolclass=sa.pool.QueuePool,
        connect_args={
            "timeout": min(_RETRY_SECONDS, lock_timeout),
            "check_same_thread": False,
            "factory": SQLiteConnection,
        },
    )
    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", begin)
    sa.event.listen(engine, "handle_error", failed)
    return engine


def sqlite_error(
    error: BaseException, location: Location, statement_timeout: float | None
) -> NotebookError | None:
    """Return a call's error on a SQLite file as one of this package; ``None`` for others."""
    if isinstance(error, CallAbortedError):
        return DatabaseConnectionError(
            f"The DBOS call on {location} was aborted: it was interrupted, or its client was "
            "closed."
        )
    if isinstance(error, NoAnswerError):
        return QueryTimeoutError(
            f"The DBOS call on {location} exceeded statement_timeout={statement_timeout:g} s. "
            "Call again with fewer workflows, or connect(…, statement_timeout=…) with a longer "
            "timeout."
        )
    if _is_locked(error):
        return DatabaseLockedError(
            f"{location} stayed locked by another process. Try again when its write has finished."
        )
    return None
