"""A client that stays open while its database changes, and while its process forks."""

from __future__ import annotations

import contextlib
import copy
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from processes import in_child
from servers import CORPUS, PostgresServer
from test_faults_postgres import READS

import dbos_notebook as dn
from dbos_notebook.database import sqlite_file
from dbos_notebook.database.schema_changes import TABLES
from dbos_notebook.tables.columns import expected_columns

VERSIONS = ("2.0.0", "2.20.0")


@pytest.fixture(scope="module")
def upgraded(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[dn.Client, str]]]:
    """Clients that were connected before the application was upgraded, with their URLs."""
    clients: dict[str, tuple[dn.Client, str]] = {}
    for version in VERSIONS:
        path = tmp_path_factory.mktemp("upgrade") / f"{version}.sqlite"
        shutil.copyfile(CORPUS / f"dbos-{version}.sqlite", path)
        name = postgres_server.restore(CORPUS / f"dbos-{version}.pg.sql.gz")
        for kind, url in (("sqlite", f"sqlite:///{path}"), ("postgres", postgres_server.url(name))):
            client = dn.connect(url)
            client.workflows(load_input=True, load_output=True)
            clients[f"{kind} {version}"] = client, url
    program = Path(__file__).with_name("upgrade_application.py")
    urls = [url for _, url in clients.values()]
    done = subprocess.run(
        [sys.executable, str(program), *urls], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    yield clients
    for client, _ in clients.values():
        client.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_client_reads_an_upgraded_database_as_a_new_one_does(
    upgraded: dict[str, tuple[dn.Client, str]], kind: str, version: str
) -> None:
    client, url = upgraded[f"{kind} {version}"]
    # The first call after the upgrade.
    workflow = client.workflow("after-upgrade")
    assert (tuple(workflow.input), workflow.output) == ((("in",), {}), {"got": "in"})
    with dn.connect(url) as new:
        for name, read in READS.items():
            old_result, new_result = read(client), read(new)
            if isinstance(old_result, list):
                old_result, new_result = old_result[0], new_result[0]  # type: ignore[index]
            if isinstance(old_result, pd.DataFrame):
                # Without durations: those of what still runs grow.
                frames = [
                    frame.select_dtypes(exclude="timedelta").astype(str)
                    for frame in (old_result, new_result)
                ]
                pd.testing.assert_frame_equal(*frames, obj=name)
        assert client.catalog == new.catalog
        assert client.catalog.control
    if kind == "sqlite":
        assert client.explore().frame is not None
        assert "after-upgrade" in client.inspect("after-upgrade").static_html()


@pytest.mark.parametrize("call", ["steps", "graph", "iter_workflows", "events", "cancel"])
def test_every_call_notices_an_upgrade(postgres_server: PostgresServer, call: str) -> None:
    url = postgres_server.url(postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz"))
    calls: dict[str, Callable[[dn.Client], Any]] = {
        "steps": lambda db: db.steps("checkout-1"),
        "graph": lambda db: db.graph("checkout-1"),
        "iter_workflows": lambda db: list(db.iter_workflows()),
        "events": lambda db: db.events(),
        "cancel": lambda db: db.cancel("queued-1"),
    }
    with dn.connect(url) as db, psycopg.connect(url, autocommit=True) as application:
        assert db.catalog.has("queues", "added") is False
        application.execute("ALTER TABLE dbos.queues ADD COLUMN added TEXT")
        calls[call](db)
        assert db.catalog.has("queues", "added")


def change(url: str, *statements: str) -> None:
    """Change the tables, as a migration or a person does."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            for statement in statements:
                connection.execute(statement.replace("dbos.", ""))
        connection.close()
    else:
        with psycopg.connect(url, autocommit=True) as server:
            for statement in statements:
                server.execute(statement.encode())


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path: Path) -> str:
    """The URL of a database of dbos 3.4.0 that the test may spoil."""
    if request.param == "postgres":
        return postgres_server.url(postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz"))
    shutil.copyfile(CORPUS / "dbos-3.4.0.sqlite", tmp_path / "app.sqlite")
    return f"sqlite:///{tmp_path / 'app.sqlite'}"


def test_a_column_is_renamed_and_renamed_back(url: str) -> None:
    with dn.connect(url) as db:
        right = db.workflows()["name"].tolist()
        change(url, "ALTER TABLE dbos.workflow_status RENAME COLUMN name TO title")
        assert db.workflows()["name"].isna().all()
        assert db.catalog.absent["workflow_status"] == ("name",)
        change(url, "ALTER TABLE dbos.workflow_status RENAME COLUMN title TO name")
        assert db.workflows()["name"].tolist() == right
        assert db.catalog.absent == {}


def test_a_column_that_dbos_always_made_is_dropped(url: str) -> None:
    with dn.connect(url) as db:
        change(url, "ALTER TABLE dbos.workflow_status RENAME COLUMN updated_at TO at")
        for _ in range(2):
            with pytest.raises(dn.NotDBOSDatabaseError, match="updated_at"):
                db.workflows()
        change(url, "ALTER TABLE dbos.workflow_status RENAME COLUMN at TO updated_at")
        assert len(db.workflows()) > 0


def test_a_schema_is_dropped_and_recreated(url: str) -> None:
    away, back = (
        ("ALTER SCHEMA dbos RENAME TO away", "ALTER SCHEMA away RENAME TO dbos")
        if url.startswith("postgres")
        else (
            "ALTER TABLE workflow_status RENAME TO away",
            "ALTER TABLE away RENAME TO workflow_status",
        )
    )
    with dn.connect(url) as db:
        right = len(db.workflows())
        change(url, away)
        for _ in range(2):
            with pytest.raises(dn.NotDBOSDatabaseError, match="away"):
                db.workflows()
        change(url, back)
        assert len(db.workflows()) == right
        assert db.catalog.absent == {}


def test_the_sqlite_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "app.sqlite"
    shutil.copyfile(CORPUS / "dbos-2.0.0.sqlite", path)
    with dn.connect(path) as db:
        db.workflows()
        shutil.copyfile(CORPUS / "dbos-3.4.0.sqlite", tmp_path / "new.sqlite")
        (tmp_path / "new.sqlite").rename(path)
        outputs = db.workflows("checkout-1", load_output=True)["output"]
        assert outputs.notna().all()


def test_every_table_that_is_read_is_checked_for_changes() -> None:
    assert set(TABLES) == set(expected_columns())


def test_noticing_schema_changes_needs_no_extra_request(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz"))
    with dn.connect(url) as db:
        db.workflows(limit=3)
        sessions = 0
        session = db._store.reader.session

        def counted() -> Any:
            nonlocal sessions
            sessions += 1
            return session()

        db._store.reader.session = counted  # type: ignore[method-assign]
        db.workflows(limit=3)
        assert sessions == 1


# Retention


DELETIONS = {
    "all": ("DELETE FROM dbos.operation_outputs", "DELETE FROM dbos.workflow_status"),
    "workflows": ("DELETE FROM dbos.workflow_status",),
    "children": ("DELETE FROM dbos.workflow_status WHERE parent_workflow_id IS NOT NULL",),
}

GONE = (dn.WorkflowNotFoundError, dn.RefusedError)

# Calls that read in several sessions, or whose rows belong together.
SEVERAL: dict[str, Callable[[dn.Client], Any]] = {
    "graph": lambda db: db.graph("parent-6-bad"),
    "timeline": lambda db: db.timeline("checkout-1").svg,
    "tree": lambda db: db.tree("parent-6-bad"),
    "steps of children": lambda db: db.steps("checkout-1", children=True),
    "workflow": lambda db: db.workflow("checkout-1")._repr_html_(),
    "parts": lambda db: [
        getattr(db.workflow("checkout-1"), name)
        for name in ("steps", "children", "parent", "original", "forks", "events", "messages")
    ],
    "inspect": lambda db: db.inspect("checkout-1").static_html(),
    "explore": lambda db: db.explore().static_html(),
    "details": lambda db: db.explore()._handlers["details"]({"id": "parent-6-bad"}),
    "children": lambda db: db.explore()._handlers["children"]({"id": "parent-6-bad"}),
    "board": lambda db: db.board().static_html(),
    "controls": lambda db: db.controls("checkout-1"),
    "plan": lambda db: db.fork(["checkout-1", "parent-6-bad"], "first", plan=True),
    "repair": lambda db: db.repair("parent-6-bad", plan=True),
    "repair_status": lambda db: db.repair_status(),
    "fork": lambda db: db.fork("checkout-1", "first"),
    "cancel": lambda db: db.cancel("queued-1"),
    "delete": lambda db: db.delete(["checkout-1", "parent-6-bad"], confirm=True),
}


@pytest.mark.parametrize("deleted", DELETIONS)
def test_rows_deleted_between_two_sessions_of_a_call(tmp_path: Path, deleted: str) -> None:
    """Retention deletes just before the first session of a call, or the second, and so on."""
    original = (CORPUS / "dbos-3.4.0.sqlite").read_bytes()
    path = tmp_path / "app.sqlite"
    path.write_bytes(original)
    with dn.connect(path) as db:
        session, moment, opened = db._store.reader.session, 0, 0

        def hooked() -> Any:
            nonlocal opened
            if opened == moment:
                change(f"sqlite:///{path}", *DELETIONS[deleted])
            opened += 1
            return session()

        db._store.reader.session = hooked  # type: ignore[method-assign]
        for name, call in SEVERAL.items():
            for moment in range(20):
                path.write_bytes(original)
                opened = 0
                with contextlib.suppress(*GONE):
                    call(db)
                if opened <= moment:
                    break
            assert moment > 0, name


def test_rows_inserted_and_deleted_while_they_are_read(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz"))
    over = threading.Event()

    def churn() -> None:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute("CREATE TABLE kept AS SELECT * FROM dbos.workflow_status")
            while not over.is_set():
                server.execute("DELETE FROM dbos.workflow_status")
                server.execute("INSERT INTO dbos.workflow_status SELECT * FROM kept")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        with dn.connect(url) as db:
            end = time.monotonic() + 4
            while time.monotonic() < end:
                for call in (*READS.values(), *SEVERAL.values()):
                    with contextlib.suppress(*GONE):
                        call(db)
    finally:
        over.set()
        thread.join()


# Failover


def test_dead_idle_connections_are_replaced_without_an_error(
    postgres_server: PostgresServer,
) -> None:
    name = postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")
    with dn.connect(postgres_server.url(name)) as db:
        threads = [threading.Thread(target=db.workflows) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert postgres_server.end_connections(name) > 0
        for _ in range(4):
            assert len(db.workflows()) > 0


# Forks


def work(db: dn.Client) -> tuple[int, str]:
    """Read and control."""
    return len(db.workflows()), db.cancel("queued-1").to_frame()["outcome"].iloc[0]


def test_a_forked_child_reads_and_controls_on_connections_of_its_own(url: str) -> None:
    with dn.connect(url) as db:
        assert db.cancel("queued-2").counts["done"] == 1  # DBOS's client and its threads exist
        right = len(db.workflows())
        assert in_child(lambda: work(db)) == (right, "done")
        # And the parent's are alive.
        assert work(db) == (right, "unchanged")
        assert db.resume("queued-2").counts["done"] == 1


SCRIPT = """
import os, sys, warnings
import sqlalchemy as sa
import dbos_notebook as dn
warnings.simplefilter("ignore", DeprecationWarning)
db = dn.connect(sys.argv[1])
db.cancel("queued-2")
count = sa.text("SELECT count(*) AS n FROM dbos.workflow_status".replace(
    "dbos.", "" if db.catalog.dialect == "sqlite" else "dbos."))
with db._store.reader.session() as session:
    before = session.rows(count)
    children = [os.fork()]
    if children[0]:
        children.append(os.fork())
    if 0 not in children:
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        # The transaction goes on.
        assert session.rows(count) == before
    # The children leave the block, with their parent's session open.
if 0 in children:
    if len(children) == 2:
        db.close()
    sys.exit(0)  # with everything that Python does at its end
print(len(db.workflows()), db.resume("queued-2").counts["done"])
db.close()
"""


def test_forked_children_that_exit_keep_their_parents_connections(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT, url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["26", "1"]
    assert "ResourceWarning" not in done.stderr


def test_forking_while_a_thread_holds_the_locks_does_not_hang(url: str) -> None:
    # Held on purpose: a thread that reads also holds Python's and SQLite's own, which no child can
    # release.
    held, over = threading.Event(), threading.Event()
    with dn.connect(url) as db:
        db.workflows(limit=3)
        reader: Any = db._store.reader
        own = reader._idle._lock if reader.dialect == "postgresql" else reader._file._lock

        def hold() -> None:
            with own, reader.changes._lock, sqlite_file._descriptors_lock:
                held.set()
                over.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        try:
            assert in_child(lambda: len(db.workflows())) == 26
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_cannot_be_pickled_or_copied(
    old_sqlite: Path, duplicate: Callable[[object], object]
) -> None:
    with dn.connect(old_sqlite) as db:
        with pytest.raises(dn.NotCopyableError, match="connect") as caught:
            duplicate(db)
        assert isinstance(caught.value, TypeError)  # as Python's own
