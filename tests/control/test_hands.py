"""Forks by processes of their own: the same forks, and a true receipt whatever befalls them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from servers import require
from sqlalchemy.engine import make_url
from test_control_faults import (
    COUNT,
    assert_true_of_forks,
    fill,
    forks,
    interrupt_when,
    shut,  # noqa: F401 - a fixture
)

import dbos_notebook as dn
from dbos_notebook.control import hands
from dbos_notebook.control.hands import Hands


@pytest.fixture
def postgres(corpus_postgres: Callable[[str], str]) -> Iterator[dn.Client]:
    """A client on a Postgres database of its own, of which no executor lives."""
    url = make_url(corpus_postgres("3.4.0")).set(password="s3cret-not-asked-for")
    with dn.connect(url.render_as_string(hide_password=False)) as client:
        yield client


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[Hands]:
    """All hands that were used; from a hundred forks on they are."""
    found: list[Hands] = []
    ready = Hands.ready

    def noted(self: Hands) -> bool:
        found.append(self)
        return ready(self)

    monkeypatch.setattr(hands, "MANY", 100)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(Hands, "ready", noted)
    return found


def processes(used: list[Hands]) -> list[int]:
    return [hand._process.pid for one in used for hand in one._hands]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def after_twenty(db: dn.Client, ids: list[str], act: Callable[[], object]) -> threading.Thread:
    """Do something as soon as more than twenty are forked."""

    def watch() -> None:
        deadline = time.monotonic() + 30
        with dn.connect(db.location.url()) as other:
            while time.monotonic() < deadline and len(forks(other, ids)) <= 20:
                time.sleep(0.005)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_they_make_the_same_forks_and_end(postgres: dn.Client, used: list[Hands]) -> None:
    ids = fill(postgres, "ERROR")
    few = postgres.fork(ids[:30], "first", key="k", application_version="v7", confirm=True)
    assert used == []
    receipt = postgres.fork(ids, "first", key="k", application_version="v7", confirm=True)
    assert len(processes(used)) == 2
    assert all(map(gone, processes(used)))
    assert (few.counts["done"], receipt.counts["unchanged"]) == (30, 30)
    assert receipt.counts["done"] == COUNT - 30
    made = postgres.workflows(forked_from=ids, limit=None).set_index("forked_from").sort_index()
    assert len(made) == COUNT
    same = ["status", "name", "app_version", "queue_name", "application_name", "priority"]
    by_hands, by_threads = made.loc[ids[30:], same], made.loc[ids[:30], same]
    assert len(by_hands.drop_duplicates()) == 1
    assert by_hands.iloc[0].equals(by_threads.iloc[0])


def test_what_dbos_refuses_of_one_is_told_of_that_one(
    postgres: dn.Client, used: list[Hands]
) -> None:
    ids = fill(postgres, "ERROR")
    with psycopg.connect(postgres.location.url(), autocommit=True) as server:
        server.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'not this one'; END $$"
        )
        server.execute(
            "CREATE TRIGGER refusing BEFORE INSERT ON dbos.workflow_status FOR EACH ROW "
            "WHEN (NEW.forked_from = 'many-7') EXECUTE FUNCTION refuse()"
        )
    receipt = postgres.fork(ids, "first", confirm=True)
    assert len(used) == 1
    assert_true_of_forks(postgres, receipt, ids)
    (failed,) = [line for line in receipt.lines if line.outcome == "failed"]
    assert failed.workflow_id == "many-7"
    assert "not this one" in str(failed.detail)


def test_an_interrupt_ends_them_and_tells_what_was_done(
    postgres: dn.Client, used: list[Hands]
) -> None:
    ids = fill(postgres, "ERROR")
    with dn.connect(postgres.location.url()) as other:
        thread = interrupt_when(lambda: len(forks(other, ids)) > 20)
        with pytest.raises(dn.ControlInterrupt) as caught:
            postgres.fork(ids, "first", key="go on", confirm=True)
        thread.join()
    assert all(map(gone, processes(used)))
    assert 20 < caught.value.receipt.counts["done"] < COUNT
    assert_true_of_forks(postgres, caught.value.receipt, ids)


def test_one_that_is_killed_breaks_the_call_off(postgres: dn.Client, used: list[Hands]) -> None:
    ids = fill(postgres, "ERROR")
    thread = after_twenty(postgres, ids, lambda: os.kill(processes(used)[0], signal.SIGKILL))
    with pytest.raises(dn.BrokenOffError, match="ended by itself") as caught:
        postgres.fork(ids, "first", key="killed", confirm=True)
    thread.join()
    assert all(map(gone, processes(used)))
    assert_true_of_forks(postgres, caught.value.receipt, ids)
    rest = postgres.fork(ids, "first", key="killed", confirm=True)
    assert rest.ok
    assert len(forks(postgres, ids)) == COUNT


def test_a_database_that_goes_away_breaks_the_call_off(
    shut: tuple[dn.Client, Callable[[bool], None]],  # noqa: F811
    used: list[Hands],
) -> None:
    db, switch = shut
    ids = fill(db, "ERROR")
    thread = after_twenty(db, ids, lambda: switch(True))
    with pytest.raises(dn.BrokenOffError, match="broke off") as caught:
        db.fork(ids, "first", key="gone", confirm=True)
    thread.join()
    assert all(map(gone, processes(used)))
    switch(False)
    receipt = caught.value.receipt.check()
    assert 20 < receipt.counts["done"] < COUNT
    assert_true_of_forks(db, receipt, ids)


def test_the_password_stands_in_no_process_list(
    postgres: dn.Client, used: list[Hands], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/cmdline").exists():
        require("/proc: only Linux shows its processes so")
    seen: list[bytes] = []
    fork = Hands.fork

    def watched(self: Hands, *arguments: object) -> None:
        for pid in processes([self]):
            process = Path(f"/proc/{pid}")
            seen.extend((process / name).read_bytes() for name in ("cmdline", "environ"))
        fork(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Hands, "fork", watched)
    assert postgres.fork(fill(postgres, "ERROR"), "first", confirm=True).ok
    assert b"dbos_notebook.control.hand" in seen[0]
    assert not any(b"s3cret" in text for text in seen)


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false"])
def test_without_them_the_threads_do_it(
    postgres: dn.Client, used: list[Hands], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    ids = fill(postgres, "ERROR")
    monkeypatch.setattr(sys, "executable", program)
    receipt = postgres.fork(ids, "first", confirm=True)
    assert receipt.counts["done"] == COUNT
    assert len(forks(postgres, ids)) == COUNT
