"""A COMMIT whose answer is lost: no receipt says "not done" of what is done, now or later."""

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
from dbos_notebook.control.transactions import Transaction, settle

VERBS: dict[str, Callable[[dn.Client], Any]] = {
    "cancel": lambda db: db.cancel(["queued-1", "queued-2"]),
    "fork": lambda db: db.fork("checkout-1", "charge"),
    "resume": lambda db: db.resume("checkout-4"),
    "set_attributes": lambda db: db.set_attributes("attributed", {"a": 1}),
    "delete": lambda db: db.delete("checkout-5-bad", confirm=True),
    "set_delay": lambda db: db.set_delay("delayed-1", 60),
    "rewind": lambda db: db.rewind("checkout-2", "charge"),
    "pause_schedule": lambda db: db.pause_schedule("daily"),
    "resume_schedule": lambda db: db.resume_schedule("paused"),
    "delete_schedule": lambda db: db.delete_schedule("gone", confirm=True),
    "trigger_schedule": lambda db: db.trigger_schedule("triggered"),
    "backfill_schedule": lambda db: db.backfill_schedule("filled", "25h"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of its own: what is tried here stops every COMMIT."""
    server, directory = start_postgres()
    yield server
    server.server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


@dataclass
class Delay:
    """Lets each COMMIT wait for a standby that does not exist."""

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
class Said:
    """What a call said: its receipt, the error that it raised, and how long it took."""

    receipt: Any = None
    error: Any = None
    seconds: float = 0.0


@dataclass
class Shop:
    """A database of the corpus, seen through a proxy that can cut."""

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


def say(call: Callable[[dn.Client], Any], client: dn.Client, said: Said) -> None:
    begun = time.monotonic()
    try:
        said.receipt = call(client)
    except dn.ControlError as error:
        said.receipt, said.error = error.receipt, error
    said.seconds = time.monotonic() - begun


def test_a_connection_cut_during_commit_is_unknown_until_the_commit_ends(
    server: PostgresServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "OUT_OF_DOUBT_SECONDS", 0.5)
    delay = Delay(server)
    said = {operation: Said() for operation in VERBS}
    threads = [
        threading.Thread(target=say, args=(call, shop.client(), said[operation]))
        for operation, call in VERBS.items()
    ]
    delay.set(True)
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: delay.waiting() == len(VERBS), 20)
        shop.proxy.cut()
        for thread in threads:
            thread.join(20)
        outcomes = {
            operation: {line.outcome for line in each.receipt.lines}
            for operation, each in said.items()
        }
        assert outcomes == {operation: {"unknown"} for operation in VERBS}
        assert all(isinstance(each.error, dn.PartialFailureError) for each in said.values())
        assert "receipt.check() asks again" in said["cancel"].receipt.lines[0].detail
        # Nothing has changed: who asks again is told no more.
        assert said["fork"].receipt.check().counts["unknown"] == 1
    finally:
        delay.set(False)
    wait_until(lambda: delay.waiting() == 0)
    for operation, each in said.items():
        assert {line.outcome for line in each.receipt.check().lines} == {"done"}, operation
    # The error says how to go on: with the same ID, which makes no second fork.
    fork = said["fork"]
    assert "plan.apply() goes on" in str(fork.error)
    assert fork.error.plan.apply().counts["unchanged"] == 1
    with dn.connect(shop.url) as db:
        assert db.workflows(forked_from="checkout-1")["workflow_id"].tolist() == [
            fork.receipt.check().lines[0].new_workflow_id
        ]
        assert len(db.workflows(workflow_id_prefix="sched-triggered-")) == 1


def test_a_connection_cut_while_waiting_for_a_lock_is_reported_as_not_done(
    server: PostgresServer, shop: Shop
) -> None:
    client, said = shop.client(), Said()
    with server.admin(str(client.location.parameters["dbname"])) as app:
        app.execute("BEGIN")
        app.execute("SELECT 1 FROM dbos.workflow_status FOR UPDATE")
        thread = threading.Thread(target=say, args=(lambda db: db.cancel("queued-1"), client, said))
        thread.start()
        wait_until(lambda: _waits_for_a_lock(server))
        shop.proxy.cut()
        thread.join(20)
        app.execute("ROLLBACK")
    assert [line.outcome for line in said.receipt.lines] == ["failed"]
    assert said.receipt.lines[0].detail.startswith("not done")
    time.sleep(0.2)
    assert client.workflow("queued-1").status == "ENQUEUED"
    assert said.error.plan.apply().counts["done"] == 1


def _waits_for_a_lock(server: PostgresServer) -> bool:
    with server.admin() as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchone()
    return row is not None and row[0] > 0


def test_a_slow_commit_is_not_cancelled_and_the_receipt_names_its_wait_event(
    server: PostgresServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "OUT_OF_DOUBT_SECONDS", 0.2)
    delay, client, said = Delay(server), shop.client(statement_timeout=1.0), Said()
    delay.set(True)
    try:
        say(lambda db: db.cancel("queued-1"), client, said)
        assert said.seconds < 20.0  # otherwise it waits for ever
        assert isinstance(said.error, dn.PartialFailureError)
        assert "waits for a synchronous standby" in str(said.error)
        assert said.receipt.counts["unknown"] == 1
        # To cancel it would make it visible before it is safe on the standby.
        assert delay.waiting() == 1
        with dn.connect(shop.url) as other:
            assert other.workflow("queued-1").status == "ENQUEUED"
    finally:
        delay.set(False)
    wait_until(lambda: delay.waiting() == 0)
    assert said.receipt.check().counts["done"] == 1


def test_a_role_that_cannot_see_the_commit_reports_it_as_unknown(
    server: PostgresServer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "OUT_OF_DOUBT_SECONDS", 0.3)
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
    delay, said = Delay(server), Said()
    with dn.connect(shop.proxy.url(name, "oncall")) as client:
        delay.set(True)
        try:
            thread = threading.Thread(
                target=say, args=(lambda db: db.cancel("queued-1"), client, said)
            )
            thread.start()
            wait_until(lambda: delay.waiting() == 1, 20)
            shop.proxy.cut()
            thread.join(20)
        finally:
            delay.set(False)
        assert [line.outcome for line in said.receipt.lines] == ["unknown"]
        wait_until(lambda: delay.waiting() == 0)
        assert [line.outcome for line in said.receipt.check().lines] == ["done"]


def test_a_lagging_standby_does_not_turn_a_commit_into_not_done(
    server: PostgresServer, shop: Shop
) -> None:
    name = str(make_url(shop.url).database)
    with start_standby(server, recovery_min_apply_delay="60s") as standby:
        hosts = f"host=127.0.0.1,{standby.socket_directory} port={shop.proxy.port},5432"
        with dn.connect(f"{hosts} user=postgres dbname={name}") as db:
            plan = db.cancel("queued-1", plan=True)
            call = plan.operation.call

            def then(client: Any, items: Any) -> Any:
                done = call(client, items)
                shop.proxy.refuse()
                return done

            object.__setattr__(plan.operation, "call", then)
            line = plan.apply().lines[0]
            assert (line.outcome, line.status_after) == ("done", None)
            assert "the standby that answers now does not show it" in line.detail
            # It was started after a transaction began that the primary may still commit.
            transaction = Transaction(1, 1, 1, None, commit_sent=True)
            with db._controller.reader.session() as session:
                settle(session, [transaction])
            assert transaction.in_doubt
    with dn.connect(server.url(name)) as db:
        assert db.workflow("queued-1").status == "CANCELLED"


def test_a_server_without_an_address_is_not_taken_for_a_restarted_one(
    server: PostgresServer,
) -> None:
    here, elsewhere = "127.0.0.1 1", "127.0.0.2 1"
    old = [Transaction(1, 1, 1, address, commit_sent=True) for address in (here, elsewhere, None)]
    name = server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")
    with dn.connect(server.url(name)) as db, db._controller.reader.session() as session:
        settle(session, old)
    # This server is reached through a Unix socket, where it has no address.
    assert all(each.in_doubt for each in old)
