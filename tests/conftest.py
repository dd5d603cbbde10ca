"""Real databases for the tests: the corpus, the demo application's, and a Postgres server.

Each fixture is named after what it returns, and no database is mocked. Where the embeddable
Postgres is missing, its tests are skipped with a reason, or fail when
``DBOS_NOTEBOOK_REQUIRE_ALL`` is set.
"""

from __future__ import annotations

import fcntl
import gc
import gzip
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import budgets  # noqa: F401  sets hypothesis's profile
import pytest

# Fixtures of the browser tests.
from browser import (  # noqa: F401
    chromium,
    jupyter,
    module_notebook,
    notebook,
    only_chromium,
    pages,
)
from servers import CORPUS, PASSWORD, PASSWORD_ROLE, PostgresServer, start_postgres

import dbos_notebook as dn

Once = Callable[[str, Callable[[Path], None]], Path]
TALK = Path(__file__).parent / "graphs" / "graphs_application.py"

# Programs that tests start in processes, because importing one would run it; and fixtures, which
# are loaded without being collected.
collect_ignore_glob = ["*/*application.py", "*conftest.py", "*sitecustomize.py"]

if sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < (3, 42):
    startup = Path(__file__).parent / "python_startup"
    others = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(startup), *others])
    runpy.run_path(str(startup / "sitecustomize.py"))

# Some tests send SIGINT, which a process that a shell started in the background ignores.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """Keep the garbage collector from what the test files load, during and after the collection.

    All of it stays until the end; to look through it takes two seconds of the collection and a
    twentieth of the tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that need the browser first, because they take longest."""
    files = {item.path for item in items if "chromium" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in files)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running Postgres on which every role but one logs in without a password."""
    server, directory = start_postgres()
    hba = Path(directory) / "pg_hba.conf"
    rule = f"local all {PASSWORD_ROLE} scram-sha-256\n"
    hba.write_text(rule + hba.read_text())
    with server.admin() as connection:
        connection.execute(f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD '{PASSWORD}'".encode())
        connection.execute("SELECT pg_reload_conf()")
    yield server
    server.server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A second, empty server, which a test may restart, copy to a standby, or reconfigure."""
    server, directory = start_postgres()
    yield server
    server.server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def corpus_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that copies the SQLite database of a dbos version and returns its path."""

    def copy(version: str) -> Path:
        target = tmp_path_factory.mktemp("corpus") / f"dbos-{version}.sqlite"
        shutil.copyfile(CORPUS / f"dbos-{version}.sqlite", target)
        return target

    return copy


@pytest.fixture(scope="session")
def corpus_postgres(postgres_server: PostgresServer) -> Callable[[str], str]:
    """A function that restores the Postgres dump of a dbos version and returns its URL."""

    def restore(version: str) -> str:
        return postgres_server.url(postgres_server.restore(CORPUS / f"dbos-{version}.pg.sql.gz"))

    return restore


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A function that lets one worker create a file that all workers use, and returns its path."""
    directory = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        directory = directory.parent  # the workers' own directories are in it

    def create(name: str, make: Callable[[Path], None]) -> Path:
        path = directory / name
        with (directory / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                make(path.with_suffix(".new"))
                path.with_suffix(".new").rename(path)
        return path

    return create


@pytest.fixture(scope="session")
def shop_sqlite(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite system database that the demo application wrote."""
    from dbos_notebook import demo

    def make(path: Path) -> None:
        demo.run(f"sqlite:///{path}", workflows=60, seed=1)

    path = tmp_path_factory.mktemp("shop") / "shop.sqlite"
    shutil.copyfile(once("shop.sqlite", make), path)
    return path


@pytest.fixture(scope="session")
def incident_sqlite(once: Once) -> Path:
    """The same with failures of every kind and a week of history, for notebooks. Copy it."""
    from dbos_notebook import demo

    def make(path: Path) -> None:
        demo.run(f"sqlite:///{path}", workflows=80, history=300)

    return once("incident.sqlite", make)


@pytest.fixture(scope="session")
def shop_postgres(postgres_server: PostgresServer, once: Once) -> str:
    """The URL of a Postgres system database that the demo application wrote."""
    from dbos_notebook import demo

    def make(path: Path) -> None:
        name = postgres_server.create_database()
        demo.run(postgres_server.url(name), workflows=60, seed=1)
        path.write_bytes(gzip.compress(postgres_server.dump(name)))

    return postgres_server.url(postgres_server.restore(once("shop.gz", make)))


def run_failing(url: str) -> None:
    """Let DBOS run the workflows that fail in ``tables/activity_application.py``."""
    program = Path(__file__).parent / "tables" / "activity_application.py"
    subprocess.run([sys.executable, str(program), url, "failing"], check=True, timeout=120)


@pytest.fixture(scope="session")
def failing_sqlite(once: Once) -> Path:
    """A SQLite database in which every workflow failed, in another way. Copy it to write."""
    return once("failing.sqlite", lambda path: run_failing(f"sqlite:///{path}"))


@pytest.fixture(scope="session")
def failing_postgres(postgres_server: PostgresServer, once: Once) -> str:
    """The URL of a Postgres database in which every workflow failed, in another way."""

    def make(path: Path) -> None:
        name = postgres_server.create_database()
        run_failing(postgres_server.url(name))
        path.write_bytes(gzip.compress(postgres_server.dump(name)))

    return postgres_server.url(postgres_server.restore(once("failing.gz", make)))


@pytest.fixture(scope="session")
def old_sqlite(corpus_sqlite: Callable[[str], Path]) -> Path:
    """The corpus's SQLite database of dbos 3.4.0, for tests that only read."""
    return corpus_sqlite("3.4.0")


@pytest.fixture(scope="session")
def old_postgres(corpus_postgres: Callable[[str], str]) -> str:
    """The corpus's Postgres database of dbos 3.4.0, for tests that only read."""
    return corpus_postgres("3.4.0")


@pytest.fixture(params=["sqlite", "postgres"])
def db(request: pytest.FixtureRequest) -> Iterator[dn.Client]:
    """A client on the corpus's 3.4.0 database: of SQLite, then of Postgres."""
    with dn.connect(request.getfixturevalue(f"old_{request.param}")) as client:
        yield client


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest) -> Iterator[dn.Client]:
    """A client on the demo application's database: of SQLite, then of Postgres."""
    with dn.connect(request.getfixturevalue(f"shop_{request.param}")) as client:
        yield client


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def talk(request: pytest.FixtureRequest, once: Once) -> Iterator[dn.Client]:
    """A client on the database of ``graphs_application.py``: of SQLite, then of Postgres.

    The application runs once on each, for all workers.
    """

    def run(url: str) -> None:
        subprocess.run([sys.executable, str(TALK), url], check=True, timeout=120)

    if request.param == "sqlite":
        url = f"sqlite:///{once('talk.sqlite', lambda path: run(f'sqlite:///{path}'))}"
    else:
        server = request.getfixturevalue("postgres_server")

        def dump(path: Path) -> None:
            name = server.create_database()
            run(server.url(name))
            path.write_bytes(gzip.compress(server.dump(name)))

        url = server.url(server.restore(once("talk.gz", dump)))
    with dn.connect(url) as client:
        yield client
