"""What can go wrong with a SQLite file."""

from __future__ import annotations

import binascii
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from test_faults_postgres import READS

import dbos_notebook as dn
from dbos_notebook.database.csv_blocks import Block, Dialect, record_batches
from dbos_notebook.database.location import locate
from dbos_notebook.database.sqlite import SQLiteReader, define_unixepoch


@pytest.fixture(scope="module")
def long_sqlite(corpus_sqlite: Callable[[str], Path]) -> Path:
    """A file with 200,000 workflows: long enough to be interrupted."""
    path = corpus_sqlite("3.4.0")
    with sqlite3.connect(path) as connection:
        columns = [
            row[1]
            for row in connection.execute("PRAGMA table_info(workflow_status)")
            if row[1] != "workflow_uuid"
        ]
        names = ", ".join(columns)
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) "
            f"INSERT INTO workflow_status (workflow_uuid, {names}) "
            f"SELECT 'made-' || i, {names} FROM n, "
            "(SELECT * FROM workflow_status WHERE workflow_uuid = 'checkout-1')"
        )
    connection.close()
    return path


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "missing.sqlite"
    for database in (path, str(path), f"sqlite:///{path}"):
        with pytest.raises(dn.DatabaseConnectionError, match=r"missing\.sqlite"):
            dn.connect(database)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dn.DatabaseConnectionError):
        dn.connect(tmp_path)


