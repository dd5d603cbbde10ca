"""Databases that lack a column or a table, or have more than is known: all of them are read."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from reference import read_everything
from servers import CORPUS, PostgresServer

import dbos_notebook as dn
from dbos_notebook.status import STATUSES
from dbos_notebook.tables.columns import PAYLOAD, STEP, WORKFLOW

NEWEST = CORPUS / "dbos-3.4.0.sqlite"
# What every DBOS database has had since the first that is read.
ALWAYS = {
    "workflow_status": {"workflow_uuid", "status", "name", "created_at", "updated_at"},
    "operation_outputs": {"workflow_uuid", "function_id", "function_name", "error"},
}


def optional_columns() -> list[tuple[str, str]]:
    connection = sqlite3.connect(f"file:{NEWEST}?mode=ro", uri=True)
    found = [
        (table, row[1])
        for table, always in ALWAYS.items()
        for row in connection.execute(f"PRAGMA table_info({table})")
        if row[1] not in always
    ]
    connection.close()
    return found


def optional_tables() -> list[str]:
    connection = sqlite3.connect(f"file:{NEWEST}?mode=ro", uri=True)
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return sorted(name for (name,) in rows if name not in ALWAYS and "sqlite" not in name)


def changed(path: Path, *statements: str) -> Path:
    """Copy the newest database of the corpus and change the copy."""
    shutil.copyfile(NEWEST, path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = off")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


def without_indexes(table: str) -> list[str]:
    """Return statements that drop a table's indexes, which may name any column."""
    connection = sqlite3.connect(f"file:{NEWEST}?mode=ro", uri=True)
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql NOT NULL",
        [table],
    ).fetchall()
    connection.close()
    return [f'DROP INDEX "{name}"' for (name,) in rows]


@pytest.fixture(scope="module")
def whole() -> dict[str, pd.DataFrame]:
    with dn.connect(NEWEST) as client:
        return read_everything(client)


def test_many_optional_columns_and_tables_are_tested() -> None:
    assert len(optional_columns()) > 35
    assert {"queues", "workflow_input", "workflow_output", "streams"} <= set(optional_tables())


@pytest.mark.parametrize(("table", "column"), optional_columns())
def test_without_one_column_the_other_columns_are_unchanged(
    tmp_path: Path, whole: dict[str, pd.DataFrame], table: str, column: str
) -> None:
    drop = f'ALTER TABLE {table} DROP COLUMN "{column}"'
    path = changed(tmp_path / "cut.sqlite", *without_indexes(table), drop)
    with dn.connect(path) as client:
        assert not client.catalog.has(table, column)
        frames = read_everything(client)
    assert_only_missing(frames, whole, table, column)


@pytest.fixture(scope="module")
def postgres_name(postgres_server: PostgresServer) -> str:
    return postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")


@pytest.fixture(scope="module")
def whole_postgres(postgres_server: PostgresServer, postgres_name: str) -> dict[str, pd.DataFrame]:
    with dn.connect(postgres_server.url(postgres_name)) as client:
        return read_everything(client)


@pytest.mark.parametrize(("table", "column"), optional_columns())
def test_without_one_column_on_postgres(
    postgres_server: PostgresServer,
    postgres_name: str,
    whole_postgres: dict[str, pd.DataFrame],
    table: str,
    column: str,
) -> None:
    name = postgres_server.create_database(like=postgres_name)
    with postgres_server.admin(name) as connection:
        connection.execute(f'ALTER TABLE dbos.{table} DROP COLUMN "{column}" CASCADE'.encode())
    with dn.connect(postgres_server.url(name)) as client:
        assert not client.catalog.has(table, column)
        frames = read_everything(client)
    assert_only_missing(frames, whole_postgres, table, column)
    with postgres_server.admin() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def assert_only_missing(
    frames: dict[str, pd.DataFrame], whole: dict[str, pd.DataFrame], table: str, column: str
) -> None:
    """Compare with the whole database: one column is missing, and what is derived from it."""
    for name, frame in frames.items():
        assert list(frame.columns) == list(whole[name].columns), name
        assert frame.dtypes.map(kind).equals(whole[name].dtypes.map(kind)), name
    name, vocabulary = {
        "workflow_status": ("workflows", WORKFLOW),
        "operation_outputs": ("steps", (*STEP, *PAYLOAD[:1], *PAYLOAD[2:])),
    }[table]
    depends = {c.name for c in vocabulary if c.source == column}
    assert frames[name][sorted(depends)].isna().all(axis=None)
    depends |= {"duration", "queue_wait", "error_type", "error_message"}
    kept = [c for c in whole[name].columns if c not in depends]
    pd.testing.assert_frame_equal(
        frames[name][kept], whole[name][kept], check_dtype=False, check_categorical=False
    )


def kind(dtype: object) -> str:
    """Name a dtype, whatever categories it has."""
    return "category" if isinstance(dtype, pd.CategoricalDtype) else str(dtype)


@pytest.mark.parametrize("table", optional_tables())
def test_without_one_table_everything_is_read(
    tmp_path: Path, whole: dict[str, pd.DataFrame], table: str
) -> None:
    path = changed(tmp_path / "cut.sqlite", f"DROP TABLE {table}")
    with dn.connect(path) as client:
        frames = read_everything(client)
        assert "dbos-notebook-card" in client._repr_html_()
    assert len(frames["workflows"]) == len(whole["workflows"])
    assert len(frames["steps"]) == len(whole["steps"])
    for name, frame in frames.items():
        assert list(frame.columns) == list(whole[name].columns), name


def test_unknown_tables_and_columns_are_ignored(
    tmp_path: Path, whole: dict[str, pd.DataFrame]
) -> None:
    path = changed(
        tmp_path / "more.sqlite",
        "ALTER TABLE workflow_status ADD COLUMN mood TEXT DEFAULT 'good'",
        "CREATE TABLE moods (name TEXT)",
        "UPDATE dbos_migrations SET version = 999",
    )
    with dn.connect(path) as client:
        frames = read_everything(client)
        assert client.catalog.written_by == "something after dbos 3.4"
    for name, frame in frames.items():
        assert list(frame.columns) == list(whole[name].columns), name


def test_an_unknown_status_is_kept_and_sorted_last(tmp_path: Path) -> None:
    update = "UPDATE workflow_status SET status = 'PAUSED' WHERE workflow_uuid = 'checkout-1'"
    with dn.connect(changed(tmp_path / "later.sqlite", update)) as client:
        frame = client.workflows(limit=None)
        assert client.workflow("checkout-1").status == "PAUSED"
        assert "PAUSED" in client._repr_html_()
        counts = client.counts("status")
    assert frame["status"].cat.categories.tolist() == [*STATUSES, "PAUSED"]
    assert counts["count"].sum() == len(frame)
    assert frame.sort_values("status")["status"].iloc[-1] == "PAUSED"


def test_a_database_of_the_typescript_sdk_is_read(corpus_postgres: Callable[[str], str]) -> None:
    with dn.connect(corpus_postgres("ts-5.3.0")) as client:
        frames = read_everything(client)
    assert frames["steps"]["function_id"].min() == 0
    assert set(frames["payloads"]["serialization"].dropna()) == {"js_superjson"}
