"""A psycopg connection with a deadline for every wait.

psycopg waits for a response without limit, and after Ctrl-C it waits for the server again. On a
network that drops packets, both can take many minutes. Reading and control use this class.
"""

from __future__ import annotations

import configparser
import math
import os
import selectors
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg import generators, waiting

from dbos_notebook.errors import LocationError, raise_without_context
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from dbos_notebook.database.location import Location

Row = TypeVar("Row")
T = TypeVar("T")

CONNECT_SECONDS = 10
"""Timeout for connecting, if ``statement_timeout`` is not shorter."""
GRACE_SECONDS = 2.0
"""Time to wait for a response beyond ``statement_timeout``: the server cancels the statement
itself, and its error message is better."""
CANCEL_SECONDS = 2.0
"""Timeout of a request to cancel a statement, which runs on a thread of its own."""
CANCEL_JOIN_SECONDS = 0.5
"""How long a caller waits for that request, so that it is sent even if the process exits now."""
STOP_COPY_SECONDS = 1.0
"""How long to wait for the server to stop sending when a stream is closed early."""
_CHECK_SECONDS = 0.1
"""How often a wait checks its deadline and handles Ctrl-C."""


class NoAnswerError(psycopg.OperationalError):
    """The server has sent nothing before the deadline."""


def time_limit(statement_timeout: float | None) -> float | None:
    """Return how many seconds to wait for a response; ``None`` means no limit.

    Examples
    --------
    >>> time_limit(30)
    32.0
    """
    return None if statement_timeout is None else statement_timeout + GRACE_SECONDS


def connection_parameters(location: Location, statement_timeout: float | None) -> dict[str, Any]:
    """Return the arguments of ``BoundedConnection.connect`` for a location, **with its password**.

    A silently dropped connection is detected by ``tcp_user_timeout`` while a request is sent and by
    keepalives while a response is awaited. The location's own parameters take precedence.
    """
    limit = time_limit(statement_timeout)
    own = dict(location.parameters)
    # Resolve the service here: psycopg tries several hosts only if it sees them, and libpq would
    # not let the service override the defaults below.
    own = {**read_service(str(own.pop("service"))), **own} if "service" in own else own
    hosts = str(own.get("host") or "").count(",") + 1
    default = CONNECT_SECONDS if limit is None else min(CONNECT_SECONDS, limit)
    # connect_timeout applies to each host; libpq treats less than 2 s as 2 s.
    per_host = own.get("connect_timeout") or None
    try:
        total = default if per_host is None else float(per_host) * hosts
    except ValueError:
        own.clear()  # a traceback may show local variables, and this one has the password
        raise_without_context(
            LocationError(
                f"connect_timeout={sanitize(per_host, 100)!r} of {location} is not a number of "
                "seconds."
            )
        )
    return {
        "total_timeout": total + 1.0 if total > 0 else None,
        "connect_timeout": max(2, int(default / hosts)),
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int((25.0 if limit is None else limit) * 1000),
        "application_name": "dbos_notebook",
        **own,
        "client_encoding": "utf8",
    }


def read_service(name: str) -> dict[str, str]:
    """Return the parameters of a libpq service from the files that libpq reads.

    Returns
    -------
    dict
        ``{"service": name}`` if no file defines it: libpq then raises the error.
    """
    user_file = os.environ.get("PGSERVICEFILE") or os.path.expanduser("~/.pg_service.conf")
    system_file = os.path.join(os.environ.get("PGSYSCONFDIR", ""), "pg_service.conf")
    for file in (user_file, system_file):
        parser = configparser.RawConfigParser(
            delimiters=("=",), comment_prefixes=("#",), default_section=""
        )
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        if parser.has_section(name):
            return dict(parser.items(name))
    return {"service": name}


