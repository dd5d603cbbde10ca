"""Waits and durations are those of the latest run, on made-up lives of workflows."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa
from dbos_simulator import INTERNAL, WAITING, Life
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import CORPUS, PostgresServer

import dbos_notebook as dn
from dbos_notebook.tables import pages, timing
from dbos_notebook.widgets.run_data import RunData

INTERRUPTED_STATUSES = ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
TABLES = ("operation_outputs", "workflow_status")
SECOND_MS = timing.SECOND_MS


def emptied(path: Path) -> Path:
    """Return a SQLite database of dbos 3.4 without rows."""
    shutil.copyfile(CORPUS / "dbos-3.4.0.sqlite", path)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
    return path


def write(connection: Any, lives: Iterable[Life], mark: str = "?", schema: str = "") -> None:
    """Write lives into a database."""
    for life in lives:
        for table, rows in (("workflow_status", [life.row]), ("operation_outputs", life.steps)):
            for row in rows:
                names, marks = ", ".join(row), ", ".join([mark] * len(row))
                statement = f"INSERT INTO {schema}{table} ({names}) VALUES ({marks})"
                connection.execute(statement, list(row.values()))


def lived(chance: random.Random, name: str, *, coarse: bool) -> list[Life]:
    """Make a life of some operations, each of which DBOS would allow; a fork is another life."""
    life = Life(name, 1_790_000_000_000 + chance.randrange(10**6), coarse)
    made = [life]
    timeout = chance.choice([None, None, 60_000])
    queue = chance.choice(["mail", "mail", INTERNAL])
    match chance.randrange(4):
        case 0:
            life.start(timeout)
        case 1:
            schedule = "nightly" if queue == INTERNAL else None
            life.enqueue(queue, delay=chance.choice([1, 700, 5_000, 9_000]), schedule=schedule)
        case _:
            schedule = "nightly" if queue == INTERNAL else None
            once = chance.choice([None, name])
            life.enqueue(queue, timeout=timeout, deduplication=once, schedule=schedule)
    for _ in range(chance.randrange(9)):
        life.wait(chance.choice([0, 3, 400, 1_500, 7_000]))
        act(chance, life)
        if life.steps and len(made) == 1 and chance.random() < 0.2:
            life = life.fork(f"{name}-fork", chance.randrange(1, len(life.steps) + 2))
            made.append(life)
    life.wait(chance.choice([0, 3, 400, 1_500, 7_000]))
    return made


def act(chance: random.Random, life: Life) -> None:
    queue = chance.choice(["mail", INTERNAL])
    attempts = life.row["recovery_attempts"]
    pending = life.status == "PENDING"
    ended = life.status not in (*WAITING, "PENDING")
    acts: list[Any] = [life.tag]
    # Who cancels twice overwrites the time of the first; that is not to be known.
    acts += [life.cancel] if not ended else []
    acts += [lambda: life.resume(queue)] if life.status not in ("SUCCESS", "ERROR") else []
    acts += [life.dequeue] * 4 if life.status == "ENQUEUED" else []
    acts += [life.give_up] if life.status == "ENQUEUED" and attempts else []
    acts += [lambda: life.delay_again(2_000)] if life.status == "DELAYED" else []
    if pending:
        acts += [lambda: life.step(chance.choice([0, 5, 900, 3_000]))] * 4
        acts += [life.finish, lambda: life.finish("ERROR"), life.recover]
    if ended:
        acts.append(lambda: life.rewind(chance.randrange(1, len(life.steps) + 2), queue))
    chance.choice(acts)()


def to_now(lives: Sequence[Life]) -> None:
    """Move lives in time so that each ends now, by whole seconds: they look the same."""
    for life in lives:
        offset = (round(time.time() * 1000) - life.now) // 1000 * 1000
        life.now += offset
        for row in (life.row, *life.steps):
            for name in row:
                if name.endswith(("_at", "_epoch_ms")) and row[name] is not None:
                    row[name] += offset
        for name in ("enqueued", "started", "ended"):
            if getattr(life.truth, name) is not None:
                setattr(life.truth, name, getattr(life.truth, name) + offset)


def hidden(life: Life) -> bool:
    """Whether nothing recorded shows that this run is not the first one.

    It was put on a queue with a name of its own after it had run without completing a step, or all
    was over within the second in which clocks may differ.
    """
    row = life.row
    if not life.truth.again:
        return False
    if row["status"] in INTERRUPTED_STATUSES:
        return False
    if row["recovery_attempts"] > 1 or row["started_at_epoch_ms"] is None:
        return False
    delayed = (row["delay_until_epoch_ms"] or 0) - row["started_at_epoch_ms"] >= SECOND_MS
    foreign = row["queue_name"] == INTERNAL and not row["forked_from"] and not row["schedule_name"]
    return not (delayed or foreign or proof(life, row["started_at_epoch_ms"]))


def proof(life: Life, dequeued: int) -> bool:
    row = life.row
    since = row["created_at"]
    if row["forked_from"]:
        since += 1 if since % SECOND_MS else SECOND_MS
    base = max(row["created_at"], row["delay_until_epoch_ms"] or 0)
    if dequeued - base <= SECOND_MS:
        return False
    return any(since <= step["started_at_epoch_ms"] < dequeued - SECOND_MS for step in life.steps)


def check(life: Life, wait: int | None, duration: int | None, late: int) -> None:
    """Compare what is said of a life with what happened; ``late``: by how much now is later."""
    truth, slack = life.truth, SECOND_MS if life.coarse else 1
    running = life.status == "PENDING"
    end = life.now if running else truth.ended
    # How long it ran.
    if life.status == "CANCELLED" and truth.started is None and life.row["recovery_attempts"]:
        pass  # cancelled while it waited to be recovered: the row is that of one that ran
    elif life.status in WAITING or truth.started is None or end is None:
        assert duration is None
    elif duration is None:
        assert life.status in INTERRUPTED_STATUSES
        timed = life.row["workflow_timeout_ms"] and life.row["recovery_attempts"] == 1
        assert not timed or truth.again
    else:
        assert duration >= 0
        assert -slack < duration - (end - truth.started) < slack + late * running
    # How long it waited.
    if life.status == "DELAYED" or (truth.enqueued is None and not hidden(life)):
        assert wait is None
        return
    if life.status in WAITING:
        assert wait is not None
        # Resumed before its delay ended, it looks as if the delay had been moved.
        early = (life.row["delay_until_epoch_ms"] or 0) > (truth.enqueued or 0)
        least = 0 if truth.tagged or early else life.now - (truth.enqueued or 0) - slack
        assert least <= wait <= life.now - (truth.enqueued or 0) + slack + late
        return
    until = truth.ended if truth.started is None else truth.started
    true = None if truth.enqueued is None or until is None else until - truth.enqueued
    if wait is None:
        # Never missing for what ran once, unless cancelling erased it.
        assert truth.again or life.status in INTERRUPTED_STATUSES
    elif not hidden(life):
        assert true is not None
        early = (life.row["delay_until_epoch_ms"] or 0) > (truth.enqueued or 0)
        assert early or -slack < wait - true
        assert wait - true < slack


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emptied(tmp_path_factory.mktemp("lives") / "lives.sqlite")


def milliseconds(spans: pd.Series[Any]) -> list[int | None]:
    return [None if pd.isna(each) else round(each.total_seconds() * 1000) for each in spans]


def checked(db: dn.Client, lives: Sequence[Life]) -> None:
    frame = db.workflows(limit=None).set_index("workflow_id").loc[[life.id for life in lives]]
    late = round(time.time() * 1000) - min(life.now for life in lives) + 1
    waits, durations = milliseconds(frame["queue_wait"]), milliseconds(frame["duration"])
    for life, wait, duration in zip(lives, waits, durations, strict=True):
        try:
            check(life, wait, duration, late)
        except AssertionError as error:
            error.add_note(f"{wait=} {duration=}\n{life.truth}\n{life.row}\n{life.steps}")
            raise
    same_in_sql(db)


def same_in_sql(db: dn.Client) -> None:
    """The rules in SQL and in memory give the same, where no steps are needed to tell."""
    now = round(time.time() * 1000)
    queries = db._store.queries
    with db._store.reader.session() as session:
        times = timing.sql_times(queries, now)
        key = queries.workflows.c.workflow_uuid.label("workflow_id")
        statement = sa.select(key, *(value.label(name) for name, value in times.items()))
        found = pd.DataFrame(session.rows(statement)).set_index("workflow_id").astype("Int64")
    frame = db.workflows(limit=None).set_index("workflow_id")
    # Of which the steps may know more.
    assert (frame["queue_wait"].isna() | found.loc[frame.index, "queue_wait"].notna()).all()
    moment = pd.Timestamp(now, unit="ms", tz="UTC")
    memory = timing.frame_times(frame.drop(columns=["queue_wait"]), moment)
    for name in memory:
        kind = "datetime64[ms]" if name.endswith("_at") else "timedelta64[ms]"
        values = memory[name].to_numpy(kind)
        whole = values.astype("int64")
        for workflow_id, number, missing in zip(frame.index, whole, np.isnat(values), strict=True):
            told = found.loc[workflow_id, name]
            assert pd.isna(told) if missing else told == number, (workflow_id, name, told, number)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**9), st.booleans())
def test_times_of_random_histories_are_those_of_the_latest_run(
    empty: Path, seed: int, coarse: bool
) -> None:
    chance = random.Random(seed)
    lives = [each for n in range(25) for each in lived(chance, f"w{n}", coarse=coarse)]
    to_now(lives)
    with closing(sqlite3.connect(empty)) as connection, connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
        write(connection, lives)
    with dn.connect(empty) as db:
        checked(db, lives)


def test_times_of_random_histories_on_postgres(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz"))
    chance = random.Random(14)
    lives = [each for n in range(400) for each in lived(chance, f"w{n}", coarse=False)]
    to_now(lives)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE dbos.operation_outputs, dbos.workflow_status CASCADE")
        with connection.transaction():
            write(connection, lives, "%s", "dbos.")
    with dn.connect(url) as db:
        checked(db, lives)
        frame = db.workflows(limit=None)
        queues = db.queues().set_index("queue_name")
        waiting = frame[frame["status"] == "ENQUEUED"].groupby("queue_name", observed=True)
        for name, longest in waiting["queue_wait"].max().items():
            assert abs(queues.loc[name, "oldest_wait"] - longest) < pd.Timedelta("10s")
        with db._store.reader.session() as session:
            order = pages.SortOrder("duration", descending=True)
            page = pages.page(session, db._store.queries, {}, order, 1000)
        known = page.frame["duration"].dropna()
        assert len(known) > 100
        ended = page.frame["status"].isin(["SUCCESS", "ERROR"])
        assert page.frame.loc[ended, "duration"].is_monotonic_decreasing
        assert page.frame["duration"].isna().to_numpy()[len(known) :].all()


def one(empty: Path, life: Life) -> pd.Series[Any]:
    to_now([life])
    with closing(sqlite3.connect(empty)) as connection, connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
        write(connection, [life])
    with dn.connect(empty) as db:
        return db.workflows().iloc[0]


def test_a_backlog_keeps_its_queue_times(empty: Path) -> None:
    """A long wait alone is no sign of an earlier run."""
    life = Life("w", 1_790_000_000_123).enqueue("mail")
    life.wait(3_600_000)
    life.dequeue()
    life.step(500)
    life.finish()
    row = one(empty, life)
    assert (row["queue_wait"], row["duration"]) == (pd.Timedelta("1h"), pd.Timedelta("500ms"))


def test_a_workflow_resumed_onto_its_own_queue_has_no_queue_time(
    empty: Path,
) -> None:
    life = Life("w", 1_790_000_000_123).enqueue("mail")
    life.dequeue()
    life.step(5_000)
    life.cancel()
    life.wait(3_600_000)
    life.resume("mail")
    life.dequeue()
    life.step(500)
    life.finish()
    row = one(empty, life)
    assert pd.isna(row["queue_wait"])
    assert row["duration"] == pd.Timedelta("500ms")


def test_setting_attributes_does_not_shorten_the_queue_time(empty: Path) -> None:
    life = Life("w", 1_790_000_000_123).enqueue("mail", deduplication="once")
    life.wait(60_000)
    life.tag()
    assert one(empty, life)["queue_wait"] >= pd.Timedelta("60s")


def test_a_timeout_gives_the_start_of_a_cancelled_workflow(empty: Path) -> None:
    life = Life("w", 1_790_000_000_123).enqueue("mail", timeout=2_000)
    life.wait(5_000)
    life.dequeue()
    life.step(2_100)
    life.cancel()
    row = one(empty, life)
    assert row["duration"] == pd.Timedelta("2100ms")
    assert pd.isna(row["queue_wait"])


@pytest.mark.parametrize("ran_before", [False, True])
def test_a_workflow_cancelled_on_its_queue_may_have_run_before(
    empty: Path, ran_before: bool
) -> None:
    """Resuming starts the count of attempts again, and leaves the same row."""
    life = Life("w", 1_790_000_000_123).enqueue("mail")
    if ran_before:
        life.dequeue()
        life.wait(1_000)
        life.cancel()
        life.resume("mail")
    life.wait(5_000)
    life.cancel()
    assert pd.isna(one(empty, life)["queue_wait"])
    with dn.connect(empty) as db:
        said, card = db.timeline("w").text, str(db.workflow("w"))
        drawn = dn.draw(db.graph("w")).svg
        inspected = RunData.read(db._store, "w").facts()["unstarted"]
    most = "6.0 s" if ran_before else "5.0 s"
    sentence = f"waited at most {most}; whether it ran before is not recorded"
    assert sentence in said
    assert inspected == sentence
    assert f"note: {sentence}" in card
    assert "never" not in said + card
    assert ">whether it ran before is not recorded<" in drawn


def test_a_recorded_step_shows_that_it_ran_before_it_was_cancelled_on_its_queue(
    empty: Path,
) -> None:
    life = Life("w", 1_790_000_000_123).enqueue("mail")
    life.dequeue()
    life.step(200)
    life.cancel()
    life.resume("mail")
    life.wait(5_000)
    life.cancel()
    assert pd.isna(one(empty, life)["queue_wait"])
    with dn.connect(empty) as db:
        assert "did not run again" in db.timeline("w").text
        assert "note: did not run again" in str(db.workflow("w"))


def test_a_deadline_proves_that_a_workflow_never_ran(empty: Path) -> None:
    """A child has the deadline of its parent from the beginning; resuming clears it."""
    life = Life("w", 1_790_000_000_123).enqueue("mail")
    life.row["workflow_deadline_epoch_ms"] = life.now + 60_000
    life.wait(5_000)
    life.cancel()
    assert one(empty, life)["queue_wait"] == pd.Timedelta("5s")
    with dn.connect(empty) as db:
        assert "waited 5.0 s, never ran" in db.timeline("w").text
        assert "note: waited 5.0 s, never ran" in str(db.workflow("w"))


def test_a_delay_is_not_queue_time(empty: Path) -> None:
    life = Life("w", 1_790_000_000_123).enqueue("mail", delay=60_000)
    life.wait(1_000)
    assert pd.isna(one(empty, life)["queue_wait"])
    until = f"{pd.Timestamp(life.row['delay_until_epoch_ms'], unit='ms'):%Y-%m-%d %H:%M:%S}"
    with dn.connect(empty) as db:
        assert f"delayed  until {until}" in db.timeline("w").text
        assert f"delayed until: {until} UTC" in str(db.workflow("w"))
        assert f">until {until}.123 UTC<" in dn.draw(db.graph("w")).svg
    life.cancel()
    assert pd.isna(one(empty, life)["queue_wait"])
    with dn.connect(empty) as db:
        picture = db.timeline("w")
        assert "its delay had not ended" in picture.text
        assert "waited" not in picture.svg + str(db.workflow("w"))


@pytest.mark.parametrize(("timeout", "late"), [(1_000, 520), (1_000, 80), (250, 20)])
def test_a_timed_out_workflow_ran_at_least_its_timeout(
    empty: Path, timeout: int, late: int
) -> None:
    """Ends are cut to whole seconds, and deadlines are exact."""
    life = Life("w", 1_790_000_000_600, coarse=True).start(timeout)
    life.wait(250)
    life.wait(timeout - 250 + late)
    life.cancel()
    row = one(empty, life)
    expected = max(timeout, life.row["completed_at"] - life.row["created_at"] - 600)
    assert row["duration"] == pd.Timedelta(milliseconds=expected)
    with dn.connect(empty) as db:
        took = db.workflow("w").facts()["took"]
        path = dn.graphs.critical_path(db.graph("w"))
        same_in_sql(db)
    assert took == ("about 1 s" if expected >= 1000 else "< 1 s")
    assert path["duration"].sum() == row["duration"]


def test_a_workflow_cancelled_in_its_first_second_ran_for_less_than_one(
    empty: Path,
) -> None:
    life = Life("w", 1_790_000_000_464, coarse=True).start(60_000)
    life.wait(400)
    life.cancel()
    assert one(empty, life)["duration"] == pd.Timedelta(0)
    with dn.connect(empty) as db:
        assert db.workflow("w").facts()["took"] == "< 1 s"
        same_in_sql(db)


def test_times_in_whole_seconds_are_shown_as_approximate(empty: Path) -> None:
    life = Life("w", 1_790_000_000_000, coarse=True).enqueue("mail")
    life.wait(1_800)
    life.dequeue()
    life.step(100)
    life.wait(2_500)
    life.finish()
    assert one(empty, life)["queue_wait"] == pd.Timedelta("1s")
    with dn.connect(empty) as db:
        facts, timeline, graph = db.workflow("w").facts(), db.timeline("w"), dn.draw(db.graph("w"))
    assert (facts["waited"], facts["took"]) == ("about 1 s", "about 2 s")
    assert "after about 2 s" in timeline.svg
    for svg in (timeline.svg, graph.svg):
        assert "waited: about 1 s" in svg
        assert "took: about 2 s" in svg
    assert "about 1 s on mail" in graph.svg


def test_no_time_is_refined_if_only_creation_is_in_whole_seconds(empty: Path) -> None:
    """A database that an older Python made, and a newer one writes."""
    life = Life("w", 1_790_000_000_818).start()
    life.step(200)
    life.step(143)
    life.finish()
    life.row["created_at"] -= 818
    assert one(empty, life)["duration"] == pd.Timedelta("1161ms")
    with dn.connect(empty) as db:
        path = dn.graphs.critical_path(db.graph("w"))
        assert path["duration"].sum() == pd.Timedelta("1161ms")
        assert db.workflow("w").facts()["took"] == "1.2 s"
        assert "1.2 s" in db.timeline("w").text.splitlines()[0]


def test_times_of_a_million_rows_are_computed_quickly() -> None:
    """About as long as it takes to make the frame's dates: no row is looked at by itself."""
    count = 1_000_000
    status = timing.StatusColumn(
        ["SUCCESS", "ENQUEUED", "PENDING", "CANCELLED"], np.arange(count) % 4
    )
    created = np.full(count, np.datetime64(1_790_000_000_000, "ms"))
    columns = {
        "created_at": created,
        "updated_at": created + np.timedelta64(900, "ms"),
        "dequeued_at": np.where(np.arange(count) % 3 == 0, created, np.datetime64("NaT", "ms")),
        "completed_at": created + np.timedelta64(900, "ms"),
        "recovery_attempts": np.ones(count),
    }
    begun = time.process_time()
    timing.run_times(columns.get, status, 1_790_000_001_000)
    assert time.process_time() - begun < 1.0
