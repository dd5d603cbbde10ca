"""Calls refused before anything is written: standbys, read-only roles, missing grants."""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from raw_rows import add_workflow, set_status, write
from servers import CORPUS, PostgresServer, start_pgbouncer, start_standby
from sqlalchemy.engine import make_url
from test_commit_in_doubt import CALLS
from test_schedules import add

import dbos_notebook as dn
from dbos_notebook.control import permissions

_numbers = itertools.count(1)

NEEDED: dict[str, permissions.Privileges] = {
    "cancel": permissions.CANCEL,
    "fork": {**permissions.FORK, **permissions.FORK_COPYING},
    "resume": permissions.RESUME,
    "set_attributes": permissions.SET_ATTRIBUTES,
    "delete": permissions.DELETE,
    "send": permissions.SEND,
    "set_delay": permissions.SET_DELAY,
    "rewind": permissions.REWIND,
    "pause_schedule": permissions.SET_SCHEDULE,
    "resume_schedule": permissions.SET_SCHEDULE,
    "delete_schedule": permissions.DELETE_SCHEDULE,
    "trigger_schedule": permissions.ENQUEUE_SCHEDULE,
    "backfill_schedule": permissions.ENQUEUE_SCHEDULE,
}


@pytest.fixture(scope="module")
def url(corpus_postgres: Callable[[str], str]) -> str:
    """A database in which each call changes something."""
    url = corpus_postgres("3.4.0")
    with dn.connect(url) as db:
        for number, schedule in enumerate(("paused", "gone", "triggered", "filled", "daily")):
            add(db)
            write(
                db,
                "UPDATE {}workflow_schedules SET schedule_id = ?, schedule_name = ? "
                "WHERE schedule_name = 'daily'",
                str(number),
                schedule,
            )
        write(
            db, "UPDATE {}workflow_schedules SET status = 'PAUSED' WHERE schedule_name = 'paused'"
        )
        set_status(db, "checkout-4", "CANCELLED")
        add_workflow(db, "delayed-1", status="DELAYED")
    return url


