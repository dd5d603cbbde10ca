"""Estimates for real applications: just deployed, idle, killed, pooled, with custom names.

Each test has its own database, in which an application of version v0 ran a workflow two days ago.
The test starts and kills other processes and checks the estimates for their versions.
"""

from __future__ import annotations

import gzip
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from live_executors import ExecutorProcess, until
from servers import PostgresServer, require, start_pgbouncer, start_standby

import dbos_notebook as dn
from dbos_notebook.tables import availability

DAY_MS = 86_400_000
SDK = "@dbos-inc/dbos-sdk@5.3.0"
UNNAMED = {"db_engine_kwargs": {"connect_args": {"prepare_threshold": None}}}
CUSTOM_NAME = {"db_engine_kwargs": {"connect_args": {"application_name": "shop-api"}}}
POOLED = {**UNNAMED, "use_listen_notify": False}


def backdate(execute: Callable[[str], Any], schema: str) -> None:
    """Backdate everything in the database by two days."""
    for table, columns in {
        "workflow_status": ("created_at", "updated_at", "started_at_epoch_ms", "completed_at"),
        "application_versions": ("created_at", "version_timestamp"),
        "operation_outputs": ("started_at_epoch_ms", "completed_at_epoch_ms"),
    }.items():
        moved = ", ".join(f"{column} = {column} - {2 * DAY_MS}" for column in columns)
        execute(f"UPDATE {schema}{table} SET {moved}")


