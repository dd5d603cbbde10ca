"""What can go wrong with Postgres, made to go wrong on a real server."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa
from servers import CORPUS, PASSWORD, PASSWORD_ROLE, PostgresServer

import dbos_notebook as dn
from dbos_notebook.database.location import locate
from dbos_notebook.database.postgres import PostgresReader

SECRET = "hunter2-not-the-password"

# Name -> a call of each reading method. The IDs are of the corpus.
READS: dict[str, Callable[[dn.Client], object]] = {
    "workflows": lambda db: db.workflows(),
    "payloads": lambda db: db.workflows(load_input=True, load_output=True),
    "queued": lambda db: db.queued(),
    "iter_workflows": lambda db: list(db.iter_workflows()),
    "arrow": lambda db: db.arrow("workflows").read_all(),
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
    "card": lambda db: db._repr_html_(),
}


def everything_shown(error: BaseException) -> str:
    """Return all that a person, a log or a debugger may show of an error and its chain."""
    texts: list[str] = []
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        each = chain.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        texts += [str(each), repr(each), repr(each.args), *traceback.format_exception(each)]
        texts += getattr(each, "__notes__", [])
        chain += [each.__cause__, each.__context__]
    return "\n".join(texts)


@pytest.fixture
def fresh(
    postgres_server: PostgresServer, corpus_postgres: Callable[[str], str]
) -> tuple[PostgresServer, str]:
    """A database of its own that the test may spoil: the server and the name."""
    return postgres_server, corpus_postgres("3.4.0").split("?")[0].rsplit("/", 1)[1]


@contextmanager
def locked(server: PostgresServer, database: str, table: str = "workflow_status") -> Iterator[None]:
    """Hold a table so that every read of it waits."""
    with psycopg.connect(server.url(database)) as holder:
        holder.execute(f"LOCK TABLE dbos.{table} IN ACCESS EXCLUSIVE MODE".encode())
        yield
        holder.rollback()


def our_queries(server: PostgresServer, database: str) -> list[str]:
    """Return the queries that dbos_notebook's sessions run at this moment."""
    with server.admin() as connection:
        rows = connection.execute(
            "SELECT query FROM pg_stat_activity WHERE datname = %s AND state = 'active' "
            "AND application_name = 'dbos_notebook'",
            [database],
        ).fetchall()
    return [query for (query,) in rows]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until a condition holds; tell whether it came to hold."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@localhost:notaport/shop",
        f"postgresql://ada:{SECRET}@localhost/shop?nosuchoption={SECRET}",
        f"mysql://ada:{SECRET}@localhost/shop",
        f"host=localhost password='{SECRET}",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises((dn.LocationError, dn.DatabaseConnectionError)) as raised:
        dn.connect(url)
    assert SECRET not in everything_shown(raised.value)


@pytest.mark.parametrize("url", ["", "  ", "sqlite://", "sqlite:///:memory:", "a\0b"])
def test_a_url_without_a_database_is_refused(url: str) -> None:
    with pytest.raises(dn.LocationError):
        dn.connect(url)


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    fresh: tuple[PostgresServer, str],
) -> None:
    server, database = fresh
    url = server.url(database, username=PASSWORD_ROLE, password=SECRET)
    with pytest.raises(dn.AuthenticationError) as raised:
        dn.connect(url)
    shown = everything_shown(raised.value)
    assert SECRET not in shown
    assert PASSWORD_ROLE in str(raised.value)
    assert isinstance(raised.value, dn.DatabaseConnectionError)


def test_the_right_password_is_never_shown(fresh: tuple[PostgresServer, str]) -> None:
    server, database = fresh
    with server.admin(database) as admin:
        admin.execute(f"GRANT USAGE ON SCHEMA dbos TO {PASSWORD_ROLE}".encode())
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA dbos TO {PASSWORD_ROLE}".encode())
    url = server.url(database, username=PASSWORD_ROLE, password=PASSWORD)
    with dn.connect(url) as db:
        shown = [repr(db), str(db), repr(db.location), str(db.location), db._repr_html_()]
        with pytest.raises(dn.FilterError) as raised:
            db.workflows(status="EROR")
        shown.append(everything_shown(raised.value))
    assert PASSWORD not in "\n".join(shown)
    assert PASSWORD_ROLE in repr(db)


def test_a_server_that_is_down() -> None:
    started = time.monotonic()
    with pytest.raises(dn.DatabaseConnectionError) as raised:
        dn.connect(f"postgresql://ada:{SECRET}@127.0.0.1:1/shop")
    assert time.monotonic() - started < 5
    assert "127.0.0.1:1" in str(raised.value)
    assert SECRET not in everything_shown(raised.value)


def test_a_server_restarted_between_calls(own_postgres: PostgresServer) -> None:
    server = own_postgres
    database = server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")
    with dn.connect(server.url(database)) as db:
        before = db.workflows()
        server.server.stop()
        with pytest.raises(dn.DatabaseConnectionError):
            db.workflows()
        server.server.ensure_postgres_running()
        assert db.workflows()["workflow_id"].tolist() == before["workflow_id"].tolist()