@pytest.fixture
def role(postgres_server: PostgresServer, url: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A role that may read, and a function that runs statements with its name for ``{}``."""
    name = f"guarded{next(_numbers)}"

    def run(statement: str) -> None:
        with postgres_server.admin(str(make_url(url).database)) as admin:
            admin.execute(statement.format(name).encode())

    run("CREATE ROLE {} LOGIN")
    run("GRANT USAGE ON SCHEMA dbos TO {}")
    run("GRANT SELECT ON ALL TABLES IN SCHEMA dbos TO {}")
    yield make_url(url).set(username=name).render_as_string(hide_password=False), run
    run("DROP OWNED BY {0}; DROP ROLE {0}")


def _quoted(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def rows(db: dn.Client) -> Any:
    return write(
        db,
        "SELECT (SELECT count(*) FROM dbos.workflow_status), (SELECT string_agg(s.xmin::text, ',' "
        "ORDER BY s.workflow_uuid) FROM {}workflow_status s)",
    )


@pytest.mark.parametrize("operation", CALLS)
def test_a_call_needs_exactly_the_columns_that_are_listed(
    role: tuple[str, Callable[[str], None]], url: str, operation: str
) -> None:
    login, run = role
    with dn.connect(login) as db, dn.connect(url) as owner:
        before = rows(owner)
        for (table, privilege), columns in NEEDED[operation].items():
            if privilege == "SELECT":
                continue
            with pytest.raises(dn.PermissionDeniedError, match=f"{privilege} .*ON {table}"):
                CALLS[operation](db)
            if len(columns) > 1:
                # All columns but one.
                run(f"GRANT {privilege} ({_quoted(columns[1:])}) ON dbos.{table} TO {{}}")
                with pytest.raises(
                    dn.PermissionDeniedError, match=rf"{privilege} \({columns[0]}\) ON {table}"
                ):
                    CALLS[operation](db)
            granted = f" ({_quoted(columns)})" if columns else ""
            run(f"GRANT {privilege}{granted} ON dbos.{table} TO {{}}")
        assert rows(owner) == before
        assert CALLS[operation](db).counts["done"] >= 1


def test_a_plan_warns_that_it_cannot_be_applied(
    role: tuple[str, Callable[[str], None]],
) -> None:
    with dn.connect(role[0]) as db:
        plan = db.cancel("holder", plan=True)
        assert plan.counts["ready"] == 1
        assert "plan.apply() would be refused" in repr(plan)
        assert "lacks UPDATE ON workflow_status" in repr(plan)
        with pytest.raises(dn.PermissionDeniedError, match="lacks UPDATE ON workflow_status"):
            plan.apply()
        assert db.last_receipt() is None


def test_a_plan_of_a_role_that_may_not_read_the_revision_says_why_it_cannot_be_applied(
    role: tuple[str, Callable[[str], None]],
) -> None:
    login, run = role
    run("REVOKE SELECT ON dbos.dbos_migrations FROM {}")
    with dn.connect(login) as db:
        assert "dbos_migrations cannot be read" in repr(db.cancel("holder", plan=True))
        with pytest.raises(dn.UnsupportedRevisionError, match="dbos_migrations cannot be read"):
            db.cancel("holder")


def test_a_revision_that_is_not_a_number_is_unknown(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE dbos_migrations; CREATE TABLE dbos_migrations (version TEXT);"
            "INSERT INTO dbos_migrations VALUES ('new');"
        )
    with dn.connect(path) as db:
        assert db.catalog.revision is None
        assert "The revision of this database is unknown" in repr(db.cancel("holder", plan=True))


def test_a_plan_warns_of_row_level_security(
    role: tuple[str, Callable[[str], None]], url: str
) -> None:
    login, run = role
    run("GRANT UPDATE ON dbos.workflow_status TO {}")
    run("ALTER TABLE dbos.workflow_status ENABLE ROW LEVEL SECURITY")
    run("CREATE POLICY p ON dbos.workflow_status USING (workflow_uuid LIKE 'queued%')")
    try:
        with dn.connect(login) as db:
            plan = db.cancel("holder", plan=True)
            assert "Row-level security applies to this role on workflow_status" in repr(plan)
    finally:
        run("DROP POLICY p ON dbos.workflow_status")
        run("ALTER TABLE dbos.workflow_status DISABLE ROW LEVEL SECURITY")


def test_row_level_security_refuses_calls_that_write_several_tables(
    role: tuple[str, Callable[[str], None]], url: str
) -> None:
    login, run = role
    run("GRANT ALL ON ALL TABLES IN SCHEMA dbos TO {}")
    run("ALTER TABLE dbos.workflow_status ENABLE ROW LEVEL SECURITY")
    # All rows are visible, but none can be changed.
    run("CREATE POLICY p ON dbos.workflow_status FOR SELECT USING (true)")
    try:
        with dn.connect(login) as db, dn.connect(url) as owner:
            steps = owner.steps("checkout-2")
            for operation in ("delete", "rewind", "fork"):
                with pytest.raises(dn.PermissionDeniedError, match="Row-level security applies"):
                    CALLS[operation](db)
            for method in (db.rewind, db.fork):
                assert "would be refused" in repr(method("checkout-2", "charge", plan=True))
            assert owner.steps("checkout-2").equals(steps)
            line = db.set_attributes("attributed", {"hidden": 1}).lines[0]
            assert line.outcome == "unchanged"
            assert "a policy hides this one from changes" in line.detail
    finally:
        run("DROP POLICY p ON dbos.workflow_status")
        run("ALTER TABLE dbos.workflow_status DISABLE ROW LEVEL SECURITY")


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "session pool"])
def test_read_only_sessions_are_refused_before_any_write(
    role: tuple[str, Callable[[str], None]],
    postgres_server: PostgresServer,
    url: str,
    pooled: bool,
) -> None:
    login, run = role
    run("GRANT ALL ON ALL TABLES IN SCHEMA dbos TO {}")
    run("ALTER ROLE {} SET default_transaction_read_only = on")
    parts = make_url(login)
    if not pooled:
        with dn.connect(login) as db:
            assert_refused(db, "default_transaction_read_only is on")
        return
    name = str(parts.username)
    with (
        start_pgbouncer(postgres_server, "session", user=name) as bouncer,
        dn.connect(bouncer.url(str(parts.database))) as db,
    ):
        assert_refused(db, "default_transaction_read_only is on")


def assert_refused(db: dn.Client, reason: str) -> None:
    plan = db.fork("checkout-3", "first", plan=True)
    assert reason in repr(plan)
    with pytest.raises(dn.ReadOnlyError, match=reason):
        plan.apply()
    with pytest.raises(dn.ReadOnlyError, match=reason):
        db.cancel(["queued-1", "queued-2"])
    with pytest.raises(dn.ReadOnlyError, match=reason):
        db.repair("parent-6-bad")
    with pytest.raises(dn.ReadOnlyError, match=reason):
        db.trigger_schedule("daily")
    assert db.last_receipt() is None


def test_control_on_a_standby_is_refused_until_it_is_promoted(
    own_postgres: PostgresServer,
) -> None:
    name = own_postgres.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")
    with dn.connect(own_postgres.url(name)) as db:
        add(db)
    with start_standby(own_postgres) as standby:
        standby.wait_for(name, "SELECT 1 FROM dbos.workflow_schedules")
        both = f"host={standby.socket_directory},{own_postgres.socket_directory}"
        with (
            dn.connect(standby.url(name)) as db,
            dn.connect(f"{both} user=postgres dbname={name}") as either,
            dn.connect(
                f"{both} user=postgres dbname={name} target_session_attrs=read-write"
            ) as primary,
        ):
            assert_refused(db, "the server is a standby")
            # Of several hosts the first that answers is used, without target_session_attrs.
            assert_refused(either, "target_session_attrs=read-write")
            assert primary.cancel("queued-1").counts["done"] == 1
            # A failover between the plan and apply().
            plan = db.cancel("queued-2", plan=True)
            standby.promote()
            assert plan.apply().counts["done"] == 1


def test_a_server_that_became_read_only_after_the_check_writes_nothing(
    postgres_server: PostgresServer, corpus_postgres: Callable[[str], str]
) -> None:
    url = corpus_postgres("3.4.0")
    name = str(make_url(url).database)
    with dn.connect(url) as db:
        plan = db.cancel("queued-1", plan=True)
        call = plan.operation.call

        def make_read_only_then_call(client: Any, items: Any) -> Any:
            with postgres_server.admin() as admin:
                admin.execute(
                    f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode()
                )
            return call(client, items)

        object.__setattr__(plan.operation, "call", make_read_only_then_call)
        with pytest.raises(dn.PartialFailureError, match="default_transaction_read_only") as caught:
            plan.apply()
        assert [line.outcome for line in caught.value.receipt.lines] == ["failed"]
        assert db.workflow("queued-1").status == "ENQUEUED"


def test_two_servers_behind_one_address_are_distinguished(
    corpus_postgres: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbos_notebook.control import controller

    with dn.connect(corpus_postgres("3.4.0")) as db:
        plan = db.cancel("queued-1", plan=True)
        check_permissions = controller.check_permissions

        def on_other_server(*arguments: Any, **options: Any) -> Any:
            # As if the reader were connected to a server that was started at another time.
            check = check_permissions(*arguments, **options)
            return dataclasses.replace(check, server=check.server - 1)

        monkeypatch.setattr(controller, "check_permissions", on_other_server)
        with pytest.raises(
            dn.PartialFailureError, match="leads to another server than when this call was prepared"
        ) as caught:
            plan.apply()
        assert [line.outcome for line in caught.value.receipt.lines] == ["failed"]
        monkeypatch.undo()
        assert plan.apply().counts["done"] == 1


def test_a_revoked_function_is_named_before_anything_is_written(
    postgres_server: PostgresServer, corpus_postgres: Callable[[str], str]
) -> None:
    url = make_url(corpus_postgres("3.4.0"))
    with postgres_server.admin(str(url.database)) as admin:
        for statement in (
            "CREATE ROLE no_functions LOGIN",
            "GRANT USAGE ON SCHEMA dbos TO no_functions",
            "GRANT ALL ON ALL TABLES IN SCHEMA dbos TO no_functions",
            "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_postmaster_start_time() FROM PUBLIC",
        ):
            admin.execute(statement.encode())
    login = url.set(username="no_functions").render_as_string(hide_password=False)
    with dn.connect(login) as db:
        with pytest.raises(
            dn.PermissionDeniedError,
            match=r"GRANT EXECUTE ON FUNCTION pg_catalog\.pg_postmaster_start_time",
        ):
            db.cancel("queued-1")
        assert "would be refused" in repr(db.fork("checkout-1", "charge", plan=True))
        assert db.workflow("queued-1").status == "ENQUEUED"


@pytest.mark.parametrize(
    "revoke",
    [
        "SELECT ON pg_catalog.pg_stat_activity",
        "EXECUTE ON FUNCTION pg_catalog.pg_stat_get_activity(integer)",
    ],
)
def test_a_role_that_may_not_see_connections_can_fork_but_gets_no_estimate(
    postgres_server: PostgresServer, corpus_postgres: Callable[[str], str], revoke: str
) -> None:
    url = make_url(corpus_postgres("3.4.0"))
    name = f"limited{next(_numbers)}"
    with postgres_server.admin(str(url.database)) as admin:
        for statement in (
            f"CREATE ROLE {name} LOGIN",
            f"GRANT USAGE ON SCHEMA dbos TO {name}",
            f"GRANT ALL ON ALL TABLES IN SCHEMA dbos TO {name}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA dbos TO {name}",
            f"REVOKE {revoke} FROM PUBLIC",
        ):
            admin.execute(statement.encode())
    login = url.set(username=name).render_as_string(hide_password=False)
    with dn.connect(login) as db:
        assert "Will it run? unknown: this role may not read" in repr(
            db.fork("checkout-1", "charge", plan=True)
        )
        assert db.fork("checkout-1", "charge").counts["done"] == 1
        assert "unknown: this role may not read" in repr(db.repair("parent-6-bad", plan=True))


def test_a_pooler_in_statement_mode_is_refused(
    postgres_server: PostgresServer, corpus_postgres: Callable[[str], str]
) -> None:
    name = str(make_url(corpus_postgres("3.4.0")).database)
    with (
        start_pgbouncer(postgres_server, "statement") as bouncer,
        pytest.raises(dn.DatabaseConnectionError, match="statement pooling mode"),
    ):
        dn.connect(bouncer.url(name))


def test_control_uses_the_service_file_and_hosts_that_reading_uses(
    postgres_server: PostgresServer,
    corpus_postgres: Callable[[str], str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = str(make_url(corpus_postgres("3.4.0")).database)
    file = tmp_path / "pg_service.conf"
    file.write_text(
        f"[prod]\nhost={postgres_server.socket_directory}\nuser=postgres\ndbname={name}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    hosts = f"/nowhere,{postgres_server.socket_directory}"
    for address in ("service=prod", f"host={hosts} user=postgres dbname={name}"):
        with dn.connect(address) as db:
            assert db.fork("checkout-1", "first").counts["done"] == 1
            ids = [f"checkout-{number}" for number in range(1, 5)]
            assert db.fork(ids, "charge").counts["done"] == 4
    with psycopg.connect(postgres_server.url(name)) as server:
        row = server.execute(
            "SELECT count(*) FROM dbos.workflow_status WHERE forked_from LIKE 'checkout-_'"
        ).fetchone()
    assert row == (10,)