@pytest.fixture(scope="module")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file to which the application writes its side effects."""
    path = tmp_path_factory.mktemp("executors") / "effects"
    path.touch()
    return path


@pytest.fixture(scope="module")
def template(postgres_server: PostgresServer, effects: Path) -> str:
    """The name of a database in which v0 ran the workflow ``one`` two days ago."""
    name = postgres_server.create_database()
    _run_once(postgres_server.url(name), effects)
    with postgres_server.admin(name) as connection:
        backdate(lambda statement: connection.execute(statement.encode()), "dbos.")
    return name


def _run_once(url: str, effects: Path) -> None:
    process = ExecutorProcess(url, "v0", "executor-v0", effects)
    process.send("run", name="three", ids=["one"])
    process.stop()


@pytest.fixture
def database(postgres_server: PostgresServer, template: str) -> str:
    """The name of a copy of the template database."""
    return postgres_server.create_database(template)


@pytest.fixture
def url(postgres_server: PostgresServer, database: str) -> str:
    """The URL of that copy."""
    return postgres_server.url(database)


@contextmanager
def running(url: str, version: str, effects: Path, **config: Any) -> Iterator[ExecutorProcess]:
    """Deploy an application that has run nothing."""
    if url.startswith("sqlite"):
        # SQLite stores whole seconds: two registrations within one are indistinguishable.
        time.sleep(2.1)
    before = listeners(url)
    process = ExecutorProcess(url, version, f"executor-{version}", effects, **config)
    try:
        if config.get("use_listen_notify", True):
            # A thread of the application opens this connection some time after the launch.
            until(lambda: listeners(url) - before or url.startswith("sqlite"), "it listens")
        yield process
    finally:
        process.stop()


def listeners(url: str) -> set[int]:
    """Return the PIDs of the sessions that listen for notifications."""
    if url.startswith("sqlite"):
        return set()
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            b"SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            b"AND pid <> pg_backend_pid() AND query LIKE 'LISTEN %'"
        ).fetchall()
    return {pid for (pid,) in rows}


def availability_of(url: str, version: str | None, **options: Any) -> str:
    """Return the estimate for a fork."""
    with dn.connect(url, **options) as client:
        plan = client.fork("one", 1, application_version=version, plan=True)
        return str(plan.items[0].will_run)


def backdate_registration(url: str, version: str) -> None:
    """Backdate a registration so that no process has started at that time."""
    change = f"SET created_at = created_at - {DAY_MS} WHERE version_name = '{version}'"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(f"UPDATE application_versions {change}")
    else:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(f"UPDATE dbos.application_versions {change}".encode())


def wait_for_disconnect(url: str) -> None:
    """Wait until the server has closed the connections of killed processes."""
    with psycopg.connect(url, autocommit=True) as connection:
        others = (
            b"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() "
            b"AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        until(lambda: connection.execute(others).fetchone() == (True,), "connections are gone")


@pytest.mark.parametrize(
    "config", [{}, CUSTOM_NAME, UNNAMED], ids=["default", "own name", "no name"]
)
def test_an_idle_application_that_was_just_deployed_and_then_killed(
    url: str, effects: Path, config: dict[str, Any]
) -> None:
    assert availability_of(url, "v0").startswith(
        "unlikely: no DBOS process is connected to the database"
    )
    with running(url, "v1", effects, **config):
        assert availability_of(url, "v1").startswith("likely: version v1 was registered")
        assert availability_of(url, None).startswith(
            "likely: version v1 (the latest) was registered"
        )
        before = availability_of(url, "v0")
        assert before.startswith("unlikely. Version v1 is alive: fork with"), before
        assert "Reason: version v0 was registered about 2 d ago" in before
        assert "but the only process started when version v1 was registered" in before
        missing = availability_of(url, "v7")
        assert missing == (
            "unlikely. Version v1 is alive: fork with application_version='v1'. "
            "Reason: no executor has registered version v7 (registered: v1, v0)"
        )
    wait_for_disconnect(url)
    assert availability_of(url, "v1").startswith(
        "unlikely: no DBOS process is connected to the database"
    )


def test_recent_activity_does_not_make_a_killed_version_likely(url: str, effects: Path) -> None:
    with running(url, "v1", effects) as process:
        process.send("run", name="three", ids=["two"])
        found = availability_of(url, "v1")
        assert found.startswith("likely: version v1 was last active"), found
    wait_for_disconnect(url)
    found = availability_of(url, "v1")
    assert found.startswith("unlikely: no DBOS process is connected"), found
    assert "version v1 was last active" in found
    with running(url, "v2", effects) as process:
        # The open connections are newer than v1's last activity.
        assert not availability_of(url, "v1").startswith("likely")
        process.send("run", name="three", ids=["three"])
        assert availability_of(url, "v2").startswith("likely: version v2 was last active")
        found = availability_of(url, "v1")
        assert found.startswith("unlikely. "), "the only process that listens is v2's"
        assert "the only process started when version v2 was registered" in found


def test_two_running_versions_are_distinguished(url: str, effects: Path) -> None:
    with running(url, "v1", effects), running(url, "v2", effects) as other:
        other.send("run", name="three", ids=["two"])
        assert availability_of(url, "v2").startswith("likely: version v2 was last active")
        found = availability_of(url, "v1")
        assert found.startswith("likely: "), "two processes listen, and one of them is v2"
        assert "one process started when that version was registered" in found
        backdate_registration(url, "v1")
        found = availability_of(url, "v1")
        assert found.startswith("unknown: "), "the version of the other is unknown"
        assert "version v2 is active" in found


@pytest.fixture(params=["sqlite", "postgresql"])
def deployed(request: pytest.FixtureRequest, tmp_path: Path, effects: Path) -> str:
    """The URL of a database in which v0 ran the workflow ``one`` and was killed."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("url"))
    if sys.platform != "linux":
        require("Linux, which shows who has a SQLite file open")
    url = f"sqlite:///{tmp_path}/app.sqlite"
    _run_once(url, effects)
    return url


def test_rolling_deployment_with_overlap(deployed: str, effects: Path) -> None:
    with running(deployed, "v1", effects) as process:
        process.send("run", name="three", ids=["two"])
        assert availability_of(deployed, "v1").startswith("likely: version v1 was last active")
        with running(deployed, "v2", effects):
            # They overlap, as in a rolling deployment: v1 is still active, then killed.
            process.send("run", name="three", ids=["three"])
            assert availability_of(deployed, "v1").startswith("likely: version v1 was last active")
            assert availability_of(deployed, "v2").startswith("likely: version v2 was registered")
            process.stop()
            until(lambda: not availability_of(deployed, "v1").startswith("likely"), "v1 is gone")
            found = availability_of(deployed, "v1")
            assert found.startswith("unknown: version v1 was registered"), found
            found = availability_of(deployed, "v2")
            assert found.startswith("likely: version v2 was registered"), found
            assert "one process started when that version was registered" in found


