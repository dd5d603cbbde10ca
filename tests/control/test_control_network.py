"""Control over a silent network, locks and poolers: bounded in time, leaving no trace."""

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
    """A database of its own."""
    from sqlalchemy.engine import make_url

    return str(make_url(corpus_postgres("3.4.0")).database)


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(postgres_server) as proxy:
        yield proxy


def seconds(call: Callable[[], Any], error: type[BaseException]) -> tuple[float, Any]:
    """Return how long a call took to fail, and its error."""
    begun = time.monotonic()
    with pytest.raises(error) as caught:
        call()
    return time.monotonic() - begun, caught.value


def press_after(pause: float) -> None:
    threading.Timer(pause, os.kill, [os.getpid(), signal.SIGINT]).start()


@pytest.fixture(params=["while it connects", "in the middle"])
def go_silent(
    request: pytest.FixtureRequest, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dn.Plan], None]:
    """Let the network die when DBOS is called, after everything has been read."""

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


def test_a_call_on_a_silent_network_times_out(
    name: str, proxy: Proxy, go_silent: Callable[[dn.Plan], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with dn.connect(proxy.url(name), statement_timeout=1.0) as db:
        assert db.cancel("queued-2").ok  # everything is loaded
        plan = db.cancel("queued-1", plan=True)
        go_silent(plan)
        took, error = seconds(plan.apply, dn.PartialFailureError)
        assert took < 1.0 + 20.0  # otherwise it waits for minutes
        assert "has not answered" in str(error) or "Cannot reach" in str(error)
        # It had not been asked to commit anything.
        assert [line.outcome for line in error.receipt.lines] == ["failed"]
        # Idle connections, too: what is read before it is bounded as well.
        took, _ = seconds(lambda: db.cancel("queued-1"), dn.DatabaseConnectionError)
        assert took < 1.0 + 20.0  # otherwise it waits for minutes
        proxy.silent = False
        proxy.cut()
        monkeypatch.undo()
        assert db.cancel("queued-1").counts["done"] == 1


def test_ctrl_c_ends_a_call_on_a_silent_network(
    name: str, proxy: Proxy, go_silent: Callable[[dn.Plan], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with dn.connect(proxy.url(name), statement_timeout=60.0) as db:
        plan = db.cancel("queued-1", plan=True)
        go_silent(plan)
        press_after(1.0)
        took, error = seconds(plan.apply, dn.ControlInterrupt)
        assert 1.0 < took < 1.0 + 10.0  # the statement timeout is 60 s
        assert [line.outcome for line in error.receipt.lines] == ["failed"]
        assert error.plan is plan
        proxy.silent = False
        proxy.cut()
        monkeypatch.undo()
        assert db.cancel("queued-1").counts["done"] == 1


def test_ctrl_c_before_the_first_change_ends_a_read_on_a_silent_network(
    name: str, proxy: Proxy
) -> None:
    with dn.connect(proxy.url(name), statement_timeout=60.0) as db:
        plan = db.cancel("queued-1", plan=True)
        proxy.silent = True
        press_after(0.5)
        took, error = seconds(plan.apply, dn.ControlInterrupt)
        assert took < 0.5 + 10.0  # the statement timeout is 60 s
        assert [line.detail for line in error.receipt.lines] == ["not begun: interrupted"]
        proxy.silent = False
        proxy.cut()


def test_a_call_blocked_by_a_lock_times_out_and_names_the_holder(
    name: str, postgres_server: PostgresServer
) -> None:
    url = postgres_server.url(name)
    with (
        dn.connect(url, statement_timeout=3.0) as db,
        psycopg.connect(url, application_name="shop's worker") as app,
    ):
        app.execute("SELECT 1 FROM dbos.workflow_status FOR UPDATE")
        took, error = seconds(lambda: db.cancel("queued-1"), dn.PartialFailureError)
        assert took < 3.0 + 20.0  # otherwise it waits for ever
        assert isinstance(error.__cause__, dn.QueryTimeoutError)
        assert f"a lock held by session {app.info.backend_pid}" in str(error)
        assert 'application "shop\'s worker", idle in transaction' in str(error)
        assert [line.outcome for line in error.receipt.lines] == ["failed"]
        press_after(0.5)
        took, error = seconds(error.plan.apply, dn.ControlInterrupt)
        assert took < 0.5 + 2.0  # the statement timeout is 3 s
        app.rollback()
        assert error.plan.apply().counts["done"] == 1


def test_a_stricter_role_timeout_applies(name: str, postgres_server: PostgresServer) -> None:
    url = postgres_server.url(name)
    with postgres_server.admin() as admin:
        admin.execute(f"ALTER DATABASE {name} SET lock_timeout = '200ms'".encode())
    with dn.connect(url) as db, psycopg.connect(url) as app:
        app.execute("SELECT 1 FROM dbos.workflow_status FOR UPDATE")
        took, error = seconds(lambda: db.cancel("queued-1"), dn.PartialFailureError)
        assert took < 10.0  # the statement timeout is 30 s
        assert "lock timeout" in str(error)
        assert "was lost" not in str(error)


def test_control_keeps_no_connection_after_a_call(
    name: str, postgres_server: PostgresServer
) -> None:
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


def test_a_suspended_notebook_holds_no_lock(
    name: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, commit = [], ControlConnection.commit

    def noted(self: ControlConnection) -> None:
        limits.append(
            self.execute(
                "SELECT current_setting('idle_in_transaction_session_timeout'), "
                "current_setting('lock_timeout'), current_setting('statement_timeout')"
            ).fetchone()
        )
        commit(self)

    monkeypatch.setattr(ControlConnection, "commit", noted)
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
        # An application that gets the same server connections.
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
def test_a_small_session_pool_suffices_for_reading_and_control(
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


def test_a_call_works_after_the_pooler_restarts(
    name: str, postgres_server: PostgresServer, proxy: Proxy
) -> None:
    with dn.connect(proxy.url(name)) as db:
        assert db.cancel("queued-1").ok
        proxy.cut()
        set_status(db, "queued-1", "ENQUEUED")
        assert db.cancel("queued-1").counts["done"] == 1
