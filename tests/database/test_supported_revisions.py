"""What the catalog says of control, held against what the installed dbos really does."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from dbos import DBOSClient
from dbos._migration import sqlite_migrations
from servers import CORPUS

import dbos_notebook as dn
from dbos_notebook.database.catalog import Catalog


def at_revision(path: Path, revision: int) -> Path:
    """Make a system database as DBOS's own migrations left it at a revision, with one workflow."""
    connection = sqlite3.connect(path)
    for statements in sqlite_migrations[:revision]:
        for statement in [statements] if isinstance(statements, str) else statements:
            connection.executescript(statement)
    connection.execute("CREATE TABLE IF NOT EXISTS dbos_migrations (version INTEGER)")
    connection.execute("INSERT INTO dbos_migrations VALUES (?)", [revision])
    connection.execute(
        "INSERT INTO workflow_status (workflow_uuid, status, name, created_at, updated_at)"
        " VALUES ('one', 'PENDING', 'work', 1, 1)"
    )
    connection.execute(
        "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name)"
        " VALUES ('one', 1, 'step')"
    )
    connection.commit()
    connection.close()
    return path


def dbos_can(path: Path) -> bool:
    """Try what control needs, with DBOS's own client."""
    client = DBOSClient(system_database_url=f"sqlite:///{path}")
    try:
        client.cancel_workflow("one")
        client.resume_workflow("one")
        # From the second step: the first is copied, which writes more columns.
        client.fork_workflow("one", 2)
        client.delete_workflow("one")
    except Exception:  # noqa: BLE001 - which of many errors it is does not matter
        return False
    finally:
        client.destroy()
    return True


@pytest.mark.parametrize("revision", [1, 35, 99, 108, 109, 110, 114, 122, 125])
def test_control_is_supported_exactly_where_dbos_can_write(tmp_path: Path, revision: int) -> None:
    path = at_revision(tmp_path / "at.sqlite", revision)
    with dn.connect(path) as db:
        control = db.catalog.control
    assert control.possible is dbos_can(path), control.reason
    assert str(revision) in control.reason


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0"])
def test_an_old_database_names_the_matching_dbos_version(
    old: Callable[[str], dn.Client], version: str
) -> None:
    catalog = old(version).catalog
    assert not catalog.control
    assert f'pip install "dbos=={version[:-2]}.*"' in catalog.control.reason
    assert "parent_workflow_id" in catalog.absent["workflow_status"] or version == "2.20.0"
    assert "no table workflow_input" in repr(catalog)


@pytest.fixture(params=["sqlite", "postgres"])
def old(
    request: pytest.FixtureRequest,
    corpus_sqlite: Callable[[str], Path],
    corpus_postgres: Callable[[str], str],
) -> Callable[[str], dn.Client]:
    restore = corpus_sqlite if request.param == "sqlite" else corpus_postgres

    def connect(version: str) -> dn.Client:
        client = dn.connect(restore(version))
        request.addfinalizer(client.close)
        return client

    return connect


def test_the_newest_database_has_every_table_and_column(tmp_path: Path) -> None:
    path = shutil.copyfile(CORPUS / "dbos-3.4.0.sqlite", tmp_path / "new.sqlite")
    with dn.connect(path) as db:
        assert db.catalog.absent == {}
        assert db.catalog.control


def test_a_later_revision_is_refused_until_dbos_is_upgraded() -> None:
    control = Catalog("sqlite", None, 999, {}).control
    assert not control
    assert "pip install --upgrade dbos" in control.reason


def test_an_unknown_revision_is_refused() -> None:
    assert "unknown" in Catalog("sqlite", None, None, {}).control.reason
    assert not Catalog("sqlite", None, None, {}).control