def test_a_version_that_no_process_started_with(deployed: str, effects: Path) -> None:
    """As when a new version replaces the one of what has failed."""
    if deployed.startswith("sqlite"):
        time.sleep(1.1)  # SQLite stores whole seconds
    with running(deployed, "v1", effects):
        assert availability_of(deployed, "v1").startswith("likely: version v1 was registered")
        found = availability_of(deployed, "v0")
        assert found.startswith(
            "unlikely. Version v1 is alive: fork with application_version='v1'. "
            "Reason: version v0 was registered"
        ), found
        assert "but the only process started when version v1 was registered" in found


def test_deployment_after_the_old_version_ended(deployed: str, effects: Path) -> None:
    with running(deployed, "v1", effects) as process:
        process.send("run", name="three", ids=["two"])
    with running(deployed, "v2", effects) as process:
        until(lambda: not availability_of(deployed, "v1").startswith("likely"), "v1 is gone")
        found = availability_of(deployed, "v2")
        assert found.startswith("likely: version v2 was registered"), found
        if deployed.startswith("sqlite"):
            # SQLite stores whole seconds; activity in the second of the start is not attributed.
            time.sleep(1.1)
        process.send("run", name="three", ids=["three"])
        assert availability_of(deployed, "v2").startswith("likely: version v2 was last active")
        # As soon as v1's activity is too old: the only process left is v2's, which is active.
        until(lambda: availability_of(deployed, "v1").startswith("unlikely"), "v1 is unlikely")


def test_an_old_version_that_restarts_with_another_executor_id(
    deployed: str, effects: Path
) -> None:
    with running(deployed, "v1", effects):
        backdate_registration(deployed, "v1")
        for executor in ("first", "second"):
            process = ExecutorProcess(deployed, "v0", executor, effects)
            process.send("run", name="three", ids=[f"by {executor}"])
            found = availability_of(deployed, "v1")
            process.stop()
            assert found.startswith("unknown: version v1 was registered"), found
            assert "version v0 is active" in found


@pytest.fixture
def change(deployed: str) -> Callable[[str], None]:
    """Execute a statement; ``{}`` is where the schema of a table belongs."""

    def execute(statement: str) -> None:
        if deployed.startswith("sqlite"):
            path = deployed.removeprefix("sqlite:///")
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(statement.format(""))
        else:
            with psycopg.connect(deployed, autocommit=True) as other:
                other.execute(statement.format("dbos.").encode())

    return execute


def test_executors_of_another_application_do_not_count(
    deployed: str, effects: Path, change: Callable[[str], None]
) -> None:
    """The client's application, with a typo, would own the fork of what nobody owns."""
    typo = {"application_name": "control-testz"}
    with running(deployed, "v1", effects) as process:
        process.send("run", name="three", ids=["two"])
        change("UPDATE {}workflow_status SET application_name = NULL")
        assert availability_of(deployed, None).startswith("likely: ")
        own = availability_of(deployed, None, application_name="control-tests")
        assert own.startswith("likely: version v1 (the latest) was last active"), own
        for version in (None, "v1", "v0"):
            found = availability_of(deployed, version, **typo)
            assert found.startswith(
                "unlikely: no executor has registered application control-testz "
                "(registered: control-tests)"
            ), found
        # The application exists, but has only its own version, and no executor.
        change(
            "INSERT INTO {}application_versions (version_id, version_name, version_timestamp, "
            "created_at, application_name) VALUES ('z', 'z1', 1, 1, 'control-testz')"
        )
        found = availability_of(deployed, "v1", **typo)
        assert found.startswith(
            "unlikely: no executor of application control-testz has registered version v1 "
            "(registered by application control-tests)"
        ), found
        found = availability_of(deployed, None, **typo)
        assert found.startswith("unlikely: version z1 (the latest) was registered"), found
        assert availability_of(deployed, "v1").startswith("likely: ")


