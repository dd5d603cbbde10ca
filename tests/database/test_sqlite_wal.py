"""A SQLite database in WAL mode, and other states in which a file can be found.

The application is the user ``nobody``, the reader is ``games`` or root, each in a process of its
own: what one leaves beside the database must not be in the other's way.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from processes import child, in_child, require_root
from servers import CORPUS
from test_faults_postgres import READS

import dbos_notebook as dn
from dbos_notebook.database import sqlite_file
from dbos_notebook.database.location import locate
from dbos_notebook.database.sqlite import SQLiteReader

APPLICATION, READER = "nobody", "games"
WORKFLOWS = 27  # 26 of the corpus, and the one that stands in the -wal


def write(path: Path, workflow_id: str = "in-wal", *, crash: bool = False) -> None:
    """Write as the application does; ``crash`` leaves -wal and -shm behind."""
    connection = sqlite3.connect(path, timeout=2, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "INSERT OR REPLACE INTO workflow_status (workflow_uuid, status, created_at, updated_at) "
        "VALUES (?, 'SUCCESS', 1, 1)",
        [workflow_id],
    )
    if crash:
        os._exit(0)
    connection.close()


def seen(path: Path) -> int:
    """Connect and read; return how many workflows there are."""
    with dn.connect(path) as db:
        return len(db.workflows())


def read_everything(path: Path) -> int:
    """Read every way there is; return how many workflows there are."""
    with dn.connect(path) as db:
        for name, read in READS.items():
            assert read(db) is not None, name
        db.explain()
        db.graph("checkout-1")
        return len(db.workflows())


@dataclass
class Place:
    """A directory with the application's database."""

    path: Path

    def listing(self) -> list[tuple[str, str, str]]:
        """Return the name, owner and mode of each file."""
        found = []
        for each in sorted(self.path.parent.iterdir()):
            there = each.stat()
            found.append((each.name, pwd.getpwuid(there.st_uid).pw_name, oct(there.st_mode)[-3:]))
        return found


@pytest.fixture(scope="module")
def imported() -> None:
    """Import all that reading needs, so that a child imports nothing as another user."""
    read_everything(CORPUS / "dbos-3.4.0.sqlite")


@pytest.fixture
def place(imported: None) -> Iterator[Place]:
    """A database of the application in a directory that everybody may write."""
    require_root()
    directory = Path(tempfile.mkdtemp(prefix="dnwal", dir="/tmp"))
    path = directory / "app.sqlite"
    shutil.copyfile(CORPUS / "dbos-3.4.0.sqlite", path)
    user = pwd.getpwnam(APPLICATION)
    for each in (directory, path):
        os.chown(each, user.pw_uid, user.pw_gid)
    directory.chmod(0o777)
    path.chmod(0o644)
    yield Place(path)
    shutil.rmtree(directory)


def crash(path: Path) -> None:
    """Write and end without closing, as the application."""
    with pytest.raises(EOFError):  # it ends without an answer
        in_child(lambda: write(path, crash=True), APPLICATION)


def leave(path: Path, state: str) -> None:
    """Bring the files into a state in which a reader may find them."""
    if state == "closed":
        in_child(lambda: write(path), APPLICATION)
    else:
        crash(path)
    if state == "no -shm":
        path.with_name("app.sqlite-shm").unlink()
    if state == "empty -wal":
        in_child(lambda: write(path), APPLICATION)
        path.with_name("app.sqlite-wal").touch()
        os.chown(
            path.with_name("app.sqlite-wal"),
            *(getattr(path.stat(), n) for n in ("st_uid", "st_gid")),
        )


@pytest.mark.parametrize(
    ("reader", "mode"), [(READER, 0o777), (READER, 0o755), ("root", 0o777), (APPLICATION, 0o755)]
)
@pytest.mark.parametrize("state", ["closed", "crashed", "no -shm", "empty -wal"])
def test_reading_sees_all_rows_and_leaves_no_files(
    place: Place, state: str, mode: int, reader: str
) -> None:
    place.path.parent.chmod(mode)
    leave(place.path, state)
    before = place.listing()
    read = read_everything if state == "closed" else seen
    assert in_child(lambda: read(place.path), reader) == WORKFLOWS
    assert place.listing() == before
    in_child(lambda: write(place.path, "afterwards"), APPLICATION)
    assert in_child(lambda: seen(place.path), reader) == WORKFLOWS + 1
    assert {owner for _, owner, _ in place.listing()} == {APPLICATION}


