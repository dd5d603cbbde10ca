"""Throughput and concurrency are those that follow from the rows; Little's law holds."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from written_runs import HOUR, NOW, WrittenDatabase, random_runs, run

import dbos_notebook as dn
from dbos_notebook.tables import timing

FAILED = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


def reference(db: dn.Client, now: int) -> pd.DataFrame:
    """Return all runs with their times, as pandas computes them from the rows."""
    rows = db.workflows(limit=None, load_errors=False)
    # Without queue_wait, which uses evidence from steps; here there are none.
    times = timing.frame_times(rows.drop(columns="queue_wait"), pd.Timestamp(now, unit="ms"))
    times = times.add_prefix("_")
    return pd.concat([rows.drop(columns=["duration", "queue_wait"]), times], axis=1)


def spans(rows: pd.DataFrame, level: str) -> list[tuple[int, float]]:
    """Return the known intervals in which runs ran or waited; ``inf`` for those that still do."""
    begin, length = (
        ("_started_at", "_duration") if level == "running" else ("_enqueued_at", "_queue_wait")
    )
    active = "PENDING" if level == "running" else "ENQUEUED"
    known = rows[rows[begin].notna() & rows[length].notna()]
    begins = known[begin].to_numpy("datetime64[ms]").astype("int64")
    lengths = known[length].to_numpy("timedelta64[ms]").astype("int64")
    ends = np.where(known["status"] == active, np.inf, begins + lengths)
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def expected_level(
    intervals: list[tuple[int, float]], start: int, end: int
) -> tuple[int, float, int]:
    """Return how many intervals include the start of a bucket, the mean, and the maximum in it."""

    def at(moment: int) -> int:
        return sum(begin <= moment < until for begin, until in intervals)

    area = sum(max(0, min(until, end) - max(begin, start)) for begin, until in intervals)
    moments = [start, *(begin for begin, _ in intervals if start < begin < end)]
    return at(start), area / (end - start), max(map(at, moments))


def check_levels(frame: pd.DataFrame, rows: pd.DataFrame, width: int, now: int) -> None:
    for level in ("running", "waiting"):
        intervals = spans(rows, level)
        assert len(intervals) > 5
        for row in frame.to_dict("records"):
            start = round(row["time"].timestamp() * 1000)
            found = row[level], row[f"{level}_mean"], row[f"{level}_max"]
            begin, mean, most = expected_level(intervals, start, min(start + width, now))
            assert (found[0], found[2]) == (begin, most), (level, row)
            assert math.isclose(found[1], mean, abs_tol=1e-9), (level, row)


@pytest.mark.parametrize("seed", [1, 2])
def test_concurrency_is_that_of_the_rows(written: WrittenDatabase, now: int, seed: int) -> None:
    written.write(random_runs(seed, 300))
    with dn.connect(written.url) as db:
        rows = reference(db, now)
        frame = db.concurrency("37min")
        width = 37 * 60_000
        assert frame["time"].diff().dropna().eq(pd.Timedelta("37min")).all()
        assert frame["time"].iloc[-1].timestamp() * 1000 == now // width * width
        check_levels(frame, rows, width, now)
        # The same in a window, to which runs extend that began before it.
        start, end = NOW - 20 * HOUR, NOW - 5 * HOUR
        part = db.concurrency(
            "37min",
            start_time=pd.Timestamp(start, unit="ms", tz="UTC"),
            end_time=pd.Timestamp(end, unit="ms", tz="UTC"),
        )
        inside = frame["time"].between(part["time"].iloc[0], part["time"].iloc[-1])
        pd.testing.assert_frame_equal(part, frame[inside].reset_index(drop=True), check_like=False)
        assert part["time"].iloc[0].timestamp() * 1000 == start // width * width
        assert part["time"].iloc[-1].timestamp() * 1000 == end // width * width
        # By groups.
        groups = db.concurrency("37min", by=["name", "queue_name"])
        assert len(groups) == len(frame) * len(groups[["name", "queue_name"]].drop_duplicates())
        for key, group in groups.groupby(["name", "queue_name"], dropna=False, observed=True):
            own = rows
            for column, value in zip(("name", "queue_name"), key, strict=True):
                own = own[own[column].isna() if pd.isna(value) else own[column] == value]
            if all(len(spans(own, level)) > 5 for level in ("running", "waiting")):
                check_levels(group, own, width, now)
        both = groups.groupby("time")[["running", "waiting"]].sum().reset_index(drop=True)
        pd.testing.assert_frame_equal(both, frame[["running", "waiting"]])


@pytest.mark.parametrize("filters", [{}, {"name": "pay"}, {"queue_name": ["mail", "slow"]}])
def test_throughput_is_that_of_the_rows(
    written: WrittenDatabase, now: int, filters: dict[str, Any]
) -> None:
    written.write(random_runs(3, 300))
    with dn.connect(written.url) as db:
        rows = reference(db, now)
        for name, value in filters.items():
            rows = rows[rows[name].isin([value] if isinstance(value, str) else value)]
        frame = db.throughput("37min", **filters)
    expected = pd.DataFrame(index=pd.DatetimeIndex(frame["time"]))
    chosen = {
        "created": rows["created_at"],
        "started": rows["_started_at"],
        "succeeded": rows["_ended_at"].where(rows["status"] == "SUCCESS"),
        "failed": rows["_ended_at"].where(rows["status"].isin(FAILED)),
        "cancelled": rows["_ended_at"].where(rows["status"] == "CANCELLED"),
    }
    for name, times in chosen.items():
        counts = Counter(times.dropna().dt.floor("37min"))
        expected[name] = pd.Series(counts, dtype="Int64").reindex(expected.index).fillna(0)
        assert frame[name].tolist() == expected[name].tolist(), name
        assert frame[name].sum() == times.notna().sum()
        assert frame[name].sum() > 0 or (name == "cancelled" and "queue_name" in filters)
    unknown = rows["_started_at"].isna() & ~rows["status"].isin(["ENQUEUED", "DELAYED"])
    never_ran = rows["status"].isin(["CANCELLED"]) & rows["_queue_wait"].notna()
    assert frame.attrs["unknown"] == {
        "created": 0,
        "started": (unknown & ~never_ran).sum(),
        "ended": 0,
    }
    assert frame.attrs["unknown"]["started"] > 0 or "queue_name" in filters


def queue(arrivals: float, service: float, servers: int, count: int) -> list[Any]:
    """Simulate an M/M/c queue: times between arrivals and of service are exponential."""
    chance = random.Random(5)
    time, free, runs = float(NOW - 90 * HOUR), [0.0] * servers, []
    for number in range(count):
        time += chance.expovariate(arrivals)
        started = max(time, heapq.heappop(free))
        ended = started + chance.expovariate(service)
        heapq.heappush(free, ended)
        times = [int(each) for each in (time, started, ended)]
        values = {"queue_name": "mail", "started_at_epoch_ms": times[1], "completed_at": times[2]}
        runs.append(run(number, times[0], **values))
    return runs


def test_littles_law_holds(written: WrittenDatabase, now: int) -> None:
    """L = λ · W, and W is that of the theory of the M/M/c queue."""
    servers, arrivals, service, count = 4, 1 / 1_000, 1 / 3_200, 20_000
    written.write(
        queue(arrivals, service, servers, count),
        queues=[{"queue_id": "q", "name": "mail", "concurrency": servers}],
    )
    with dn.connect(written.url) as db:
        frame = db.queue_history("mail", "10min")
        waits = db.workflows(limit=None, load_errors=False)
        same = db.concurrency("10min", queue_name="mail")
    whole = len(frame) * 600_000
    rate = frame["enqueued"].sum() / whole
    assert frame["enqueued"].sum() == frame["started"].sum() == frame["succeeded"].sum() == count
    for level, spent in (("waiting", "queue_wait"), ("running", "duration")):
        mean = frame[f"{level}_mean"].mean()
        exact = waits[spent].dt.total_seconds().mean() * 1000
        # Exactly, because the window contains all runs from their arrival to their end.
        assert math.isclose(mean, rate * exact, rel_tol=1e-9), level
        assert same[f"{level}_mean"].tolist() == frame[f"{level}_mean"].tolist()
    # Erlang's formula for the share that waits.
    load = arrivals / service
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    theory = last / (sum(terms) + last) / (servers * service - arrivals)
    assert abs(waits["queue_wait"].dt.total_seconds().mean() * 1000 / theory - 1) < 0.15
    assert frame["running_max"].max() == servers
    assert frame["utilization"].max() <= 1.0
    assert abs(frame["utilization"].iloc[1:-1].mean() - load / servers) < 0.03


def test_runs_that_end_as_others_start_are_not_counted_together(
    written: WrittenDatabase, now: int
) -> None:
    start = NOW // HOUR * HOUR
    runs = [
        run(number, start + number * 1_000, completed_at=start + (number + 1) * 1_000)
        for number in range(60)
    ]
    written.write(runs)
    with dn.connect(written.url) as db:
        frame = db.concurrency("10s")
    # The last one ended at the very start of a bucket.
    assert frame["running_max"].tolist() == [1] * 6 + [0]
    assert frame["running"].tolist() == [1] * 6 + [0]
    assert frame["running_mean"].tolist() == [1.0] * 6 + [0]


def test_what_cancelling_and_resuming_erase_is_counted_as_unknown(
    written: WrittenDatabase, now: int
) -> None:
    at = NOW - HOUR
    erased = {"queue_name": None, "started_at_epoch_ms": None, "completed_at": at + 9_000}
    written.write(
        [
            run("ran", at, completed_at=at + 9_000),
            run("cancelled", at, status="CANCELLED", **erased),
            run(
                "resumed",
                at,
                queue_name="_dbos_internal_queue",
                started_at_epoch_ms=at + 5_000,
                completed_at=at + 9_000,
            ),
        ]
    )
    with dn.connect(written.url) as db:
        frame = db.concurrency("1h")
        assert frame.attrs["unknown"] == {"running": 1, "waiting": 2}
        assert frame["running_max"].max() == 2
        assert frame["waiting_max"].max() == 0
        counted = db.throughput("1h")
    assert counted.attrs["unknown"] == {"created": 0, "started": 1, "ended": 0}
    assert counted[["created", "started", "succeeded", "cancelled"]].sum().tolist() == [3, 2, 2, 1]


METHODS: dict[str, Callable[..., pd.DataFrame]] = {
    "throughput": dn.Client.throughput,
    "concurrency": dn.Client.concurrency,
    "queue_history": lambda db, *args, **filters: db.queue_history("mail", *args, **filters),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_selection_has_the_columns_and_dtypes(
    written: WrittenDatabase, now: int, method: str
) -> None:
    written.write(random_runs(4, 50))
    read = METHODS[method]
    with dn.connect(written.url) as db:
        full, empty = read(db, "1h"), read(db, "1h", user="nobody")
        one = read(db, "1d", start_time=pd.Timestamp(NOW, unit="ms", tz="UTC"), user="nobody")
    assert len(empty) == 0 < len(full)
    assert empty.dtypes.to_dict() == full.dtypes.to_dict() == one.dtypes.to_dict()
    # A window was asked for: nothing happened in it.
    assert len(one) == 1
    counts = [name for name in one if str(one[name].dtype) == "Int64" and name != "executors"]
    assert one[counts].sum().sum() == 0
    assert full.attrs["dbos_notebook"] == empty.attrs["dbos_notebook"] == method


def test_a_window_without_groups_has_no_rows(written: WrittenDatabase, now: int) -> None:
    written.write(random_runs(4, 50))
    options: Any = {"by": "queue_name", "start_time": pd.Timestamp(NOW, unit="ms", tz="UTC")}
    with dn.connect(written.url) as db:
        empty = db.concurrency("1d", user="nobody", **options)
        full = db.concurrency("1d", by="queue_name")
    assert len(empty) == 0 < len(full)
    assert empty.dtypes.astype(str).to_dict() == full.dtypes.astype(str).to_dict()


def test_one_run(written: WrittenDatabase, now: int) -> None:
    start = NOW // HOUR * HOUR - 2 * HOUR
    written.write([run("one", start + 600_000, completed_at=start + 1_500_000)])
    with dn.connect(written.url) as db:
        frame = db.concurrency("1h")
        assert frame[["running", "running_mean", "running_max"]].values.tolist() == [[0, 0.25, 1]]
        assert db.throughput("1h")["succeeded"].tolist() == [1]


def test_too_many_buckets_are_refused(written: WrittenDatabase, now: int) -> None:
    written.write(random_runs(4, 50))
    with dn.connect(written.url) as db:
        with pytest.raises(dn.FilterError, match=r"gives .* buckets from .*; the limit is 100,000"):
            db.throughput("1ms")
        with pytest.raises(dn.FilterError, match="bucket='fast' is not a duration"):
            db.concurrency("fast")
        with pytest.raises(dn.FilterError, match="Did you mean 'name'"):
            db.concurrency("1h", by="nam")


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0", "3.4.0"])
def test_databases_of_older_versions(
    corpus_sqlite: Callable[[str], Path], corpus_postgres: Callable[[str], str], version: str
) -> None:
    for source in (corpus_sqlite(version), corpus_postgres(version)):
        with dn.connect(source) as db:
            rows = db.workflows(limit=None)
            frame = db.throughput("1d")
            assert frame["created"].sum() == len(rows)
            ended = rows["status"].isin(["SUCCESS", *FAILED, "CANCELLED"]).sum()
            assert frame[["succeeded", "failed", "cancelled"]].sum().sum() == ended
            levels = db.concurrency("1d", by="queue_name")
            assert levels["running_max"].max() > 0
            for name in rows["queue_name"].dropna().unique():
                assert db.queue_history(name, "1d")["started"].sum() > 0