def test_the_process_of_another_application_does_not_count(
    deployed: str, effects: Path, change: Callable[[str], None]
) -> None:
    change("UPDATE {}workflow_status SET application_name = NULL")
    change("UPDATE {}application_versions SET application_name = 'control-testz'")
    with running(deployed, "v1", effects):
        found = availability_of(deployed, None, application_name="control-testz")
        assert found.startswith("unlikely: version v0 (the latest) was registered"), found
        assert "started when version v1 of application control-tests was registered" in found


def test_executors_that_know_no_applications_count_for_every_application(
    deployed: str, effects: Path, change: Callable[[str], None]
) -> None:
    """As of dbos before 2.30, which takes the work of any application."""
    named = {"application_name": "control-testz"}
    with running(deployed, "v1", effects) as process:
        process.send("run", name="three", ids=["two"])
        for table in ("workflow_status", "application_versions"):
            change(f"UPDATE {{}}{table} SET application_name = NULL")
        for version in (None, "v1"):
            found = availability_of(deployed, version, **named)
            assert found.startswith("likely: version v1"), found
            assert "was last active" in found


def test_a_redeployed_version_that_has_run_nothing_since(url: str, effects: Path) -> None:
    """Its registration dates from its first deployment."""
    with running(url, "v0", effects):
        found = availability_of(url, "v0")
    assert found.startswith("likely: version v0 was registered about 2 d ago"), found
    assert "connections of DBOS processes of unknown version are open" in found


def test_a_role_that_cannot_see_other_sessions(
    postgres_server: PostgresServer, database: str, url: str, effects: Path
) -> None:
    with postgres_server.admin(database) as connection:
        connection.execute(
            b"DO $$ BEGIN CREATE ROLE limited LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;"
            b"GRANT USAGE ON SCHEMA dbos TO limited;"
            b"GRANT SELECT ON ALL TABLES IN SCHEMA dbos TO limited"
        )
    limited = postgres_server.url(database, username="limited")
    for config in ({}, UNNAMED):
        with running(url, "v1", effects, **config):
            assert availability_of(limited, "v1").startswith("likely"), (
                "it has just been registered"
            )
            with postgres_server.admin(database) as connection:
                backdate(lambda statement: connection.execute(statement.encode()), "dbos.")
            found = availability_of(limited, "v1")
            if config:
                assert found.startswith("unknown"), found
                assert "connections are open that may belong to DBOS processes (unnamed)" in found
            else:
                assert found.startswith("likely"), found
        wait_for_disconnect(url)
        assert availability_of(limited, "v1").startswith("unlikely: no DBOS process is connected")
        with postgres_server.admin(database) as connection:
            connection.execute(b"DELETE FROM dbos.application_versions WHERE version_name = 'v1'")


def test_connections_of_other_programs_do_not_count_as_executors(
    postgres_server: PostgresServer, database: str, url: str
) -> None:
    with postgres_server.admin(database) as connection:
        connection.execute(
            b"DO $$ BEGIN CREATE ROLE reporting LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;"
            b"GRANT USAGE ON SCHEMA dbos TO reporting"
        )
    reports = postgres_server.url(database, username="reporting")
    with (
        psycopg.connect(reports, application_name="Metabase"),
        psycopg.connect(url, application_name="psql"),
        psycopg.connect(url, application_name="dbos_transact_client"),
    ):
        assert availability_of(url, "v0").startswith("unlikely: no DBOS process is connected")
        with psycopg.connect(url, application_name="shop-web"):
            found = availability_of(url, "v0")
            assert found.startswith("unknown: version v0 was registered about 2 d ago"), found
            assert "1 connection is open that may belong to DBOS processes ('shop-web')" in found