def test_a_connection_cut_between_calls_is_opened_again(fresh: tuple[PostgresServer, str]) -> None:
    server, database = fresh
    with dn.connect(server.url(database)) as db:
        before = db.workflows()
        assert server.end_connections(database), "there was no kept connection to cut"
        assert db.workflows()["workflow_id"].tolist() == before["workflow_id"].tolist()


def test_a_connection_cut_during_a_call_is_an_error(fresh: tuple[PostgresServer, str]) -> None:
    server, database = fresh
    with dn.connect(server.url(database)) as db:

        def cut() -> None:
            wait_until(lambda: bool(our_queries(server, database)), 5)
            with server.admin() as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = %s AND application_name = 'dbos_notebook'",
                    [database],
                )

        cutter = threading.Thread(target=cut)
        with locked(server, database):
            cutter.start()
            with pytest.raises(dn.DatabaseConnectionError):
                db.workflows()
            cutter.join()
        assert len(db.workflows()) > 0


def test_a_database_without_dbos(postgres_server: PostgresServer) -> None:
    database = postgres_server.create_database()
    with postgres_server.admin(database) as admin:
        admin.execute("CREATE SCHEMA dbos; CREATE TABLE dbos.invoices (id int)")
    with pytest.raises(dn.NotDBOSDatabaseError, match="workflow_status") as raised:
        dn.connect(postgres_server.url(database))
    assert "invoices" in str(raised.value)
    assert not isinstance(raised.value, dn.SchemaNotFoundError)


def test_a_database_that_does_not_exist(postgres_server: PostgresServer) -> None:
    with pytest.raises(dn.DatabaseConnectionError, match="nowhere"):
        dn.connect(postgres_server.url("nowhere"))


@pytest.mark.parametrize("schema", ["public", "no such", 'dbos"; DROP SCHEMA dbos; --', "DBOS"])
def test_a_wrong_schema_names_the_right_one(old_postgres: str, schema: str) -> None:
    with pytest.raises(dn.SchemaNotFoundError, match="'dbos'"):
        dn.connect(old_postgres, schema=schema)


def test_another_schema_is_read_when_named(fresh: tuple[PostgresServer, str]) -> None:
    server, database = fresh
    with server.admin(database) as admin:
        admin.execute("""ALTER SCHEMA dbos RENAME TO "it's dbos" """)
    with pytest.raises(dn.SchemaNotFoundError, match="it's dbos"):
        dn.connect(server.url(database))
    with dn.connect(server.url(database), schema="it's dbos") as db:
        for name, read in READS.items():
            assert read(db) is not None, name


@pytest.fixture
def reader_role(fresh: tuple[PostgresServer, str]) -> Iterator[tuple[PostgresServer, str, str]]:
    """A role with SELECT alone: server, database, and the role's URL."""
    server, database = fresh
    role = f"reader_{database}"
    with server.admin(database) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN".encode())
        admin.execute(f"GRANT USAGE ON SCHEMA dbos TO {role}".encode())
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA dbos TO {role}".encode())
    yield server, database, server.url(database, username=role)
    with server.admin(database) as admin:
        admin.execute(f"DROP OWNED BY {role}".encode())
        admin.execute(f"DROP ROLE {role}".encode())


@pytest.mark.parametrize("name", READS)
def test_select_alone_is_enough_to_read(
    reader_role: tuple[PostgresServer, str, str], name: str
) -> None:
    _, _, url = reader_role
    with dn.connect(url) as db:
        assert READS[name](db) is not None


@pytest.mark.parametrize(
    ("table", "refused", "allowed"),
    [
        ("operation_outputs", ["steps", "step_statistics"], ["workflows", "queues", "counts"]),
        ("workflow_events", ["events"], ["workflows", "steps", "streams"]),
        ("workflow_input", ["payloads"], ["workflows", "steps", "tree"]),
        ("workflow_status", ["workflows", "counts"], ["events", "streams"]),
        ("dbos_migrations", [], ["workflows", "steps", "card"]),
    ],
)
def test_without_select_on_one_table_the_others_are_read(
    reader_role: tuple[PostgresServer, str, str],
    table: str,
    refused: list[str],
    allowed: list[str],
) -> None:
    server, database, url = reader_role
    role = f"reader_{database}"
    with server.admin(database) as admin:
        admin.execute(f"REVOKE SELECT ON dbos.{table} FROM {role}".encode())
    with dn.connect(url) as db:
        for name in refused:
            with pytest.raises(dn.PermissionDeniedError, match=table):
                READS[name](db)
        for name in allowed:
            assert READS[name](db) is not None, name


