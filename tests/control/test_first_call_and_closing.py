"""The first control call of a client, and a client that another thread closes during a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from raw_rows import write
from servers import PostgresServer, Proxy, wait_until
from sqlalchemy.engine import make_url

import dbos_notebook as dn
from dbos_notebook.control.transactions import ControlConnection


@pytest.fixture
def url(corpus_postgres: Callable[[str], str]) -> str:
    """A database of its own."""
    return corpus_postgres("3.4.0")


def test_the_first_call_times_out_if_the_network_goes_silent_after_connecting(
    url: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLAlchemy's own first statements on a new engine come before any of ours.
    connect = ControlConnection.connect.__func__  # type: ignore[attr-defined] # a class method
    with Proxy(postgres_server) as proxy:

        def silent(cls: Any, *arguments: Any, **options: Any) -> Any:
            connection = connect(cls, *arguments, **options)
            proxy.silent = True
            return connection

        monkeypatch.setattr(ControlConnection, "connect", classmethod(silent))
        with dn.connect(proxy.url(str(make_url(url).database)), statement_timeout=1.0) as db:
            plan = db.cancel("queued-1", plan=True)
            found: list[BaseException] = []

            def apply() -> None:
                try:
                    plan.apply()
                except dn.PartialFailureError as error:
                    found.append(error)

            thread = threading.Thread(target=apply, daemon=True)
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
            assert "has not responded" in str(found[0])
            proxy.silent = False
            proxy.cut()


def test_closing_a_client_during_a_call_ends_it_and_leaves_no_connection(url: str) -> None:
    with dn.connect(url) as other:
        for number in range(12):
            write(
                other,
                "INSERT INTO {}workflow_status (workflow_uuid, status, name, queue_name, "
                "priority, delay_until_epoch_ms) VALUES (?, 'DELAYED', 'w', 'q', 0, 1)",
                f"d{number}",
            )
    db = dn.connect(url)
    # An autocommitting session sees what the others do now.
    with psycopg.connect(url) as app, psycopg.connect(url, autocommit=True) as admin:

        def count(what: str) -> int:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                f"AND application_name = 'dbos_notebook' AND {what}".encode()
            ).fetchone()
            assert row is not None
            return int(row[0])

        def close() -> None:
            wait_until(lambda: count("wait_event_type = 'Lock'") == 6)
            db.close()
            time.sleep(0.1)
            app.rollback()

        app.execute("SELECT 1 FROM dbos.workflow_status WHERE workflow_uuid LIKE 'd%' FOR UPDATE")
        closer = threading.Thread(target=close)
        closer.start()
        with pytest.raises(dn.PartialFailureError, match="This client is closed") as caught:
            db.set_delay([f"d{number}" for number in range(12)], 60)
        closer.join()
        outcomes = [line for line in caught.value.receipt.lines if line.outcome == "unchanged"]
        # Those that had not begun; of the others it depends on who was faster.
        assert len(outcomes) == 6
        assert all("not started: This client is closed" in line.detail for line in outcomes)
        wait_until(lambda: count("true") == 0)