# What the Java and Go SDKs do on their connections (their sources, August 2026): Java keeps the
# name of its driver, "PostgreSQL JDBC Driver"; Go uses the name of the application.
@pytest.mark.parametrize(
    ("name", "statements", "word"),
    [
        ("PostgreSQL JDBC Driver", ["LISTEN dbos_streams_channel"], "likely"),
        ("PostgreSQL JDBC Driver", ["SELECT 1"], "unknown"),
        ("control-tests", ["BEGIN", "LISTEN dbos_streams_channel", "COMMIT"], "likely"),
        ("other-app", ["BEGIN", "LISTEN dbos_streams_channel", "COMMIT"], "unlikely"),
    ],
)
def test_connections_of_other_sdks_are_recognized_by_their_statements(
    url: str, name: str, statements: list[str], word: str
) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            b"INSERT INTO dbos.application_versions (version_id, version_name, version_timestamp, "
            b"created_at, application_name) VALUES ('x', 'x1', 1, 1, 'other-app')"
        )
    with psycopg.connect(url, application_name=name, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        found = availability_of(url, "v0")
        assert found.startswith(word), found


def test_idle_connections_lose_weight_with_time(
    url: str, effects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example after a power failure, or those of a pooler whose client died."""
    with psycopg.connect(url, application_name="dbos_transact", autocommit=True) as connection:
        connection.execute(b"SELECT 1")
        assert availability_of(url, "v0").startswith("likely")
        time.sleep(0.3)
        monkeypatch.setattr(availability, "SILENT_SECONDS", 0.2)
        found = availability_of(url, "v0")
        assert found.startswith("unknown: version v0 has no recent activity; 1 connection")
        assert "none has sent a statement for" in found
        monkeypatch.setattr(availability, "DEAD_SECONDS", 0.2)
        assert availability_of(url, "v0").startswith("unlikely")


def test_an_idle_executor_behind_a_transaction_pooler_is_unknown(
    postgres_server: PostgresServer,
    database: str,
    url: str,
    effects: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_pgbouncer(postgres_server, pool_size=5) as pooler:
        pooled = pooler.url(database)
        with running(pooled, "v1", effects, **POOLED) as process:
            found = availability_of(url, "v1")
            assert found.startswith("likely: version v1 was registered"), found
            process.send("run", name="three", ids=["two"])
            for place in (url, pooled):
                assert availability_of(place, "v1").startswith("likely: version v1 was last active")
            with postgres_server.admin(database) as connection:
                backdate(lambda statement: connection.execute(statement.encode()), "dbos.")
            # Idle for two days: the server's connections are the pooler's and have no name.
            found = availability_of(url, "v1")
            assert found.startswith(("unknown", "likely")), found
            found = availability_of(pooled, "v1")
            assert found.startswith("unknown: version v1 was registered about 2 d ago"), found
            assert "this connection goes through a connection pooler" in found
        time.sleep(0.5)
        monkeypatch.setattr(availability, "SILENT_SECONDS", 0.2)
        found = availability_of(url, "v1")
        assert not found.startswith("likely"), found
        assert not availability_of(pooled, "v1").startswith("likely")


def test_a_standby_reports_unknown(
    postgres_server: PostgresServer, own_postgres: PostgresServer, template: str, tmp_path: Path
) -> None:
    dump = tmp_path / "template.sql.gz"
    dump.write_bytes(gzip.compress(postgres_server.dump(template)))
    database = own_postgres.restore(dump)
    # A base backup copies every database of a server, and this one has no others.
    with start_standby(own_postgres) as standby:
        found = availability_of(standby.url(database), "v0")
    assert found.startswith("unknown: version v0 was registered about 2 d ago"), found
    assert "a standby does not show who is connected to the primary" in found


def test_processes_that_have_the_sqlite_file_open_count_as_executors(
    tmp_path: Path, effects: Path
) -> None:
    path = tmp_path / "app.sqlite"
    url = f"sqlite:///{path}"
    _run_once(url, effects)
    with closing(sqlite3.connect(path)) as connection, connection:
        backdate(connection.execute, "")
    assert not availability_of(url, "v0").startswith("likely")
    linux = sys.platform == "linux"
    with running(url, "v1", effects):
        found = availability_of(url, "v1")
        assert found.startswith("likely: version v1 was registered"), found
        if linux:
            assert "1 other process has the file open for writing (PID" in found
        # Another notebook only reads.
        with dn.connect(url):
            pass
        assert availability_of(url, "v0").startswith("unlikely" if linux else "unknown")
    found = availability_of(url, "v1")
    if linux:
        assert not found.startswith("likely"), found
        assert "has the file open for writing" in found
    with running(url, "v0", effects):
        assert availability_of(url, "v0").startswith("unknown"), "v1 was deployed last"


def test_updated_at_counts_as_activity_if_no_completion_time_exists(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("2.0.0")
    with closing(sqlite3.connect(path)) as connection, connection:
        now = int(time.time() * 1000)
        connection.execute(
            "UPDATE workflow_status SET created_at = ?, updated_at = ?, started_at_epoch_ms = NULL "
            "WHERE workflow_uuid = (SELECT min(workflow_uuid) FROM workflow_status WHERE "
            "status = 'SUCCESS' AND executor_id IS NOT NULL)",
            [now, now],
        )
    with dn.connect(path) as client, client._store.reader.session() as session:
        estimate = availability.ExecutorAvailability(
            session, client._store.queries, client.location
        ).estimate(None, None, None)
    found = estimate.evidence
    assert re.search(r"any version was last active (< 1|about \d+) s ago", found), found


def test_connections_of_the_typescript_sdk_name_their_version(
    postgres_server: PostgresServer, database: str, url: str, typescript: Path
) -> None:
    theirs = url.replace("postgres:@/", "postgres@localhost/").replace("@/", "@localhost/")
    with _typescript(typescript, theirs, "ts_2.0", "executor_ts"):
        found = availability_of(url, "ts_2.0")
        assert found.startswith("likely: "), found
        assert "connections of that version are open" in found
        with postgres_server.admin(database) as connection:
            backdate(lambda statement: connection.execute(statement.encode()), "dbos.")
        assert availability_of(url, "ts_2.0").startswith("likely: ")
        found = availability_of(url, "v0")
        assert found.startswith("unlikely"), found
        assert "of version ts_2.0" in found
    wait_for_disconnect(url)
    assert availability_of(url, "ts_2.0").startswith("unlikely: no DBOS process is connected")
    with _typescript(typescript, theirs, "", ""):
        found = availability_of(url, None)
        assert found.startswith("likely: "), found
        assert "connections of DBOS processes of unknown version are open" in found


_TYPESCRIPT = """
import { DBOS } from '@dbos-inc/dbos-sdk';
const [url, applicationVersion, executorID] = process.argv.slice(2);
DBOS.setConfig({
  name: 'control-tests', systemDatabaseUrl: url, runAdminServer: false, logLevel: 'error',
  ...(applicationVersion ? { applicationVersion } : {}), ...(executorID ? { executorID } : {}),
});
DBOS.registerWorkflow(async () => 1, { name: 'idle' });
await DBOS.launch();
console.log('ready');
process.stdin.resume();
"""


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the TypeScript SDK is installed, with an application that idles."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        require("Node.js with npm, for the TypeScript SDK")
    directory = tmp_path_factory.mktemp("typescript")
    install = [str(npm), "install", "--no-audit", "--no-fund", "--no-save", SDK]
    found = subprocess.run(install, cwd=directory, capture_output=True, text=True, check=False)
    if found.returncode:
        require(f"{SDK} from npm: {found.stderr[-300:]}")
    (directory / "idle.mjs").write_text(_TYPESCRIPT)
    return directory


@contextmanager
def _typescript(directory: Path, url: str, version: str, executor: str) -> Iterator[None]:
    process = subprocess.Popen(
        ["node", "idle.mjs", url, version, executor],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.communicate()
