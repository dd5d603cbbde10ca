"""Reading leaves nothing on the server: no setting, lock, open transaction, or place in a pool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from servers import PgBouncer, PostgresServer, Proxy, start_pgbouncer, wait_until

import dbos_notebook as dn

READS: dict[str, Callable[[dn.Client], object]] = {
    "workflows": lambda db: db.workflows(limit=None),
    "payloads": lambda db: db.workflows(load_input=True, load_output=True),
    "queued": lambda db: db.queued(),
    "iter_workflows": lambda db: list(db.iter_workflows(chunksize=5)),
    "arrow": lambda db: db.arrow("steps").read_all(),
    "steps": lambda db: db.steps("checkout-1"),
    "tree": lambda db: db.tree("checkout-1"),
    "queues": lambda db: db.queues(),
    "events": lambda db: db.events(),
    "messages": lambda db: db.messages(),
    "streams": lambda db: db.streams(),
    "schedules": lambda db: db.schedules(),
    "versions": lambda db: db.versions(),
    "executors": lambda db: db.executors(),
    "counts": lambda db: db.counts(),
    "step_statistics": lambda db: db.step_statistics(),
    "explain": lambda db: db.explain(),
    "card": lambda db: db._repr_html_(),
    "workflow": lambda db: db.workflow("checkout-1")._repr_html_(),
    "graph": lambda db: db.graph("checkout-1"),
    "timeline": lambda db: db.timeline("checkout-1"),
    "plan": lambda db: db.fork("checkout-1", "first", plan=True),
    "repair_status": lambda db: db.repair_status(),
    "explore": lambda db: db.explore().frame,
    "board": lambda db: db.board().static_html(),
    "inspect": lambda db: db.inspect("checkout-1")._repr_mimebundle_(),
}
MOST_ROUND_TRIPS = {
    "events": 1,
    "messages": 1,
    "streams": 1,
    "versions": 1,
    # Two pages of IDs and two of steps, each with its ROLLBACK.
    "arrow": 6,
    "iter_workflows": 4,
    # Three, and the ROLLBACK between the two snapshots that a card of one workflow reads.
    "workflow": 4,
    # Rows, steps, forks that are there, who would run it, and what the role may do; libpq may send
    # the longest of these statements in two parts.
    "plan": 6,
    # What is active and has ended, queues; then causes of failures, what became of them, durations.
    "board": 7,
    "inspect": 8,
}
SETTINGS = (
    "default_transaction_read_only",
    "transaction_read_only",
    "default_transaction_isolation",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "search_path",
    "TimeZone",
    "client_encoding",
)


@pytest.fixture(scope="module")
def corpus(postgres_server: PostgresServer, corpus_postgres: Callable[[str], str]) -> str:
    """The name of a database of the corpus's."""
    return corpus_postgres("3.4.0").split("?")[0].rsplit("/", 1)[1]


@pytest.fixture(scope="module")
def template(corpus_postgres: Callable[[str], str]) -> str:
    """The name of another, to which nobody is connected, so that it can be copied."""
    return corpus_postgres("3.4.0").split("?")[0].rsplit("/", 1)[1]


