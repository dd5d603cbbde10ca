"""The transactions in which control writes, on Postgres and SQLite: bounded in time, tracked."""

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

from dbos_notebook.control.dbos_client import asks_for_isolation
from dbos_notebook.database.connection import BoundedConnection, NoAnswerError, time_limit
from dbos_notebook.database.postgres import IDLE_IN_TRANSACTION_SECONDS
from dbos_notebook.database.sqlite import BUSY_TIMEOUT_SECONDS
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

# One request: limits that are stricter already are kept, and 0 is none. lock_timeout comes first,
# because its error says what was waited for. A moment has microseconds, so that it identifies the
# transaction together with the process; it is kept only where the server tracks it.
_BEGIN = """
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
# The server's own, also behind a pooler or a load balancer. None through a Unix socket.
_ADDRESS = (
    "pg_catalog.host(pg_catalog.inet_server_addr()) || ' ' || pg_catalog.inet_server_port()::text"
)
STATEMENT_SECONDS = 1.0
"""How much longer a statement may take than the wait for a lock."""

# A process whose state this role may not see may still run the transaction: a session under
# another role (SET ROLE) does not see what it does itself. A server that was restarted has ended
# all transactions, and is known by its address. Of another server, such as a standby that was
# started later or took over, nothing can be concluded.
_OVER = """
    SELECT asked.number AS number,
        CASE WHEN here.standby THEN false
        WHEN asked.server = here.started THEN NOT EXISTS (
            SELECT 1 FROM pg_catalog.pg_stat_activity AS a
            WHERE a.pid = asked.pid
                AND (a.state IS NULL OR a.state = 'disabled'
                    OR (EXTRACT(EPOCH FROM a.xact_start) * 1000000)::bigint = asked.began)
        ) ELSE asked.address = here.address AND here.started > asked.began END AS over
    FROM (
        SELECT number, pid, server, began, address
        FROM unnest(CAST(:pids AS integer[]), CAST(:servers AS bigint[]),
            CAST(:begans AS bigint[]), CAST(:addresses AS text[]))
            WITH ORDINALITY AS asked (pid, server, began, address, number)
    ) AS asked
    CROSS JOIN (
        SELECT (EXTRACT(EPOCH FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint
            AS started, pg_catalog.pg_is_in_recovery() AS standby, {address} AS address
    ) AS here
"""


class GivenUpError(NoAnswerError):
    """The call was given up: Ctrl-C came, or another call had failed."""


class NoConnectionError(psycopg.OperationalError):
    """There is no further connection to be had. Nothing was begun; others of ours are open."""


@dataclass
class Transaction:
    """One transaction that control began.

    Attributes
    ----------
    pid
        The server's process that ran it; 0 where unknown.
    server
        When the server started, in microseconds since 1970: it tells servers apart.
    began
        When it began, in microseconds since 1970 by the server's clock; ``None`` where unknown.
    commit_sent
        Whether the server was asked to commit. Before that it can only be rolled back.
    address
        The address at which the server takes connections; ``None`` on a Unix socket.
    fate
        ``committed``; ``aborted``; ``over`` where only its rows show which; ``None`` while it may
        go on.
    """

    pid: int
    server: int
    began: int | None
    address: str | None = None
    commit_sent: bool = False
    fate: str | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether it may be committed yet, so that its rows do not show what will be."""
        return self.commit_sent and self.fate is None


class Attempt:
    """One call of DBOS as its connection sees it: when it must end, and its transactions."""

    def __init__(self, statement_timeout: float | None, server: int = 0) -> None:
        self._limit = time_limit(statement_timeout)
        self.server = server
        self.restart()
        self.transactions: list[Transaction] = []
        # What the server said that it waits for, when somebody last looked.
        self.waits_for: str | None = None
        self._lock = threading.Lock()
        self._given_up = False

    def restart(self) -> None:
        """Let the time begin now."""
        self.began = self.looked_at = time.monotonic()
        self.began_at = dt.datetime.now(dt.UTC)
        self.deadline = None if self._limit is None else self.began + self._limit

    @contextmanager
    def hurried(self, seconds: float) -> Iterator[None]:
        """Wait no longer than that for what the block asks, unless less time is left."""
        whole = self.deadline
        self.deadline = min(whole or math.inf, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.deadline = whole

    def give_up(self) -> None:
        """End what is under way; nothing is committed from now on that was not asked for yet."""
        with self._lock:
            self._given_up = True

    def check(self) -> None:
        """Raise where the call was given up, or its time is over."""
        if self._given_up:
            raise GivenUpError("the call was given up")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise NoAnswerError("no answer came in time")

    def committing(self, transaction: Transaction) -> None:
        """Note that COMMIT is about to be sent, unless the call was given up."""
        with self._lock:
            if not self._given_up:
                transaction.commit_sent = True
        self.check()

    @property
    def in_doubt(self) -> list[Transaction]:
        """The transactions of which it is not known whether they were committed."""
        return [each for each in self.transactions if each.in_doubt]

    @property
    def wrote(self) -> bool:
        """Whether anything was committed, or may have been."""
        return any(each.commit_sent and each.fate != "aborted" for each in self.transactions)


class ControlConnection(BoundedConnection[Any]):
    """A connection that notes the transactions of the attempt which uses it."""

    attempt: Attempt | None = None
    noted: Transaction | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server, until the attempt's time is over or it is given up."""
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
        """Begin a transaction, with its limits, and refuse where it could not write."""
        self.attempt, self.noted = attempt, None
        attempt.check()
        self.noted = transaction = self._begun(statement_timeout)
        attempt.transactions.append(transaction)
        if attempt.server and transaction.server not in (0, attempt.server):
            raise DatabaseConnectionError(
                f"{location} leads to another server than a moment ago, when this call was made "
                "ready: it was restarted, another one took over, or several stand behind the "
                "address. Call again; an address of several hosts needs "
                "target_session_attrs=read-write."
            )

    def _begun(self, statement_timeout: float | None) -> Transaction:
        found = self._last(_begin(statement_timeout))
        standby, read_only, pid, server, began, address = found
        if standby:
            raise ReadOnlyError(STANDBY)
        if read_only:
            raise ReadOnlyError(READ_ONLY_SESSION)
        return Transaction(pid, server, began, address)

    def _last(self, request: str) -> tuple[Any, ...]:
        with self.cursor() as cursor:
            cursor.execute(request.encode())
            while cursor.nextset():
                pass
            row: tuple[Any, ...] | None = cursor.fetchone()
        if row is None:
            raise psycopg.InterfaceError("BEGIN returned no row")
        return row

    def commit(self) -> None:
        """Commit, and note how far that came."""
        transaction, attempt = self.noted, self.attempt
        if transaction is None or attempt is None:
            super().commit()
            return
        attempt.committing(transaction)
        try:
            super().commit()
        except psycopg.Error as error:
            if error.sqlstate and not self.closed:
                # The server has refused it, and lives.
                transaction.fate = "aborted"
            raise
        transaction.fate = "committed"

    def _cancel_and_finish(self) -> None:
        if self.noted is not None and self.noted.in_doubt:
            # To cancel a COMMIT that waits for a standby would make it visible before it is safe.
            self.pgconn.finish()
        else:
            super()._cancel_and_finish()


STANDBY = "the server is a standby, which can only be read"
READ_ONLY_SESSION = (
    "its sessions are read-only (default_transaction_read_only is on for the role, the database "
    "or the server)"
)


def _begin(statement_timeout: float | None) -> str:
    lock = 0 if statement_timeout is None else max(1, int(statement_timeout * 1000))
    limits = {
        "lock_timeout": lock,
        "statement_timeout": lock and lock + int(STATEMENT_SECONDS * 1000),
        # A notebook that is suspended in between must not keep its locks.
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_SECONDS * 1000,
    }
    # dbos before 2.12 asks for this level at its first statement, which is too late here unless it
    # is the level already.
    isolation = " ISOLATION LEVEL REPEATABLE READ" if asks_for_isolation() else ""
    return _BEGIN.format(
        isolation=isolation,
        address=_ADDRESS,
        limits=", ".join(f"('{name}', {ms})" for name, ms in limits.items()),
    )


def settle(session: Session, transactions: Sequence[Transaction]) -> None:
    """Ask the server which transactions are over, and note it.

    Rows must be read in a later transaction than this session's, which began before the answer.
    """
    known = [each for each in transactions if each.began is not None and each.server]
    if not known:
        return
    statement = sa.text(_OVER.format(address=_ADDRESS)).bindparams(
        pids=_array([each.pid for each in known]),
        servers=_array([each.server for each in known]),
        begans=_array([each.began for each in known]),
        addresses="{"
        + ",".join(f'"{each.address}"' if each.address else "NULL" for each in known)
        + "}",
    )
    for row in session.rows(statement):
        if row["over"]:
            known[row["number"] - 1].fate = "over"


_WHERE = """
    SELECT (EXTRACT(EPOCH FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS started,
        pg_catalog.pg_is_in_recovery() AS standby
"""
Elsewhere = Literal["a standby", "another server"]


def read_elsewhere(session: Session, server: int) -> Elsewhere | None:
    """Return what answers, if it is not the server that was started at this moment.

    What it shows may be older than what was committed, or be without it.
    """
    found = session.rows(sa.text(_WHERE))[0]
    if found["standby"]:
        return "a standby"
    return None if found["started"] == server else "another server"


def _array(numbers: Sequence[int | None]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


# Who holds what our transaction waits for. A role may not see what others' sessions do.
_WAITS = """
    SELECT waiting.pid AS waiting, waiting.wait_event_type AS kind, waiting.wait_event AS event,
        holder.pid AS pid, holder.usename AS role, holder.application_name AS application,
        holder.state AS state,
        EXTRACT(EPOCH FROM clock_timestamp() - holder.xact_start)::float8 AS seconds
    FROM pg_catalog.pg_stat_activity AS waiting
    LEFT JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS blocking (pid) ON true
    LEFT JOIN pg_catalog.pg_stat_activity AS holder ON holder.pid = blocking.pid
    WHERE waiting.pid = ANY (CAST(:pids AS integer[]))
"""


def read_waits(session: Session, pids: Sequence[int]) -> dict[int, str]:
    """Say what the server's processes wait for, of those that wait for something known."""
    found: dict[int, list[str]] = {}
    statement = sa.text(_WAITS).bindparams(pids=_array(pids))
    for row in session.rows(statement):
        if row["event"] == "SyncRep":
            found[row["waiting"]] = ["its COMMIT waits for a synchronous standby"]
        elif row["pid"] is not None:
            found.setdefault(row["waiting"], []).append(_holder(row))
    return {pid: _joined(parts) for pid, parts in found.items()}


def _holder(row: dict[str, Any]) -> str:
    about = [
        f"role {sanitize(row['role'])}" if row["role"] else "",
        f"application {sanitize(row['application'])!r}" if row["application"] else "",
        row["state"] or "",
    ]
    if row["seconds"] is not None:
        about.append(f"in its transaction for {row['seconds']:.0f} s")
    told = ", ".join(part for part in about if part)
    return f"session {row['pid']}{f' ({told})' if told else ''}"


def _joined(parts: Sequence[str]) -> str:
    if parts[0].startswith("its COMMIT"):
        return parts[0]
    return f"it waited for a lock held by {' and '.join(dict.fromkeys(parts))}"


_TRY_SECONDS = 0.05
_STEPS = 10_000
"""How many instructions of SQLite's a statement runs between two looks at the clock."""
_LOCKED = ("database is locked", "database table is locked")


class FileConnection(sqlite3.Connection):
    """A connection that waits for locks itself, and notes the transactions of an attempt."""

    attempt: Attempt | None = None
    noted: Transaction | None = None
    patience: float = BUSY_TIMEOUT_SECONDS

    def begin(self, attempt: Attempt) -> None:
        """Begin a transaction, as the one that may write now."""
        self.attempt, self.noted = attempt, None
        self._wait_for("BEGIN IMMEDIATE")
        self.noted = Transaction(0, 0, None)
        attempt.transactions.append(self.noted)

    def commit(self) -> None:
        """Commit, unless the call was given up, and note how far that came."""
        transaction, attempt = self.noted, self.attempt
        if transaction is None or attempt is None or not self.in_transaction:
            super().commit()
            return
        try:
            attempt.committing(transaction)
            self._wait_for("COMMIT")
        except BaseException:
            # SQLite has either kept the transaction, which is rolled back, or has ended it: then
            # its rows show how.
            kept = self.in_transaction
            if kept:
                self.rollback()
            transaction.fate = "aborted" if kept else "over"
            raise
        transaction.fate = "committed"

    def is_over(self) -> bool:
        """Return whether a statement has to end: the call was given up, or its time is over."""
        try:
            if self.attempt is not None:
                self.attempt.check()
        except NoAnswerError:
            return True
        return False

    def _wait_for(self, statement: str) -> None:
        deadline = time.monotonic() + self.patience
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
    return str(error).startswith(_LOCKED)


def make_engine(
    url: str, location: Location, statement_timeout: float | None, attempt: Callable[[], Attempt]
) -> sa.Engine:
    """Return the engine whose connection DBOS uses on a SQLite file.

    Parameters
    ----------
    url
        SQLAlchemy's URL of the file.
    attempt
        Returns the call of the thread that asks.
    """
    patience = min(BUSY_TIMEOUT_SECONDS, statement_timeout or BUSY_TIMEOUT_SECONDS)

    def connected(connection: FileConnection, _record: Any) -> None:
        # Transactions are begun by ``begin`` below, as DBOS's own engine does: as a writer.
        connection.isolation_level = None
        connection.patience = patience
        connection.execute("PRAGMA foreign_keys=ON")
        connection.set_progress_handler(connection.is_over, _STEPS)

    def begin(connection: sa.Connection) -> None:
        driver = connection.connection.driver_connection
        if not isinstance(driver, FileConnection):
            raise TypeError(f"{type(driver)} is no connection of this engine")
        try:
            driver.begin(attempt())
        except (sqlite3.Error, NoAnswerError) as error:
            told = problem(error, location, statement_timeout)
            if told is None and isinstance(error, sqlite3.Error):
                # As SQLAlchemy does with errors of its own statements.
                raise sa.exc.DBAPIError.instance(
                    "BEGIN IMMEDIATE", None, error, sqlite3.Error
                ) from error
            raise told or error from None

    def failed(context: sa.engine.ExceptionContext) -> None:
        # Not DBOS's business: it would try again for ever.
        error = context.original_exception
        interrupted = isinstance(error, sqlite3.OperationalError) and str(error) == "interrupted"
        if interrupted:
            try:
                attempt().check()
            except NoAnswerError as why:
                error = why
        told = problem(error, location, statement_timeout)
        if told is not None:
            raise told

    engine = sa.create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        poolclass=sa.pool.QueuePool,
        connect_args={
            "timeout": min(_TRY_SECONDS, patience),
            "check_same_thread": False,
            "factory": FileConnection,
        },
    )
    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", begin)
    sa.event.listen(engine, "handle_error", failed)
    return engine


def locked(location: Location) -> DatabaseLockedError:
    """Return the error of a file that another process does not let go."""
    return DatabaseLockedError(
        f"{location} stayed locked by another process. Try again when its write is done."
    )


def problem(
    error: BaseException, location: Location, statement_timeout: float | None
) -> NotebookError | None:
    """Return what ended a call on a file in our words; ``None``: something else did."""
    if isinstance(error, GivenUpError):
        return DatabaseConnectionError(
            f"The call on {location} was given up: it was interrupted, or its client was closed."
        )
    if isinstance(error, NoAnswerError):
        return QueryTimeoutError(
            f"The call of DBOS on {location} took longer than "
            f"statement_timeout={statement_timeout:g} s allows. Call again with fewer workflows, "
            "or connect(…, statement_timeout=…) with more."
        )
    return locked(location) if _is_locked(error) else None
