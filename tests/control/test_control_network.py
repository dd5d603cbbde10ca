"""Control with a silent network, locks and poolers: limited in time, leaving no trace."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from raw_rows import set_status
from servers import PostgresServer, Proxy, start_pgbouncer, wait_until

import dbos_notebook as dn
from dbos_notebook.control.transactions import ControlConnection


@pytest.fixture
def name(corpus_postgres: Callable[[str], str]) -> str:
    """The name of a new database."""
    from sqlalchemy.engine import make_url

    return str(make_url(corpus_postgres("3.4.0")).database)


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(postgres_server) as proxy:
        yield proxy


def time_to_fail(call: Callable[[], Any], error: type[BaseException]) -> tuple[float, Any]:
    """Return how many seconds a call took to fail, and its error."""
    started = time.monotonic()
    with pytest.raises(error) as caught:
        call()
    return time.monotonic() - started, caught.value


def press_ctrl_c_after(delay: float) -> None:
    threading.Timer(delay, os.kill, [os.getpid(), signal.SIGINT]).start()


@pytest.fixture(params=["while it connects", "in the middle"])
def go_silent(
    request: pytest.FixtureRequest, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dn.Plan], None]:
    """Make the network silent when DBOS is called, after everything has been read."""

    def at_the_call(plan: dn.Plan) -> None:
        call, begin = plan.operation.call, ControlConnection.begin

        def silent(client: Any, items: Any) -> Any:
            proxy.silent = True
            return call(client, items)

        def silent_when_begun(self: ControlConnection, *arguments: Any) -> None:
            begin(self, *arguments)
            proxy.silent = True

        if request.param == "in the middle":
            monkeypatch.setattr(ControlConnection, "begin", silent_when_begun)
        else:
            object.__setattr__(plan.operation, "call", silent)

    return at_the_call


def test_a_silent_network_stops_a_call_in_time(
    name: str, proxy: Proxy, go_silent: Callable[[dn.Plan], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with dn.connect(proxy.url(name), statement_timeout=1.0) as db:
        assert db.cancel("queued-2").ok  # imports everything
        plan = db.cancel("queued-1", plan=True)
        go_silent(plan)
        seconds, error = time_to_fail(plan.apply, dn.PartialFailureError)
        assert seconds < 1.0 + 5.0
        assert "has not responded" in str(error) or "Cannot reach" in str(error)
        # No COMMIT was sent.
        assert [line.outcome for line in error.receipt.lines] == ["failed"]
        # Idle connections, too: reading before the call is also limited in time.
        seconds, _ = time_to_fail(lambda: db.cancel("queued-1"), dn.DatabaseConnectionError)
        assert seconds < 1.0 + 5.0
        proxy.silent = False
        proxy.cut()
        monkeypatch.undo()
        assert db.cancel("queued-1").counts["done"] == 1


def test_ctrl_c_stops_a_call_on_a_silent_network_at_once(
    name: str, proxy: Proxy, go_silent: Callable[[dn.Plan], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with dn.connect(proxy.url(name), statement_timeout=60.0) as db:
        plan = db.cancel("queued-1", plan=True)
        go_silent(plan)
        press_ctrl_c_after(1.0)
        seconds, error = time_to_fail(plan.apply, dn.ControlInterrupt)
        assert 1.0 < seconds < 1.0 + 1.5  # 1.5 s for a busy machine
        assert [line.outcome for line in error.receipt.lines] == ["failed"]
        assert error.plan is plan
        proxy.silent = False
        proxy.cut()
        monkeypatch.undo()
        assert db.cancel("queued-1").counts["done"] == 1


def test_ctrl_c_stops_reading_on_a_silent_network(name: str, proxy: Proxy) -> None:
    with dn.connect(proxy.url(name), statement_timeout=60.0) as db:
        plan = db.cancel("queued-1", plan=True)
        proxy.silent = True
        press_ctrl_c_after(0.5)
        seconds, error = time_to_fail(plan.apply, dn.ControlInterrupt)
        assert seconds < 0.5 + 1.5
        assert [line.detail for line in error.receipt.lines] == ["not started: interrupted"]
        proxy.silent = False
        proxy.cut()


def test_a_lock_of_another_session_stops_a_call_in_time_and_is_named(
    name: str, postgres_server: PostgresServer
) -> None:
    url = postgres_server.url(name)
    with (
        dn.connect(url, statement_timeout=3.0) as db,
        psycopg.connect(url, application_name="shop's worker") as app,
    ):
        app.execute("SELECT 1 FROM dbos.workflow_status FOR UPDATE")
        seconds, error = time_to_fail(lambda: db.cancel("queued-1"), dn.PartialFailureError)
        assert seconds < 3.0 + 5.0
        assert isinstance(error.__cause__, dn.QueryTimeoutError)
        assert f"a lock held by session {app.info.backend_pid}" in str(error)
        assert 'application "shop\'s worker", idle in transaction' in str(error)
        assert [line.outcome for line in error.receipt.lines] == ["failed"]
        press_ctrl_c_after(0.5)
        seconds, error = time_to_fail(error.plan.apply, dn.ControlInterrupt)
        assert seconds < 0.5 + 1.5
        app.rollback()
        assert error.plan.apply().counts["done"] == 1


def test_a_stricter_timeout_of_the_database_is_kept(
    name: str, postgres_server: PostgresServer
) -> None:
    url = postgres_server.url(name)
    with postgres_server.admin() as admin:
        admin.execute(f"ALTER DATABASE {name} SET lock_timeout = '200ms'".encode())
    with dn.connect(url) as db, psycopg.connect(url) as app:
        app.execute("SELECT 1 FROM dbos.workflow_status FOR UPDATE")
        seconds, error = time_to_fail(lambda: db.cancel("queued-1"), dn.PartialFailureError)
        assert seconds < 3.0
        assert "lock timeout" in str(error)
        assert "was lost" not in str(error)


def test_control_leaves_no_connection_open(name: str, postgres_server: PostgresServer) -> None:
    def controlling() -> int:
        with postgres_server.admin(name) as admin:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
                "application_name = 'dbos_notebook' AND query NOT LIKE '%READ ONLY%' AND "
                "query <> 'ROLLBACK'"
            ).fetchone()
        assert row is not None
        return int(row[0])

    with dn.connect(postgres_server.url(name)) as db:
        assert db.cancel(["queued-1", "queued-2"]).ok
        assert db.fork(["checkout-1", "checkout-2", "checkout-3"], "first").ok
        wait_until(lambda: controlling() == 0, 2)


def test_transactions_have_timeouts_so_that_a_suspended_notebook_keeps_no_lock(
    name: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, commit = [], ControlConnection.commit

    def read_limits_then_commit(self: ControlConnection) -> None:
        limits.append(
            self.execute(
                "SELECT current_setting('idle_in_transaction_session_timeout'), "
                "current_setting('lock_timeout'), current_setting('statement_timeout')"
            ).fetchone()
        )
        commit(self)

    monkeypatch.setattr(ControlConnection, "commit", read_limits_then_commit)
    with dn.connect(postgres_server.url(name)) as db:
        assert db.cancel("queued-1").ok
    assert limits == [("1min", "30s", "31s")]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_control_through_a_pooler_leaves_no_setting(
    name: str, postgres_server: PostgresServer, mode: Any
) -> None:
    with (
        start_pgbouncer(postgres_server, mode, pool_size=2) as bouncer,
        dn.connect(bouncer.url(name)) as db,
    ):
        assert db.cancel("queued-1").counts["done"] == 1
        assert db.fork(["checkout-1", "checkout-2"], "charge", key="k").counts["done"] == 2
        assert db.set_attributes("attributed", {"a": 1}, merge=True).ok
        db.close()
        # An application that uses the same server connections.
        for _ in range(3):
            with psycopg.connect(bouncer.url(name), autocommit=True) as app:
                for setting, value in (
                    ("statement_timeout", "0"),
                    ("lock_timeout", "0"),
                    ("idle_in_transaction_session_timeout", "0"),
                    ("default_transaction_read_only", "off"),
                ):
                    row = app.execute(f"SHOW {setting}".encode()).fetchone()
                    assert row == (value,), setting


@pytest.mark.parametrize("size", [1, 2])
def test_a_small_session_pool_is_enough_for_reading_and_control(
    name: str, postgres_server: PostgresServer, size: int
) -> None:
    ids = ["attributed", "checkout-1", "checkout-2", "checkout-4"]
    with (
        start_pgbouncer(postgres_server, "session", pool_size=size) as bouncer,
        dn.connect(bouncer.url(name), statement_timeout=10.0) as db,
    ):
        assert db.cancel("queued-1").counts["done"] == 1
        receipt = db.set_attributes(ids, {"size": size})
        assert receipt.counts["done"] == 4
        assert {line.status_after for line in receipt.lines} == {"SUCCESS"}
        assert db.fork(ids[1:3], "charge").counts["done"] == 2


def test_control_reconnects_after_a_pooler_was_restarted(
    name: str, postgres_server: PostgresServer, proxy: Proxy
) -> None:
    with dn.connect(proxy.url(name)) as db:
        assert db.cancel("queued-1").ok
        proxy.cut()
        set_status(db, "queued-1", "ENQUEUED")
        assert db.cancel("queued-1").counts["done"] == 1