@pytest.fixture(scope="module", params=["transaction", "session"])
def pooler(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A real PgBouncer with one server connection, which everybody gets in turn."""
    with start_pgbouncer(postgres_server, request.param, pool_size=1) as bouncer:
        yield bouncer


def settings(url: str) -> dict[str, str]:
    """Return what another client of the pooler finds set on its connection, after writing."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        found = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in SETTINGS}
        connection.execute("UPDATE dbos.workflow_status SET updated_at = updated_at")
    return {name: row[0] for name, row in found.items() if row}


def ours(server: PostgresServer, database: str) -> list[tuple[Any, ...]]:
    """Return the state, age of transaction, and locks of dbos_notebook's sessions."""
    with server.admin() as admin:
        return admin.execute(
            "SELECT a.state, a.xact_start, a.backend_xmin, l.relation::regclass::text "
            "FROM pg_stat_activity a LEFT JOIN pg_locks l ON l.pid = a.pid AND l.relation > 0 "
            "WHERE a.datname = %s AND a.application_name = 'dbos_notebook'",
            [database],
        ).fetchall()


@pytest.mark.parametrize("name", READS)
def test_a_read_through_a_pooler_changes_nothing_for_its_other_clients(
    pooler: PgBouncer, corpus: str, name: str
) -> None:
    before = settings(pooler.url(corpus))
    with dn.connect(pooler.url(corpus)) as db:
        assert READS[name](db) is not None
    assert settings(pooler.url(corpus)) == before


@pytest.mark.parametrize("name", READS)
def test_no_transaction_is_open_after_a_read_and_a_migration_can_run(
    postgres_server: PostgresServer, corpus: str, name: str
) -> None:
    with dn.connect(postgres_server.url(corpus)) as db:
        assert READS[name](db) is not None
        with postgres_server.admin(corpus) as admin:
            admin.execute("SET lock_timeout = '1s'")
            admin.execute("ALTER TABLE dbos.workflow_status ADD COLUMN added int")
            admin.execute("ALTER TABLE dbos.workflow_status DROP COLUMN added")
        assert {row[0] for row in ours(postgres_server, corpus)} <= {"idle"}


def test_statement_pooling_is_refused_with_the_reason(
    postgres_server: PostgresServer, corpus: str
) -> None:
    with (
        start_pgbouncer(postgres_server, "statement") as bouncer,
        pytest.raises(dn.DatabaseConnectionError, match="statement pooling mode"),
    ):
        dn.connect(bouncer.url(corpus))


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_reading_through_a_pooler_is_read_only(
    postgres_server: PostgresServer, corpus: str, mode: Literal["transaction", "session"]
) -> None:
    with start_pgbouncer(postgres_server, mode) as bouncer:
        db = dn.connect(bouncer.url(corpus))
        with (
            pytest.raises(dn.NotebookError, match="read-only"),
            db._store.reader.session() as session,
        ):
            session.execute("UPDATE dbos.workflow_status SET status = 'CANCELLED'")  # type: ignore[attr-defined]
        db.close()


@pytest.mark.parametrize(
    ("on_role", "asked", "expected"),
    [("200ms", 30.0, "200ms"), ("90s", 30.0, "30s"), ("0", 30.0, "30s"), ("5min", None, "5min")],
)
def test_the_stricter_statement_timeout_applies(
    postgres_server: PostgresServer, corpus: str, on_role: str, asked: float | None, expected: str
) -> None:
    url = postgres_server.url(corpus)
    separator = "&" if "?" in url else "?"
    with (
        dn.connect(
            f"{url}{separator}options=-c%20statement_timeout%3D{on_role}", statement_timeout=asked
        ) as db,
        db._store.reader.session() as session,
    ):
        rows = session.execute("SHOW statement_timeout")  # type: ignore[attr-defined]
    assert rows == [{"statement_timeout": expected}]


def test_a_stricter_role_timeout_is_named_in_the_error(
    postgres_server: PostgresServer, corpus: str
) -> None:
    url = postgres_server.url(corpus)
    separator = "&" if "?" in url else "?"
    with (
        dn.connect(f"{url}{separator}options=-c%20statement_timeout%3D300ms") as db,
        psycopg.connect(url) as holder,
    ):
        holder.execute("LOCK TABLE dbos.workflow_status IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(dn.QueryTimeoutError, match="stricter statement_timeout"):
            db.workflows()
        holder.rollback()


def test_a_query_cancelled_by_somebody_else_is_reported_as_cancelled(
    postgres_server: PostgresServer, corpus: str
) -> None:
    with dn.connect(postgres_server.url(corpus)) as db:

        def cancel() -> None:
            def cancelled() -> bool:
                with postgres_server.admin() as admin:
                    row = admin.execute(
                        "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity "
                        "WHERE application_name = 'dbos_notebook' AND wait_event_type = 'Lock'"
                    ).fetchone()
                return bool(row and row[0])

            wait_until(cancelled)

        canceller = threading.Thread(target=cancel)
        with psycopg.connect(postgres_server.url(corpus)) as holder:
            holder.execute("LOCK TABLE dbos.workflow_status IN ACCESS EXCLUSIVE MODE")
            canceller.start()
            with pytest.raises(dn.QueryCancelledError, match="by another user") as raised:
                db.workflows()
            canceller.join()
            holder.rollback()
        assert not isinstance(raised.value, dn.QueryTimeoutError)
        assert len(db.workflows()) > 0


def test_an_idle_client_closes_its_connection(
    postgres_server: PostgresServer, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbos_notebook.database.postgres.IDLE_SECONDS", 0.5)
    database = postgres_server.create_database(like=template)
    with dn.connect(postgres_server.url(database)) as db:
        db.workflows()
        assert ours(postgres_server, database)
        wait_until(lambda: not ours(postgres_server, database))
        assert len(db.workflows()) > 0


@pytest.fixture
def many(postgres_server: PostgresServer, template: str) -> str:
    """The name of a database with 30,000 workflows of few times of creation."""
    database = postgres_server.create_database(like=template)
    with postgres_server.admin(database) as admin:
        admin.execute(
            """INSERT INTO dbos.workflow_status
                   (workflow_uuid, status, name, created_at, updated_at, priority)
               SELECT 'many-' || i, 'SUCCESS', 'load', 1795000000000 + i / 100, 1795000000000, 0
               FROM generate_series(1, 30000) i"""
        )
        admin.execute(
            """INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name)
               SELECT 'many-' || i, s, 'step' FROM generate_series(1, 3000) i,
               generate_series(1, 3) s"""
        )
    return database


LAZY: dict[str, Callable[[dn.Client], Iterator[Any]]] = {
    "iter_workflows": lambda db: db.iter_workflows(chunksize=1_000),
    "arrow workflows": lambda db: iter(db.arrow("workflows")),
    "arrow steps": lambda db: iter(db.arrow("steps")),
}


@pytest.mark.parametrize("name", LAZY)
def test_a_paused_iteration_holds_no_lock_and_no_transaction(
    postgres_server: PostgresServer, many: str, name: str
) -> None:
    with dn.connect(postgres_server.url(many)) as db:
        rows = LAZY[name](db)
        got = [len(next(rows)), len(next(rows))]
        wait_until(lambda: {row[0] for row in ours(postgres_server, many)} <= {"idle"}, 2)
        assert all(row[1:] == (None, None, None) for row in ours(postgres_server, many))
        with postgres_server.admin(many) as admin:
            # A migration, as the application's next version runs it.
            admin.execute("SET lock_timeout = '1s'")
            admin.execute("ALTER TABLE dbos.workflow_status ADD COLUMN added int")
            admin.execute("ALTER TABLE dbos.operation_outputs ADD COLUMN added int")
        got += [len(each) for each in rows]
    with postgres_server.admin(many) as admin:
        table = "operation_outputs" if "steps" in name else "workflow_status"
        row = admin.execute(f"SELECT count(*) FROM dbos.{table}".encode()).fetchone()
    assert row == (sum(got),)


def test_iteration_returns_each_workflow_once_while_others_are_added_and_deleted(
    postgres_server: PostgresServer, many: str
) -> None:
    with dn.connect(postgres_server.url(many)) as db, postgres_server.admin(many) as admin:
        throughout = set(db.workflows(limit=None)["workflow_id"]) - {"many-3", "many-29999"}
        found: list[str] = []
        for number, chunk in enumerate(db.iter_workflows(chunksize=1_000)):
            found += chunk["workflow_id"].tolist()
            if number == 2:
                admin.execute("DELETE FROM dbos.workflow_status WHERE workflow_uuid = 'many-3'")
                admin.execute("DELETE FROM dbos.workflow_status WHERE workflow_uuid = 'many-29999'")
                admin.execute(
                    "INSERT INTO dbos.workflow_status (workflow_uuid, status, created_at, "
                    "updated_at) SELECT 'new-' || i, 'PENDING', 1796000000000, 1796000000000 "
                    "FROM generate_series(1, 10) i"
                )
        assert len(found) == len(set(found))
        assert set(found) - {"many-3", "many-29999"} == throughout


def test_statement_timeout_does_not_count_the_consumers_time(
    postgres_server: PostgresServer, many: str
) -> None:
    with dn.connect(postgres_server.url(many), statement_timeout=1.0) as db:
        rows = 0
        for number, chunk in enumerate(db.iter_workflows(chunksize=10_000)):
            rows += len(chunk)
            time.sleep(1.2 if number == 0 else 0)
    assert rows > 30_000


def test_a_closed_client_ends_a_paused_iteration(
    postgres_server: PostgresServer, many: str
) -> None:
    db = dn.connect(postgres_server.url(many))
    rows = db.iter_workflows(chunksize=1_000)
    next(rows)
    db.close()
    wait_until(lambda: not ours(postgres_server, many))
    with pytest.raises(dn.DatabaseConnectionError, match="closed"):
        list(rows)


@pytest.mark.parametrize("when", ["idle", "under way"])
def test_a_read_on_a_silent_network_times_out(
    postgres_server: PostgresServer, many: str, when: str
) -> None:
    with Proxy(postgres_server) as proxy:
        db = dn.connect(proxy.url(many), statement_timeout=1.0)
        db.workflows(limit=5)
        if when == "idle":
            proxy.silent = True
        else:
            proxy.bandwidth = 300_000
            timer = threading.Timer(0.3, setattr, (proxy, "silent", True))
            timer.start()
        began = time.monotonic()
        with pytest.raises(dn.DatabaseConnectionError, match=r"has not responded|Cannot reach"):
            db.workflows(limit=None)
        assert time.monotonic() - began < 1.0 + 20  # otherwise it waits for minutes
        proxy.silent, proxy.bandwidth = False, None
        assert len(db.workflows(limit=5)) == 5
        db.close()


CONTROL: dict[str, Callable[[dn.Client], object]] = {
    "cancel": lambda db: db.cancel("queued-1"),
    "resume": lambda db: db.resume("queued-1"),
    "set_attributes": lambda db: db.set_attributes("queued-1", {"seen": True}),
    "fork": lambda db: db.fork("checkout-1", "first", application_version="none"),
    "rewind": lambda db: db.rewind("checkout-5-bad", "failed", application_version="none"),
    "delete": lambda db: db.delete("queued-2", force=True, confirm=True),
    "cancel many": lambda db: db.cancel(db.workflows(status="ENQUEUED"), confirm=True),
    "controls": lambda db: db.controls("checkout-1"),
}


def test_reading_does_not_disturb_an_application_behind_the_same_pooler(
    postgres_server: PostgresServer, template: str
) -> None:
    database = postgres_server.create_database(like=template)
    with start_pgbouncer(postgres_server, "transaction", pool_size=4) as bouncer:
        url = bouncer.url(database)
        application = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "pooled_application.py"), url, "20", "8"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert application.stdout is not None
        assert application.stdout.readline() == "ready\n"
        with dn.connect(url) as db:
            outcomes = {}
            for name, call in {**READS, **CONTROL}.items():
                result = call(db)
                if isinstance(result, dn.Receipt):
                    outcomes[name] = result.counts["done"]
        report = json.loads(application.stdout.readline())
        assert application.wait(30) == 0
    assert report["failed"] == {}
    assert report["logged"] == {}
    assert report["done"] == report["begun"] >= 150
    # Control did something, so its connections were used too.
    assert all(outcomes.values()), outcomes


@pytest.mark.parametrize("when", ["connecting", "idle"])
def test_ctrl_c_ends_a_read_on_a_silent_network(
    postgres_server: PostgresServer, many: str, when: str
) -> None:
    with Proxy(postgres_server) as proxy:
        db = dn.connect(proxy.url(many))
        proxy.silent = True
        if when == "connecting":
            db._store.reader._idle.close()  # type: ignore[attr-defined]
        began: list[float] = []

        def interrupt() -> None:
            began.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(0.5, interrupt)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            db.workflows()
        assert time.monotonic() - began[0] < 10  # the statement timeout is 30 s
        proxy.silent = False
        assert len(db.workflows(limit=5)) == 5
        db.close()


@pytest.mark.parametrize("name", [*READS])
def test_a_read_needs_few_round_trips(
    postgres_server: PostgresServer, corpus: str, name: str
) -> None:
    # One more is the ROLLBACK, whose answer nobody waits for.
    most = 1 + MOST_ROUND_TRIPS.get(name, 3)
    with Proxy(postgres_server) as proxy, dn.connect(proxy.url(corpus)) as db:
        READS[name](db)
        # The answer to the last ROLLBACK is waited for, so that it is not counted below.
        idle = db._store.reader._idle  # type: ignore[attr-defined]
        idle.keep(idle.take())
        before = proxy.requests
        READS[name](db)
        assert proxy.requests - before <= most