def test_a_file_removed_between_calls(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    with dn.connect(path) as db:
        db.workflows()
        path.unlink()
        with pytest.raises(dn.DatabaseConnectionError):
            db.workflows()
        assert not path.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "no tables"), (b"this is not a database" * 100, "not a SQLite database")],
)
def test_a_file_that_is_not_a_database(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(dn.NotDBOSDatabaseError, match=told):
        dn.connect(path)
    assert path.read_bytes() == content


def test_a_database_without_dbos(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    connection.close()
    with pytest.raises(dn.NotDBOSDatabaseError, match="invoices"):
        dn.connect(path)


def test_a_file_name_with_url_characters(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    odd = path.rename(path.with_name("50%41 off?#mode=rw&'☃.sqlite"))
    with dn.connect(odd) as db:
        assert len(db.workflows()) > 0


def test_an_exclusive_lock_is_waited_for_and_then_reported(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("3.4.0")
    with dn.connect(path) as db:
        writer = sqlite3.connect(path, isolation_level=None)
        # In WAL mode a reader never waits for a writer; this test is about the other modes.
        writer.execute("PRAGMA journal_mode = DELETE")
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(dn.DatabaseLockedError, match="locked"):
            db.workflows()
        writer.execute("ROLLBACK")
        writer.close()
        assert len(db.workflows()) > 0


def test_reading_leaves_the_file_as_it_was(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    listing = sorted(path.parent.iterdir())
    with dn.connect(path) as db:
        for name, read in READS.items():
            assert read(db) is not None, name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert sorted(path.parent.iterdir()) == listing


@pytest.mark.parametrize(
    "statement",
    ["UPDATE workflow_status SET status = 'CANCELLED'", "CREATE TABLE mine (id INTEGER)"],
)
def test_our_sessions_cannot_write(old_sqlite: Path, statement: str) -> None:
    reader = SQLiteReader(locate(old_sqlite), 30.0)
    with pytest.raises(dn.NotebookError, match="readonly"), reader.session() as session:
        session.rows(sa.text(statement))


def test_a_read_only_file_can_be_read(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    path.chmod(0o444)
    with dn.connect(path) as db:
        assert len(db.workflows()) > 0


def test_a_sqlite_query_times_out(long_sqlite: Path) -> None:
    with dn.connect(long_sqlite, statement_timeout=0.01) as db:
        with pytest.raises(dn.QueryTimeoutError, match="statement_timeout"):
            db.workflows(limit=None)
        assert len(db.workflows(workflow_ids="made-1")) == 1


def test_ctrl_c_while_errors_are_searched_is_no_error_of_the_database(
    corpus_sqlite: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search calls a Python function for each error, and SQLite hides what it raises."""

    def interrupted(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(binascii, "a2b_base64", interrupted)
    with dn.connect(corpus_sqlite("3.4.0")) as db, pytest.raises(KeyboardInterrupt):
        db.workflows(search="declined")


def test_no_signal_is_lost_while_rows_are_parsed() -> None:
    """Arrow replaces Python's signal handlers in some of its functions, and loses signals."""
    schema = pa.schema([("workflow_id", pa.string())])
    data = b'"some-id"\n' * 20_000
    handled = threading.Event()
    finished = threading.Event()
    lost = []

    def send() -> None:
        for _ in range(200):
            if finished.is_set():
                break
            handled.clear()
            os.kill(os.getpid(), signal.SIGINT)
            if not handled.wait(5):
                lost.append(1)
                break
            time.sleep(random.random() / 1000)
        finished.set()

    before = signal.signal(signal.SIGINT, lambda *_: handled.set())
    thread = threading.Thread(target=send)
    thread.start()
    try:
        while not finished.is_set():
            blocks = (block for block in [Block(data, 10, last=True)])
            (batch,) = record_batches(blocks, schema, Dialect("'", ("",)))
            assert batch.num_rows == 20_000
    finally:
        finished.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not lost


def test_the_client_stays_usable_after_ctrl_c(long_sqlite: Path) -> None:
    with dn.connect(long_sqlite) as db:
        interrupter = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        interrupter.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                db.workflows(limit=None)
        finally:
            interrupter.join()
        assert len(db.workflows(workflow_ids=["made-1", "made-2"])) == 2


def test_control_of_a_database_that_a_newer_python_created(
    shop_sqlite: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copyfile(shop_sqlite, tmp_path / "newer.sqlite"))
    # There, times default to what SQLite before 3.42 does not have.
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?)",
            ("strftime('%s','now')", "unixepoch('subsec')"),
        )
    with closing(sqlite3.connect(path)) as connection:
        (schema,) = connection.execute("SELECT group_concat(sql) FROM sqlite_master").fetchone()
    assert "unixepoch('subsec')" in schema
    assert "strftime" not in schema

    with dn.connect(path) as db:
        failed = db.workflows(status="ERROR", limit=1)
        begun = pd.Timestamp.now("UTC").floor("ms")
        forked = db.fork(failed, 0)
        sent = db.send(db.workflows(status="PENDING", limit=1), "yes", topic="answer")
        ended = pd.Timestamp.now("UTC")
        assert (forked.counts["done"], sent.counts["done"]) == (1, 1), (forked, sent)
        (line,) = forked.lines
        created = db.workflows(workflow_ids=[str(line.new_workflow_id)])["created_at"]
        messages = db.messages().query("topic == 'answer'")["created_at"]
    times = [*created, *messages]
    assert len(times) == 2
    assert all(begun <= time <= ended for time in times), (begun, times, ended)


@pytest.mark.parametrize("moment", ["now", "2026-01-01 00:00:00", 2461041.5, "nonsense", None])
def test_other_calls_of_unixepoch_return_what_sqlite_returns(
    monkeypatch: pytest.MonkeyPatch, moment: object
) -> None:
    # Also where SQLite has its own.
    monkeypatch.setattr("dbos_notebook.database.sqlite._UNIXEPOCH_SUBSEC", (99,))
    with closing(sqlite3.connect(":memory:")) as connection:
        call = "SELECT unixepoch(?)"
        (expected,) = connection.execute(
            "SELECT CAST(strftime('%s', ?) AS INTEGER)", (moment,)
        ).fetchone()
        define_unixepoch(connection)
        (found,) = connection.execute(call, (moment,)).fetchone()
    assert (found is None) == (expected is None)
    assert found is None or abs(found - expected) <= 1
