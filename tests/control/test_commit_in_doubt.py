"""After a lost COMMIT response no receipt reports "not done" for what is or will be done."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from raw_rows import add_workflow, set_status, write
from servers import CORPUS, PostgresServer, Proxy, start_postgres, start_standby, wait_until
from sqlalchemy.engine import make_url
from test_schedules import add

import dbos_notebook as dn
from dbos_notebook.control import controller
from dbos_notebook.control.transactions import Transaction, update_outcomes

# In this time a daily schedule is due once, whatever the hour of the test.
DAY, NEXT_DAY = "2026-01-02T12:00:00Z", "2026-01-03T12:00:00Z"
CALLS: dict[str, Callable[[dn.Client], Any]] = {
    "cancel": lambda db: db.cancel(["queued-1", "queued-2"]),
    "fork": lambda db: db.fork("checkout-1", "charge"),
    "resume": lambda db: db.resume("checkout-4"),
    "set_attributes": lambda db: db.set_attributes("attributed", {"a": 1}),
    "delete": lambda db: db.delete("checkout-5-bad", confirm=True),
    "send": lambda db: db.send("holder", {"approved": True}, "approval"),
    "set_delay": lambda db: db.set_delay("delayed-1", 60),
    "rewind": lambda db: db.rewind("checkout-2", "charge"),
    "pause_schedule": lambda db: db.pause_schedule("daily"),
    "resume_schedule": lambda db: db.resume_schedule("paused"),
    "delete_schedule": lambda db: db.delete_schedule("gone", confirm=True),
    "trigger_schedule": lambda db: db.trigger_schedule("triggered"),
    "backfill_schedule": lambda db: db.backfill_schedule("filled", DAY, NEXT_DAY),
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A separate server, because these tests block every COMMIT."""
    server, directory = start_postgres()
    with server.admin() as connection:
        # Without it no COMMIT waits for a standby.
        connection.execute("ALTER SYSTEM SET synchronous_commit = on")
        connection.execute("SELECT pg_reload_conf()")
    yield server
    server.server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


@dataclass
class BlockedCommits:
    """Makes every COMMIT wait for a standby that does not exist."""

    server: PostgresServer

    def set(self, on: bool) -> None:
        with self.server.admin() as admin:
            name = "nosuch" if on else ""
            admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
            admin.execute("SELECT pg_reload_conf()")
            for _ in range(100):
                row = admin.execute("SHOW synchronous_standby_names").fetchone()
                if row == (name,):
                    return
                time.sleep(0.02)

    def waiting(self) -> int:
        with self.server.admin() as admin:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            ).fetchone()
        assert row is not None
        return int(row[0])


@dataclass
class Result:
    """The receipt and the error of a call, and how long it took."""

    receipt: Any = None
    error: Any = None
    seconds: float = 0.0


@dataclass
class Shop:
    """A database of the corpus behind a proxy that can cut its connections."""

    url: str
    proxy: Proxy
    clients: list[dn.Client] = field(default_factory=list)

    def client(self, **options: Any) -> dn.Client:
        client = dn.connect(self.url, **options)
        self.clients.append(client)
        return client


@pytest.fixture
def shop(server: PostgresServer) -> Iterator[Shop]:
    name = server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")
    with dn.connect(server.url(name)) as db:
        for number, schedule in enumerate(("paused", "gone", "triggered", "filled")):
            add(db)
            write(
                db,
                "UPDATE {}workflow_schedules SET schedule_id = ?, schedule_name = ? "
                "WHERE schedule_name = 'daily'",
                str(number),
                schedule,
            )
        add(db)
        write(
            db, "UPDATE {}workflow_schedules SET status = 'PAUSED' WHERE schedule_name = 'paused'"
        )
        set_status(db, "checkout-4", "CANCELLED")
        add_workflow(db, "delayed-1", status="DELAYED")
    with Proxy(server) as proxy:
        shop = Shop(proxy.url(name), proxy)
        yield shop
        for client in shop.clients:
            client.close()


def run_call(call: Callable[[dn.Client], Any], client: dn.Client, result: Result) -> None:
    started = time.monotonic()
    try:
        result.receipt = call(client)
    except dn.ControlError as error:
        result.receipt, result.error = error.receipt, error
    result.seconds = time.monotonic() - started


def test_a_call_cut_during_commit_is_unknown_until_the_commit_has_ended(
    server: PostgresServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "IN_DOUBT_SECONDS", 0.5)
    commits = BlockedCommits(server)
    results = {operation: Result() for operation in CALLS}
    threads = [
        threading.Thread(target=run_call, args=(call, shop.client(), results[operation]))
        for operation, call in CALLS.items()
    ]
    commits.set(True)
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: commits.waiting() == len(CALLS), 20)
        shop.proxy.cut()
        for thread in threads:
            thread.join(20)
        outcomes = {
            operation: {line.outcome for line in each.receipt.lines}
            for operation, each in results.items()
        }
        assert outcomes == {operation: {"unknown"} for operation in CALLS}
        assert all(isinstance(each.error, dn.PartialFailureError) for each in results.values())
        assert "receipt.check() reads it again" in results["cancel"].receipt.lines[0].detail
        # Nothing has changed, so another check has the same result.
        assert results["fork"].receipt.check().counts["unknown"] == 1
    finally:
        commits.set(False)
    wait_until(lambda: commits.waiting() == 0)
    for operation, each in results.items():
        assert {line.outcome for line in each.receipt.check().lines} == {"done"}, operation
    # The error says how to continue: with the same ID, which creates no second fork.
    fork = results["fork"]
    assert "error.plan.apply() continues" in str(fork.error)
    assert fork.error.plan.apply().counts["unchanged"] == 1
    with dn.connect(shop.url) as db:
        assert db.workflows(forked_from="checkout-1")["workflow_id"].tolist() == [
            fork.receipt.check().lines[0].new_workflow_id
        ]
        assert len(db.workflows(workflow_id_prefix="sched-triggered-")) == 1


