"""Will it run? Asked of real applications: just deployed, idle, killed, pooled, under other names.

Each test has a database of its own, in which an application of version v0 ran a workflow two days
ago. The one that is asked about is another process, started and killed by the test.
"""

from __future__ import annotations

import gzip
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
from dbos_notebook.control import availability

DAY = 86_400_000
SDK = "@dbos-inc/dbos-sdk@5.3.0"
NAMELESS = {"db_engine_kwargs": {"connect_args": {"prepare_threshold": None}}}
OWN_NAME = {"db_engine_kwargs": {"connect_args": {"application_name": "shop-api"}}}
POOLED = {**NAMELESS, "use_listen_notify": False}


def age(execute: Callable[[str], Any], schema: str) -> None:
    """Move all that has happened two days back."""
    for table, columns in {
        "workflow_status": ("created_at", "updated_at", "started_at_epoch_ms", "completed_at"),
        "application_versions": ("created_at", "version_timestamp"),
        "operation_outputs": ("started_at_epoch_ms", "completed_at_epoch_ms"),
    }.items():
        moved = ", ".join(f"{column} = {column} - {2 * DAY}" for column in columns)
        execute(f"UPDATE {schema}{table} SET {moved}")


@pytest.fixture(scope="module")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of side effects that the application wants."""
    path = tmp_path_factory.mktemp("executors") / "effects"
    path.touch()
    return path


@pytest.fixture(scope="module")
def template(postgres_server: PostgresServer, effects: Path) -> str:
    """The name of a database in which v0 ran the workflow ``one`` two days ago."""
    name = postgres_server.create_database()
    _run_once(postgres_server.url(name), effects)
    with postgres_server.admin(name) as connection:
        age(lambda statement: connection.execute(statement.encode()), "dbos.")
    return name


def _run_once(url: str, effects: Path) -> None:
    process = ExecutorProcess(url, "v0", "executor-v0", effects)
    process.send("run", name="three", ids=["one"])
    process.stop()


@pytest.fixture
def database(postgres_server: PostgresServer, template: str) -> str:
    """The name of a copy of it."""
    return postgres_server.create_database(template)


@pytest.fixture
def url(postgres_server: PostgresServer, database: str) -> str:
    """Its URL."""
    return postgres_server.url(database)


@contextmanager
def running(url: str, version: str, effects: Path, **config: Any) -> Iterator[ExecutorProcess]:
    """An application that is deployed and has run nothing."""
    if url.startswith("sqlite"):
        # Whole seconds there: of two within one it cannot be told which was registered by whom.
        time.sleep(2.1)
    process = ExecutorProcess(url, version, f"executor-{version}", effects, **config)
    try:
        yield process
    finally:
        process.stop()


def told(url: str, version: str | None, **options: Any) -> str:
    """Ask whether a fork would run."""
    with dn.connect(url, **options) as client:
        plan = client.fork("one", 1, application_version=version, plan=True)
        return str(plan.items[0].will_run)


def age_versions(url: str, version: str) -> None:
    """Move a registration back so far that it does not say whose process has just begun."""
    change = f"SET created_at = created_at - {DAY} WHERE version_name = '{version}'"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(f"UPDATE application_versions {change}")
    else:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(f"UPDATE dbos.application_versions {change}".encode())


def gone(url: str) -> None:
    """Wait until the server has noticed that a process was killed."""
    with psycopg.connect(url, autocommit=True) as connection:
        others = (
            b"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() "
            b"AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        until(lambda: connection.execute(others).fetchone() == (True,), "connections are gone")


@pytest.mark.parametrize("config", [{}, OWN_NAME, NAMELESS], ids=["default", "own name", "no name"])
def test_an_idle_application_that_was_just_deployed_and_then_killed(
    url: str, effects: Path, config: dict[str, Any]
) -> None:
    assert told(url, "v0").startswith("unlikely: no DBOS process is connected to the database now")
    with running(url, "v1", effects, **config):
        assert told(url, "v1").startswith("likely: version v1 was registered")
        assert told(url, None).startswith("likely: version v1 (the latest) was registered")
        before = told(url, "v0")
        assert before.startswith("unknown: version v0 was registered about 2 d ago"), before
        missing = told(url, "v7")
        assert missing == "unlikely: no executor has registered version v7; registered are v1, v0"
    gone(url)
    assert told(url, "v1").startswith("unlikely: no DBOS process is connected to the database now")


def test_a_version_is_not_likely_because_it_ran_a_moment_before_it_was_killed(
    url: str, effects: Path
) -> None:
    with running(url, "v1", effects) as process:
        process.send("run", name="three", ids=["two"])
        found = told(url, "v1")
        assert found.startswith("likely: version v1 last did something"), found
    gone(url)
    found = told(url, "v1")
    assert found.startswith("unlikely: no DBOS process is connected"), found
    assert "version v1 last did something" in found
    with running(url, "v2", effects) as process:
        # What is open now was opened after v1's last deed.
        assert not told(url, "v1").startswith("likely")
        process.send("run", name="three", ids=["three"])
        assert told(url, "v2").startswith("likely: version v2 last did something")
        found = told(url, "v1")
        assert found.startswith("unlikely: "), "the one process that listens is v2's"
        assert "version v2 is at work, and no other DBOS process is connected" in found


def test_two_versions_at_once_are_not_taken_for_one(url: str, effects: Path) -> None:
    with running(url, "v1", effects), running(url, "v2", effects) as other:
        other.send("run", name="three", ids=["two"])
        assert told(url, "v2").startswith("likely: version v2 last did something")
        found = told(url, "v1")
        assert found.startswith("likely: "), "two processes listen, and one of them is v2"
        assert "one began when that version was registered" in found
        age_versions(url, "v1")
        found = told(url, "v1")
        assert found.startswith("unknown: "), "who knows which version the other is"
        assert "version v2 is at work" in found


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


def test_a_version_that_was_deployed_before_the_other_died(deployed: str, effects: Path) -> None:
    with running(deployed, "v1", effects) as process:
        process.send("run", name="three", ids=["two"])
        assert told(deployed, "v1").startswith("likely: version v1 last did something")
        with running(deployed, "v2", effects):
            # They overlap, as in a rolling deployment: v1 works on, and is killed.
            process.send("run", name="three", ids=["three"])
            assert told(deployed, "v1").startswith("likely: version v1 last did something")
            assert told(deployed, "v2").startswith("likely: version v2 was registered")
            process.stop()
            until(lambda: not told(deployed, "v1").startswith("likely"), "v1 is gone")
            found = told(deployed, "v1")
            assert found.startswith("unknown: version v1 was registered"), found
            found = told(deployed, "v2")
            assert found.startswith("likely: version v2 was registered"), found
            assert "one began when that version was registered" in found


def test_a_version_that_was_deployed_after_the_other_died(deployed: str, effects: Path) -> None:
    with running(deployed, "v1", effects) as process:
        process.send("run", name="three", ids=["two"])
    with running(deployed, "v2", effects) as process:
        until(lambda: not told(deployed, "v1").startswith("likely"), "v1 is gone")
        found = told(deployed, "v2")
        assert found.startswith("likely: version v2 was registered"), found
        process.send("run", name="three", ids=["three"])
        assert told(deployed, "v2").startswith("likely: version v2 last did something")
        # Once v1's own activity is old enough, since the one process that is left is v2's, at work.
        until(lambda: told(deployed, "v1").startswith("unlikely: "), "v1 is unlikely")


def test_another_version_that_works_again_under_another_executor_id(
    deployed: str, effects: Path
) -> None:
    with running(deployed, "v1", effects):
        age_versions(deployed, "v1")
        for executor in ("first", "second"):
            process = ExecutorProcess(deployed, "v0", executor, effects)
            process.send("run", name="three", ids=[f"by {executor}"])
            found = told(deployed, "v1")
            process.stop()
            assert found.startswith("unknown: version v1 was registered"), found
            assert "version v0 is at work" in found


def test_a_redeployed_version_that_has_run_nothing_since(url: str, effects: Path) -> None:
    """Its registration is as old as its first deployment."""
    with running(url, "v0", effects):
        found = told(url, "v0")
    assert found.startswith("likely: version v0 was registered about 2 d ago"), found
    assert "connections of DBOS processes are open, which do not name their version" in found


def test_a_role_that_may_not_see_other_sessions(
    postgres_server: PostgresServer, database: str, url: str, effects: Path
) -> None:
    with postgres_server.admin(database) as connection:
        connection.execute(
            b"DO $$ BEGIN CREATE ROLE blinkered LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;"
            b"GRANT USAGE ON SCHEMA dbos TO blinkered;"
            b"GRANT SELECT ON ALL TABLES IN SCHEMA dbos TO blinkered"
        )
    blinkered = postgres_server.url(database, username="blinkered")
    for config in ({}, NAMELESS):
        with running(url, "v1", effects, **config):
            assert told(blinkered, "v1").startswith("likely"), "it was registered a moment ago"
            with postgres_server.admin(database) as connection:
                age(lambda statement: connection.execute(statement.encode()), "dbos.")
            found = told(blinkered, "v1")
            if config:
                assert found.startswith("unknown"), found
                assert "connections are open that may be of DBOS processes (unnamed)" in found
            else:
                assert found.startswith("likely"), found
        gone(url)
        assert told(blinkered, "v1").startswith("unlikely: no DBOS process is connected")
        with postgres_server.admin(database) as connection:
            connection.execute(b"DELETE FROM dbos.application_versions WHERE version_name = 'v1'")


def test_programs_that_cannot_be_executors_are_not_taken_for_them(
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
        assert told(url, "v0").startswith("unlikely: no DBOS process is connected")
        with psycopg.connect(url, application_name="shop-web"):
            found = told(url, "v0")
            assert found.startswith("unknown: version v0 was registered about 2 d ago"), found
            assert "1 connection is open that may be of DBOS processes ('shop-web')" in found


# What the Java and Go SDKs do on their connections (their sources, August 2026): both keep their
# pools' names, Java's pgjdbc "PostgreSQL JDBC Driver", Go's the name of the application.
@pytest.mark.parametrize(
    ("name", "statements", "word"),
    [
        ("PostgreSQL JDBC Driver", ["LISTEN dbos_streams_channel"], "likely"),
        ("PostgreSQL JDBC Driver", ["SELECT 1"], "unknown"),
        ("control-tests", ["BEGIN", "LISTEN dbos_streams_channel", "COMMIT"], "likely"),
        ("other-app", ["BEGIN", "LISTEN dbos_streams_channel", "COMMIT"], "unlikely"),
    ],
)
def test_connections_of_the_other_sdks_are_known_by_what_they_do(
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
        found = told(url, "v0")
        assert found.startswith(word), found


def test_silent_connections_are_not_proof(
    url: str, effects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a host that lost its power, or of a pooler whose client died."""
    with psycopg.connect(url, application_name="dbos_transact", autocommit=True) as connection:
        connection.execute(b"SELECT 1")
        assert told(url, "v0").startswith("likely")
        time.sleep(0.3)
        monkeypatch.setattr(availability, "SILENT_SECONDS", 0.2)
        found = told(url, "v0")
        assert found.startswith("unknown: no recent work of version v0 is recorded; 1 connection")
        assert "none has sent a statement for" in found
        monkeypatch.setattr(availability, "DEAD_SECONDS", 0.2)
        assert told(url, "v0").startswith("unlikely")


