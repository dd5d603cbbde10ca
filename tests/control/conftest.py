"""A live application on SQLite and on Postgres, with executors of two versions."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dbos_notebook as dn

sys.path.insert(0, str(Path(__file__).parent))

from live_executors import LiveApplication


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def executors(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveApplication]:
    """The running application in two versions: v1, in which some steps fail, and v2."""
    directory = tmp_path_factory.mktemp(f"live-{request.param}")
    if request.param == "sqlite":
        url = f"sqlite:///{directory / 'live.sqlite'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.url(server.create_database())
    live = LiveApplication(url, directory)
    try:
        live.start("v1")
        # SQLite keeps whole seconds, and the version that is registered last is the latest.
        time.sleep(1)
        live.start("v2")
        yield live
    finally:
        live.stop()


@pytest.fixture
def live(executors: LiveApplication) -> Iterator[LiveApplication]:
    """The running application; it is stopped between the tests that use it.

    Idle executors would take a quarter of a processor from all other tests.
    """
    executors.signal(signal.SIGCONT)
    yield executors
    executors.signal(signal.SIGSTOP)


@pytest.fixture
def live_db(live: LiveApplication) -> Iterator[dn.Client]:
    """A client on the database of the running application."""
    with dn.connect(live.url) as client:
        yield client


@pytest.fixture(scope="session")
def unique_id() -> Callable[[str], str]:
    """A function that returns IDs that no other test uses."""
    numbers = itertools.count(1)
    return lambda name: f"{name}-{next(numbers)}"


@pytest.fixture(params=["sqlite", "postgres"])
def idle_db(
    request: pytest.FixtureRequest,
    corpus_sqlite: Callable[[str], Path],
    corpus_postgres: Callable[[str], str],
) -> Iterator[dn.Client]:
    """A client on a copy of the database of dbos 3.4.0, without a running executor."""
    restore = corpus_sqlite if request.param == "sqlite" else corpus_postgres
    with dn.connect(restore("3.4.0")) as client:
        yield client