def test_ctrl_c_cancels_the_query_and_the_client_stays_usable(
    fresh: tuple[PostgresServer, str],
) -> None:
    server, database = fresh
    with dn.connect(server.url(database)) as db:
        waiting = threading.Event()

        def interrupt() -> None:
            if wait_until(lambda: bool(our_queries(server, database)), 5):
                waiting.set()
            # As a notebook's stop button does.
            os.kill(os.getpid(), signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        with locked(server, database):
            interrupter.start()
            started = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                db.workflows()
            assert time.monotonic() - started < 20  # the statement timeout is 30 s
            interrupter.join()
            assert waiting.is_set(), "the query never ran"
            # The lock still holds, so only a cancel can have ended it.
            assert wait_until(lambda: not our_queries(server, database), 2)
        assert len(db.workflows()) > 0
        assert len(db.steps("checkout-1")) > 0


def test_ctrl_c_while_rows_arrive_cancels_the_query_and_the_client_stays_usable(
    fresh: tuple[PostgresServer, str],
) -> None:
    server, database = fresh
    reader = PostgresReader(locate(server.url(database)), "dbos", None)
    endless = sa.select(sa.func.generate_series(1, 10**12).label("n"))
    arrived = 0

    def read() -> None:
        nonlocal arrived
        with reader.session() as session:
            for batch in session.batches(endless, pa.schema([("n", pa.int64())])):
                arrived += batch.num_rows

    interrupter = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        read()
    assert arrived > 0, "no row had come: the interrupt was not in the middle"
    assert wait_until(lambda: not our_queries(server, database), 2)
    with reader.session() as session:
        assert session.rows(sa.select(sa.literal(1).label("one"))) == [{"one": 1}]
    reader.close()


def test_the_client_stays_usable_after_an_unfinished_iteration(
    fresh: tuple[PostgresServer, str],
) -> None:
    server, database = fresh
    with dn.connect(server.url(database)) as db:
        for _ in range(8):
            for chunk in db.iter_workflows(chunksize=3):
                assert len(chunk) == 3
                break
        reader = db.arrow("workflows")
        del reader
        assert len(db.workflows()) > 3
        assert wait_until(lambda: not our_queries(server, database), 2)


@pytest.mark.parametrize("rows", [10, 400_000])
def test_an_unfinished_stream_does_not_block_its_session(old_postgres: str, rows: int) -> None:
    # A COPY holds the connection's lock, for which the session's rollback used to wait for ever.
    reader = PostgresReader(locate(old_postgres), "dbos", 30.0)
    numbers = sa.select(sa.func.generate_series(1, rows).label("n"))
    schema = pa.schema([("n", pa.int64())])

    def leave_early() -> None:
        with reader.session() as session:
            stream = session.batches(numbers, schema)
            assert next(stream).num_rows > 0
        with reader.session() as session:
            assert session.rows(sa.select(sa.literal(1).label("one"))) == [{"one": 1}]

    thread = threading.Thread(target=leave_early, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "the session waits for its own stream"
    reader.close()


def test_a_statement_timeout(fresh: tuple[PostgresServer, str]) -> None:
    server, database = fresh
    with dn.connect(server.url(database), statement_timeout=0.5) as db:
        with locked(server, database):
            started = time.monotonic()
            with pytest.raises(dn.QueryTimeoutError, match="statement_timeout") as raised:
                db.workflows()
            assert 0.4 < time.monotonic() - started < 15  # the default is 30 s
        assert isinstance(raised.value, TimeoutError)
        assert len(db.workflows()) > 0


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO dbos.workflow_events (workflow_uuid, key, value) VALUES ('a', 'b', 'c')",
        "UPDATE dbos.workflow_status SET status = 'CANCELLED'",
        "DELETE FROM dbos.workflow_status",
        "CREATE TABLE dbos.mine (id int)",
    ],
)
def test_our_sessions_cannot_write(old_postgres: str, statement: str) -> None:
    reader = PostgresReader(locate(old_postgres), "dbos", 30.0)
    try:
        with pytest.raises(dn.NotebookError, match="read-only"), reader.session() as session:
            session.execute(statement)
        with reader.session() as session:
            value = session.execute("SHOW transaction_read_only")
        assert value == [{"transaction_read_only": "on"}]
    finally:
        reader.close()


def test_queries_of_one_call_read_one_snapshot(old_postgres: str) -> None:
    reader = PostgresReader(locate(old_postgres), "dbos", 30.0)
    try:
        with reader.session() as session:
            value = session.execute("SHOW transaction_isolation")
        assert value == [{"transaction_isolation": "repeatable read"}]
    finally:
        reader.close()


def test_a_closed_client_raises_and_leaves_no_session(fresh: tuple[PostgresServer, str]) -> None:
    server, database = fresh
    db = dn.connect(server.url(database))
    db.workflows()
    db.close()
    db.close()
    with pytest.raises(dn.DatabaseConnectionError, match="closed"):
        db.workflows()

    def sessions() -> int:
        with server.admin() as admin:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [database]
            ).fetchone()
        assert row is not None
        return int(row[0])

    assert wait_until(lambda: sessions() == 0, 5)
