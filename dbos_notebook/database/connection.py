"""A psycopg connection on which nothing waits for the server longer than it may.

psycopg waits for an answer without bound, and after Ctrl-C it waits for the server once more. On a
network that drops packets both would last for many minutes. Reading and control use this class.
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

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from dbos_notebook.database.location import Location

Row = TypeVar("Row")
T = TypeVar("T")

CONNECT_SECONDS = 10
"""How long connecting may take, unless ``statement_timeout`` is less."""
GRACE_SECONDS = 2.0
"""How much longer than ``statement_timeout`` an answer is waited for: the server, whose own clock
ends the statement, has the better message."""
CANCEL_SECONDS = 2.0
"""How long a request to cancel a statement may take, on a thread of its own."""
NOTICE_SECONDS = 0.5
"""How long a caller waits for that request, so that it is sent also where the process ends now."""
STOP_SECONDS = 1.0
"""How long a stream that is left early waits for the server to stop sending."""
_CHECK_SECONDS = 0.1
"""How often a wait looks at its deadline and lets Ctrl-C in."""


class NoAnswerError(psycopg.OperationalError):
    """The server has sent nothing until the deadline."""


def time_limit(statement_timeout: float | None) -> float | None:
    """Return the seconds after which an answer no longer comes; ``None``: no bound.

    Examples
    --------
    >>> time_limit(30)
    32.0
    """
    return None if statement_timeout is None else statement_timeout + GRACE_SECONDS


def connection_parameters(location: Location, statement_timeout: float | None) -> dict[str, Any]:
    """Return the arguments of ``BoundedConnection.connect`` for a location, **with its password**.

    A connection that was lost without a word is noticed: while a request is under way by
    ``tcp_user_timeout``, while an answer is waited for by keepalives. What the location says itself
    comes first.
    """
    limit = time_limit(statement_timeout)
    given = dict(location.parameters)
    # psycopg tries several hosts in turn only where it sees them, and libpq would read what a
    # service says after what is set here.
    given = {**read_service(str(given.pop("service"))), **given} if "service" in given else given
    hosts = str(given.get("host") or "").count(",") + 1
    connecting = CONNECT_SECONDS if limit is None else min(CONNECT_SECONDS, limit)
    # Of each host. libpq takes less than 2 s as 2 s.
    each = given.get("connect_timeout")
    within = connecting if each is None else float(each) * hosts
    return {
        "within": within + 1.0 if within > 0 else None,
        "connect_timeout": max(2, int(connecting / hosts)),
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int((25.0 if limit is None else limit) * 1000),
        "application_name": "dbos_notebook",
        **given,
        "client_encoding": "utf8",
    }


def read_service(name: str) -> dict[str, str]:
    """Return what a service file says of a service, where libpq looks for one.

    Returns
    -------
    dict
        ``{"service": name}`` where no file has it: libpq then says what is wrong.
    """
    own = os.environ.get("PGSERVICEFILE") or os.path.expanduser("~/.pg_service.conf")
    files = [own, os.path.join(os.environ.get("PGSYSCONFDIR", ""), "pg_service.conf")]
    for file in files:
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
    """A connection whose waits end at a deadline, and at Ctrl-C at once.

    Attributes
    ----------
    time_limit
        Seconds that one wait may take where no ``deadline`` is set; ``None``: no bound.
    deadline
        When every wait ends, as ``time.monotonic`` counts. Set it before a statement.
    renewed
        Whether something that comes from the server moves the deadline to ``time_limit`` from then:
        a slow network is no silent one.
    """

    time_limit: float | None = None
    deadline: float | None = None
    renewed = False
    _canceller: threading.Thread | None = None

    @classmethod
    def connect(  # type: ignore[override]  # psycopg's arguments and one more
        cls, *args: Any, within: float | None = None, **kwargs: Any
    ) -> Self:
        """Connect as psycopg does, in so many seconds, looking up the host's name included.

        On a thread of its own: the operating system's resolver heeds neither Ctrl-C nor a deadline.
        """
        future: Future[Self] = Future()
        abandoned = threading.Event()
        connect = super().connect

        def run() -> None:
            try:
                connection = connect(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - raised below, where it is waited for
                future.set_exception(error)
                return
            future.set_result(connection)
            if abandoned.is_set():
                connection.close()

        threading.Thread(target=run, name="dbos_notebook_connect", daemon=True).start()
        deadline = math.inf if within is None else time.monotonic() + within
        try:
            while True:
                try:
                    return future.result(timeout=_CHECK_SECONDS)
                except TimeoutError:
                    if future.done() or time.monotonic() <= deadline:
                        continue
                    raise NoAnswerError(f"nobody answered within {within:.0f} s") from None
        except BaseException:
            abandoned.set()
            if future.done() and future.exception() is None:
                future.result().close()
            raise

    def wait(
        self, gen: PQGen[T], interval: float = _CHECK_SECONDS, timeout: float | None = None
    ) -> T:
        """Run a generator of psycopg's on this connection; see :class:`BoundedConnection`."""
        if self.abandoned:
            raise psycopg.OperationalError("the connection was given up")
        deadline, limit = self.deadline, self.time_limit if timeout is None else timeout
        if limit is not None and (deadline is None or timeout is not None):
            deadline = min(deadline or math.inf, time.monotonic() + limit)
        try:
            bounded = gen if deadline is None else self._until(gen, deadline)
            return waiting.wait(bounded, self.pgconn.socket, interval=_CHECK_SECONDS)
        except (KeyboardInterrupt, NoAnswerError):
            self.abandon()
            raise

    def _until(self, gen: PQGen[T], deadline: float) -> PQGen[T]:
        """Run a generator of psycopg's until a moment."""
        try:
            state = next(gen)
            while True:
                ready = yield state
                state = gen.send(ready)
                now = time.monotonic()
                if ready and self.renewed and self.time_limit is not None:
                    self.deadline = deadline = now + self.time_limit
                elif now > deadline:
                    raise NoAnswerError("no answer came in time")
        except StopIteration as end:
            result: T = end.value
            return result

    @property
    def abandoned(self) -> bool:
        """Whether it was given up: its server did not answer, or Ctrl-C came."""
        return self._canceller is not None

    @property
    def closed(self) -> bool:
        """Whether the connection can no longer be used; so it is once it was given up."""
        if self._canceller not in (None, threading.current_thread()):
            return True
        return super().closed

    def close(self) -> None:
        """Close the connection, unless that is under way."""
        if not self.abandoned:
            super().close()

    def abandon(self) -> None:
        """Cancel what the server does for this connection, and close it, without waiting for it."""
        if not self.abandoned:
            self._canceller = threading.Thread(target=self._cancel_and_finish, daemon=True)
            self._canceller.start()
            # Usually the server answers in no time, and then nothing is left running there.
            self._canceller.join(NOTICE_SECONDS)

    def _cancel_and_finish(self) -> None:
        try:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.cancel_safe(timeout=CANCEL_SECONDS)
        except psycopg.Error:
            # The server cannot be asked. It ends the statement by its own statement_timeout.
            pass
        finally:
            self.pgconn.finish()

    def _try_cancel(self, *, timeout: float = NOTICE_SECONDS) -> None:
        # psycopg calls this where a block that copies is left by an exception, and would take 5 s.
        super()._try_cancel(timeout=min(timeout, NOTICE_SECONDS))

    def stop_copying(self) -> None:
        """End a COPY that is not read to its end; give the connection up if that does not work."""
        self.deadline = time.monotonic() + STOP_SECONDS
        try:
            self.cancel_safe(timeout=STOP_SECONDS)
            self.wait(_discard(self.pgconn))
        except psycopg.errors.QueryCanceled:
            pass  # as was asked for
        except psycopg.Error:
            self.abandon()

    def is_alive(self) -> bool:
        """Return whether a connection that was kept idle can be used. Nothing is sent."""
        try:
            for _ in range(10):
                with selectors.DefaultSelector() as selector:
                    selector.register(self.pgconn.socket, selectors.EVENT_READ)
                    if not selector.select(0):
                        break
                # Something came unasked: a notice, or the end of the connection.
                self.pgconn.consume_input()
        except (psycopg.Error, OSError, ValueError):
            return False
        return bool(self.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE)


def _discard(pgconn: psycopg.pq.abc.PGconn) -> Generator[Any, Any, None]:
    """Read what a COPY still sends."""
    while isinstance((yield from generators.copy_from(pgconn)), memoryview):
        pass