def test_a_call_cut_while_it_waits_for_a_lock_is_reported_as_not_done(
    server: PostgresServer, shop: Shop
) -> None:
    client, result = shop.client(), Result()
    with server.admin(str(client.location.parameters["dbname"])) as app:
        app.execute("BEGIN")
        app.execute("SELECT 1 FROM dbos.workflow_status FOR UPDATE")
        thread = threading.Thread(
            target=run_call, args=(lambda db: db.cancel("queued-1"), client, result)
        )
        thread.start()
        wait_until(lambda: _waits_for_a_lock(server))
        shop.proxy.cut()
        thread.join(20)
        app.execute("ROLLBACK")
    assert [line.outcome for line in result.receipt.lines] == ["failed"]
    assert result.receipt.lines[0].detail.startswith("not done")
    time.sleep(0.2)
    assert client.workflow("queued-1").status == "ENQUEUED"
    assert result.error.plan.apply().counts["done"] == 1


def _waits_for_a_lock(server: PostgresServer) -> bool:
    with server.admin() as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchone()
    return row is not None and row[0] > 0


def test_a_slow_commit_is_not_cancelled_and_the_error_names_what_it_waits_for(
    server: PostgresServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "IN_DOUBT_SECONDS", 0.2)
    commits, client, result = BlockedCommits(server), shop.client(statement_timeout=1.0), Result()
    commits.set(True)
    try:
        run_call(lambda db: db.cancel("queued-1"), client, result)
        assert result.seconds < 20.0  # otherwise it waits for ever
        assert isinstance(result.error, dn.PartialFailureError)
        assert "waits for a synchronous standby" in str(result.error)
        assert result.receipt.counts["unknown"] == 1
        # Cancelling it would make it visible before it is replicated.
        assert commits.waiting() == 1
        with dn.connect(shop.url) as other:
            assert other.workflow("queued-1").status == "ENQUEUED"
    finally:
        commits.set(False)
    wait_until(lambda: commits.waiting() == 0)
    assert result.receipt.check().counts["done"] == 1


def test_a_commit_that_the_role_cannot_see_is_unknown(
    server: PostgresServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "IN_DOUBT_SECONDS", 0.3)
    name = str(make_url(shop.url).database)
    with server.admin(name) as admin:
        for statement in (
            "CREATE ROLE owning",
            "CREATE ROLE oncall LOGIN",
            "GRANT owning TO oncall",
            "ALTER ROLE oncall SET role = 'owning'",
            "GRANT USAGE ON SCHEMA dbos TO owning",
            "GRANT ALL ON ALL TABLES IN SCHEMA dbos TO owning",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA dbos TO owning",
        ):
            admin.execute(statement.encode())
    commits, result = BlockedCommits(server), Result()
    with dn.connect(shop.proxy.url(name, "oncall")) as client:
        commits.set(True)
        try:
            thread = threading.Thread(
                target=run_call, args=(lambda db: db.cancel("queued-1"), client, result)
            )
            thread.start()
            wait_until(lambda: commits.waiting() == 1, 20)
            shop.proxy.cut()
            thread.join(20)
        finally:
            commits.set(False)
        assert [line.outcome for line in result.receipt.lines] == ["unknown"]
        wait_until(lambda: commits.waiting() == 0)
        assert [line.outcome for line in result.receipt.check().lines] == ["done"]


def test_a_lagging_standby_does_not_prove_that_a_commit_failed(
    server: PostgresServer, shop: Shop
) -> None:
    name = str(make_url(shop.url).database)
    with start_standby(server, recovery_min_apply_delay="60s") as standby:
        hosts = f"host=127.0.0.1,{standby.socket_directory} port={shop.proxy.port},5432"
        with dn.connect(f"{hosts} user=postgres dbname={name}") as db:
            plan = db.cancel("queued-1", plan=True)
            call = plan.operation.call

            def call_then_refuse(client: Any, items: Any) -> Any:
                new_ids = call(client, items)
                shop.proxy.refuse()
                return new_ids

            object.__setattr__(plan.operation, "call", call_then_refuse)
            line = plan.apply().lines[0]
            assert (line.outcome, line.status_after) == ("done", None)
            assert "the standby that answers now does not show it" in line.detail
            # The standby started after the transaction, which the primary may still commit.
            transaction = Transaction(1, 1, 1, None, commit_sent=True)
            with db._controller.reader.session() as session:
                update_outcomes(session, [transaction])
            assert transaction.in_doubt
    with dn.connect(server.url(name)) as db:
        assert db.workflow("queued-1").status == "CANCELLED"


def test_a_server_without_an_address_is_not_mistaken_for_a_restarted_one(
    server: PostgresServer,
) -> None:
    here, elsewhere = "127.0.0.1 1", "127.0.0.2 1"
    old = [Transaction(1, 1, 1, address, commit_sent=True) for address in (here, elsewhere, None)]
    name = server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")
    with dn.connect(server.url(name)) as db, db._controller.reader.session() as session:
        update_outcomes(session, old)
    # This server is reached through a Unix socket, where it has no address.
    assert all(transaction.in_doubt for transaction in old)