def test_behind_a_transaction_pooler_silence_is_not_death(
    postgres_server: PostgresServer,
    database: str,
    url: str,
    effects: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_pgbouncer(postgres_server, pool_size=5) as pooler:
        pooled = pooler.url(database)
        with running(pooled, "v1", effects, **POOLED) as process:
            found = told(url, "v1")
            assert found.startswith("likely: version v1 was registered"), found
            process.send("run", name="three", ids=["two"])
            for place in (url, pooled):
                assert told(place, "v1").startswith("likely: version v1 last did something")
            with postgres_server.admin(database) as connection:
                age(lambda statement: connection.execute(statement.encode()), "dbos.")
            # Idle for two days: the server's connections are the pooler's, and have no name.
            found = told(url, "v1")
            assert found.startswith(("unknown", "likely")), found
            found = told(pooled, "v1")
            assert found.startswith("unknown: version v1 was registered about 2 d ago"), found
            assert "this connection goes through a connection pooler" in found
        time.sleep(0.5)
        monkeypatch.setattr(availability, "SILENT_SECONDS", 0.2)
        found = told(url, "v1")
        assert not found.startswith("likely"), found
        assert not told(pooled, "v1").startswith("likely")


def test_a_standby_says_nothing_of_the_primary(
    postgres_server: PostgresServer, own_postgres: PostgresServer, template: str, tmp_path: Path
) -> None:
    dump = tmp_path / "template.sql.gz"
    dump.write_bytes(gzip.compress(postgres_server.dump(template)))
    database = own_postgres.restore(dump)
    # A base backup copies every database of a server, and this one has no others.
    with start_standby(own_postgres) as standby:
        found = told(standby.url(database), "v0")
    assert found.startswith("unknown: version v0 was registered about 2 d ago"), found
    assert "on a standby it cannot be seen who is connected to the primary" in found


def test_sqlite_shows_who_has_the_file_open(tmp_path: Path, effects: Path) -> None:
    path = tmp_path / "app.sqlite"
    url = f"sqlite:///{path}"
    _run_once(url, effects)
    with closing(sqlite3.connect(path)) as connection, connection:
        age(connection.execute, "")
    assert not told(url, "v0").startswith("likely")
    linux = sys.platform == "linux"
    with running(url, "v1", effects):
        found = told(url, "v1")
        assert found.startswith("likely: version v1 was registered"), found
        if linux:
            assert "1 other process has the file open for writing (PID" in found
        # Another notebook only reads.
        with dn.connect(url):
            pass
        assert told(url, "v0").startswith("unknown")
    found = told(url, "v1")
    if linux:
        assert not found.startswith("likely"), found
        assert "has the file open for writing" in found
    with running(url, "v0", effects):
        assert told(url, "v0").startswith("unknown"), "v1 was the last to be deployed"


def test_what_finished_is_seen_where_the_database_has_no_time_of_it(
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
        found = availability.ExecutorAvailability(
            session, client._store.queries, client.location
        ).of(None, None, None)
    assert "any version last did something < 1 s ago" in found or "about 1 s ago" in found, found


def test_the_typescript_sdk_names_its_version(
    postgres_server: PostgresServer, database: str, url: str, typescript: Path
) -> None:
    theirs = url.replace("postgres:@/", "postgres@localhost/").replace("@/", "@localhost/")
    with _typescript(typescript, theirs, "ts_2.0", "executor_ts"):
        found = told(url, "ts_2.0")
        assert found.startswith("likely: "), found
        assert "connections of that version are open" in found
        with postgres_server.admin(database) as connection:
            age(lambda statement: connection.execute(statement.encode()), "dbos.")
        assert told(url, "ts_2.0").startswith("likely: ")
        found = told(url, "v0")
        assert found.startswith("unlikely: "), found
        assert "of version ts_2.0" in found
    gone(url)
    assert told(url, "ts_2.0").startswith("unlikely: no DBOS process is connected")
    with _typescript(typescript, theirs, "", ""):
        found = told(url, None)
        assert found.startswith("likely: "), found
        assert "connections of DBOS processes are open, which do not name their version" in found


_TYPESCRIPT = """
import { DBOS } from '@dbos-inc/dbos-sdk';
const [url, applicationVersion, executorID] = process.argv.slice(2);
DBOS.setConfig({
  name: 'ts-app', systemDatabaseUrl: url, runAdminServer: false, logLevel: 'error',
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