@pytest.mark.parametrize("reader", [READER, "root"])
def test_reading_beside_a_running_application(place: Place, reader: str) -> None:
    go = os.pipe()

    def application() -> None:
        with closing(sqlite3.connect(place.path, timeout=2, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            number = 0
            while os.read(go[0], 1) == b"w":
                number += 1
                write(place.path, f"live-{number}")
                os.write(back[1], b"d")

    back = os.pipe()

    def step() -> None:
        os.write(go[1], b"w")
        assert os.read(back[0], 1) == b"d"

    def read_all() -> list[int]:
        with dn.connect(place.path) as db:
            counts = []
            for _ in range(3):
                step()
                counts.append(len(db.workflows()))
            return counts

    with child(application, APPLICATION) as ended:
        step()
        before = place.listing()
        assert in_child(read_all, reader) == [28, 29, 30]
        assert place.listing() == before
        os.write(go[1], b"e")
        ended()
    # The application was the last to close, and so SQLite cleaned up.
    assert [name for name, _, _ in place.listing()] == ["app.sqlite"]
    for each in (*go, *back):
        os.close(each)


def test_a_large_wal_is_refused_to_other_users_with_a_remedy(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(place.path, "no -shm")
    monkeypatch.setattr(sqlite_file, "MAX_COPY_BYTES", 1000)
    before = place.listing()
    with pytest.raises(dn.DatabaseConnectionError, match="WAL") as caught:
        in_child(lambda: seen(place.path), READER)
    assert str(place.path.parent) in str(caught.value)
    assert "wal_checkpoint" in str(caught.value)
    assert place.listing() == before


def test_an_unreadable_wal_is_named_in_the_error(place: Place) -> None:
    leave(place.path, "crashed")
    place.path.with_name("app.sqlite-wal").chmod(0o600)
    with pytest.raises(dn.DatabaseConnectionError, match="WAL") as caught:
        in_child(lambda: seen(place.path), READER)
    assert str(place.path.parent) in str(caught.value)


def test_a_private_copy_is_private_and_removed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(place.path, "no -shm")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with dn.connect(place.path) as db:
        assert len(db.workflows()) == WORKFLOWS
        (copy,) = tmp_path.iterdir()
        assert copy.stat().st_mode & 0o777 == 0o700
        db.workflows()
        assert list(tmp_path.iterdir()) == [copy]  # made once, while nothing changes
    assert list(tmp_path.iterdir()) == []


def cancel(path: Path) -> str:
    with dn.connect(path) as db:
        return str(db.cancel("queued-1").to_frame()["outcome"].iloc[0])


def test_control_by_root_keeps_the_owner_of_the_files(place: Place) -> None:
    leave(place.path, "closed")
    assert in_child(lambda: cancel(place.path), "root") == "done"
    assert {owner for _, owner, _ in place.listing()} == {APPLICATION}
    in_child(lambda: write(place.path, "afterwards"), APPLICATION)


def test_control_that_would_lock_the_application_out_is_refused(
    place: Place, corpus_sqlite: Callable[[str], Path]
) -> None:
    cancel(corpus_sqlite("3.4.0"))  # so that a child imports nothing as another user
    leave(place.path, "closed")
    group = pwd.getpwnam(READER).pw_gid
    os.chown(place.path, -1, group)
    place.path.chmod(0o664)
    before = place.listing()
    with pytest.raises(dn.PermissionDeniedError, match="WAL") as caught:
        in_child(lambda: cancel(place.path), READER)
    assert str(place.path.parent) in str(caught.value)
    assert place.listing() == before
    # Where everybody may write the file, they may write what is created beside it.
    place.path.chmod(0o666)
    assert in_child(lambda: cancel(place.path), READER) == "done"
    in_child(lambda: write(place.path, "afterwards"), APPLICATION)


@pytest.mark.parametrize("there", [("-wal",), ("-wal", "-shm"), ("-shm",)])
def test_control_is_refused_if_the_wal_cannot_be_written(
    place: Place, corpus_sqlite: Callable[[str], Path], there: tuple[str, ...]
) -> None:
    cancel(corpus_sqlite("3.4.0"))  # so that a child imports nothing as another user
    leave(place.path, "crashed")
    for end in ("-wal", "-shm"):
        beside = place.path.with_name(place.path.name + end)
        if end in there:
            beside.chmod(0o644)
        else:
            beside.unlink()
    place.path.chmod(0o666)
    place.path.parent.chmod(0o777)
    before = place.listing()
    with pytest.raises(dn.PermissionDeniedError, match=f"may not write .*{there[0]}"):
        in_child(lambda: cancel(place.path), READER)
    assert place.listing() == before


# From here on the reader is the application's own user.


@pytest.fixture
def wal(corpus_sqlite: Callable[[str], Path]) -> Path:
    """A database in WAL mode that nobody has open."""
    path = corpus_sqlite("3.4.0")
    write(path)
    return path


def test_a_write_between_two_statements_is_noticed(wal: Path) -> None:
    reader = SQLiteReader(locate(wal), 30.0)
    count = sa.text("SELECT count(*) AS n FROM workflow_status")

    def read_twice() -> None:
        with reader.session() as session:
            assert session.rows(count) == [{"n": WORKFLOWS}]
            write(wal, "meanwhile")
            session.rows(count)

    with pytest.raises(dn.DatabaseChangedError, match="WAL"):
        read_twice()
    with reader.session() as session:
        assert session.rows(count) == [{"n": WORKFLOWS + 1}]


def test_reading_beside_a_process_that_opens_and_closes(wal: Path) -> None:
    over = threading.Event()
    written = [0]

    def churn() -> None:
        while not over.is_set():
            write(wal, f"churn-{written[0]}")
            written[0] += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        with dn.connect(wal) as db:
            end = time.monotonic() + 2
            while time.monotonic() < end:
                least = written[0]
                assert least <= len(db.workflows(limit=None)) - WORKFLOWS <= written[0] + 1
    finally:
        over.set()
        thread.join()
    assert written[0] > 5


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_locks_of_an_application_in_this_process_are_kept(
    corpus_sqlite: Callable[[str], Path], mode: str
) -> None:
    path = corpus_sqlite("3.4.0")
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        application.execute(f"PRAGMA journal_mode={mode}")
        application.execute("BEGIN IMMEDIATE")
        application.execute("UPDATE workflow_status SET updated_at = 5")
        read_everything(path)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            in_child(lambda: sqlite3.connect(path, timeout=0).execute("BEGIN IMMEDIATE"))
        application.execute("ROLLBACK")


def test_a_closed_client_leaves_no_file_open(wal: Path) -> None:
    def ours() -> list[str]:
        links = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
        return [str(link.readlink()) for link in links if link.exists()]

    with dn.connect(wal) as db:
        db.workflows()
    assert not [name for name in ours() if name.startswith(str(wal))]


def test_a_hot_journal_is_reported(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")

    def die() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN")
        connection.execute("UPDATE workflow_status SET class_name = hex(randomblob(5000))")
        os._exit(0)

    with pytest.raises(EOFError):
        in_child(die)
    assert path.with_name(path.name + "-journal").stat().st_size > 0
    before = path.read_bytes()
    with pytest.raises(dn.DatabaseConnectionError, match="-journal") as caught:
        dn.connect(path)
    assert "Start the application" in str(caught.value)
    assert path.read_bytes() == before


@pytest.fixture
def locked(corpus_sqlite: Callable[[str], Path]) -> Iterator[Path]:
    """A database that another process holds exclusively."""
    path = corpus_sqlite("3.4.0")
    ready = os.pipe()

    def hold() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        os.write(ready[1], b"!")
        time.sleep(60)

    with child(hold):
        os.read(ready[0], 1)
        yield path
    for each in ready:
        os.close(each)


def test_ctrl_c_ends_waiting_for_a_lock(locked: Path) -> None:
    interrupter = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    began = time.monotonic()
    interrupter.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            dn.connect(locked)
    finally:
        interrupter.join()
    assert time.monotonic() - began < 2.5  # it would wait for 3 s


def test_waiting_for_a_lock_ends_with_the_statement_timeout(locked: Path) -> None:
    began = time.monotonic()
    with pytest.raises(dn.DatabaseLockedError):
        dn.connect(locked, statement_timeout=0.2)
    assert time.monotonic() - began < 2.5  # it would wait for 3 s


def test_the_statement_timeout_does_not_count_a_slow_consumer(wal: Path) -> None:
    reader = SQLiteReader(locate(wal), 0.5)
    with closing(sqlite3.connect(wal)) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
            "INSERT INTO workflow_events (workflow_uuid, key, value) "
            "SELECT 'checkout-1', i, 'v' FROM n"
        )
        connection.commit()
    import pyarrow as pa

    statement: Any = sa.select(sa.column("key")).select_from(sa.table("workflow_events"))
    with reader.session() as session:
        rows = 0
        for batch in session.batches(statement, pa.schema([("key", pa.string())])):
            rows += batch.num_rows
            time.sleep(0.3)
    assert rows > 5000