class BoundedConnection(psycopg.Connection[Row]):
    """A connection whose waits end at a deadline, and immediately at Ctrl-C.

    Attributes
    ----------
    time_limit
        Seconds that one wait may take if no ``deadline`` is set; ``None`` means no limit.
    deadline
        The ``time.monotonic()`` at which every wait ends. Set it before a statement.
    extends_deadline
        Whether data from the server moves the deadline to ``time_limit`` seconds from then, because
        a slow network is not a dead one.
    """

    time_limit: float | None = None
    deadline: float | None = None
    extends_deadline = False
    _canceller: threading.Thread | None = None

    @classmethod
    def connect(  # type: ignore[override]  # psycopg's arguments and one more
        cls, *args: Any, total_timeout: float | None = None, **kwargs: Any
    ) -> Self:
        """Connect like psycopg, within ``total_timeout`` seconds including the DNS lookup.

        This runs on a separate thread, because the operating system's resolver can be interrupted
        neither by Ctrl-C nor by a deadline.
        """
        future: Future[Self] = Future()
        abandoned = threading.Event()
        connect = super().connect

        def run() -> None:
            try:
                connection = connect(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - future.result() raises it
                future.set_exception(error)
                return
            future.set_result(connection)
            if abandoned.is_set():
                connection.close()

        threading.Thread(target=run, name="dbos_notebook_connect", daemon=True).start()
        deadline = math.inf if total_timeout is None else time.monotonic() + total_timeout
        try:
            while True:
                try:
                    return future.result(timeout=_CHECK_SECONDS)
                except TimeoutError:
                    if future.done() or time.monotonic() <= deadline:
                        continue
                    raise NoAnswerError(f"no response within {total_timeout:.0f} s") from None
        except BaseException:
            abandoned.set()
            if future.done() and future.exception() is None:
                future.result().close()
            raise

    def wait(
        self, gen: PQGen[T], interval: float = _CHECK_SECONDS, timeout: float | None = None
    ) -> T:
        """Run a psycopg generator on this connection, up to the deadline."""
        if self.abandoned:
            raise psycopg.OperationalError("the connection was abandoned")
        deadline, limit = self.deadline, self.time_limit if timeout is None else timeout
        if limit is not None and (deadline is None or timeout is not None):
            deadline = min(deadline or math.inf, time.monotonic() + limit)
        try:
            bounded = gen if deadline is None else self._run_until(gen, deadline)
            return waiting.wait(bounded, self.pgconn.socket, interval=_CHECK_SECONDS)
        except (KeyboardInterrupt, NoAnswerError):
            self.abandon()
            raise

    def _run_until(self, gen: PQGen[T], deadline: float) -> PQGen[T]:
        """Run a psycopg generator up to a deadline."""
        try:
            state = next(gen)
            while True:
                ready = yield state
                state = gen.send(ready)
                now = time.monotonic()
                if ready and self.extends_deadline and self.time_limit is not None:
                    self.deadline = deadline = now + self.time_limit
                elif now > deadline:
                    raise NoAnswerError("no response before the deadline")
        except StopIteration as end:
            result: T = end.value
            return result

    @property
    def abandoned(self) -> bool:
        """Whether the connection was abandoned after a timeout or Ctrl-C."""
        return self._canceller is not None

    @property
    def closed(self) -> bool:
        """Whether the connection is closed or abandoned."""
        if self._canceller not in (None, threading.current_thread()):
            return True
        return super().closed

    def close(self) -> None:
        """Close the connection, unless it is already being closed."""
        if not self.abandoned:
            super().close()

    def abandon(self) -> None:
        """Cancel the running statement and close the connection without waiting for the server."""
        if not self.abandoned:
            self._canceller = threading.Thread(target=self._cancel_and_finish, daemon=True)
            self._canceller.start()
            # The server usually responds at once, and then the statement has ended.
            self._canceller.join(CANCEL_JOIN_SECONDS)

    def _cancel_and_finish(self) -> None:
        try:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.cancel_safe(timeout=CANCEL_SECONDS)
        except psycopg.Error:
            pass  # unreachable: the server's statement_timeout ends the statement
        finally:
            self.pgconn.finish()

    def _try_cancel(self, *, timeout: float = CANCEL_JOIN_SECONDS) -> None:
        # psycopg calls this when an exception leaves a COPY block, and would wait for 5 s.
        super()._try_cancel(timeout=min(timeout, CANCEL_JOIN_SECONDS))

    def stop_copying(self) -> None:
        """Cancel a COPY that was not read to its end; abandon the connection if that fails."""
        self.deadline = time.monotonic() + STOP_COPY_SECONDS
        try:
            self.cancel_safe(timeout=STOP_COPY_SECONDS)
            self.wait(_discard(self.pgconn))
        except psycopg.errors.QueryCanceled:
            pass  # as requested
        except psycopg.Error:
            self.abandon()

    def is_alive(self) -> bool:
        """Return whether an idle connection is still usable. Sends nothing."""
        try:
            for _ in range(10):
                with selectors.DefaultSelector() as selector:
                    selector.register(self.pgconn.socket, selectors.EVENT_READ)
                    if not selector.select(0):
                        break
                # The server sent a notice or closed the connection.
                self.pgconn.consume_input()
        except (psycopg.Error, OSError, ValueError):
            return False
        return bool(self.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE)


def _discard(pgconn: psycopg.pq.abc.PGconn) -> Generator[Any, Any, None]:
    """Read and discard the remaining rows of a COPY."""
    while isinstance((yield from generators.copy_from(pgconn)), memoryview):
        pass
