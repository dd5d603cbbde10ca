"""The transactions in which control writes to a SQLite file: bounded in time, and accounted for.

SQLite waits for a lock inside one call that nothing can end, so each try is short and the waiting
is done here. Who gives a call up while it waits, or before it commits, can rely on it that nothing
is written later.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dbos_notebook.control.transactions import Attempt, GivenUpError, Transaction
from dbos_notebook.database.connection import NoAnswerError
from dbos_notebook.database.sqlite import BUSY_TIMEOUT_SECONDS
from dbos_notebook.errors import (
    DatabaseConnectionError,
    DatabaseLockedError,
    NotebookError,
    QueryTimeoutError,
)

if TYPE_CHECKING:
    from dbos_notebook.database.locate import Location

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
