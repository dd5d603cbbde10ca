"""The history of a queue is that of its rows; forecasts contain what happens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_statistics import percentile
from written_runs import HOUR, NOW, WrittenDatabase, random_runs, run

import dbos_notebook as dn
from dbos_notebook.analysis.forecast import PARTS, drain_time
from dbos_notebook.tables.availability import Estimate, ExecutorAvailability

MINUTE = 60_000


def registered(name: str = "mail", **limits: Any) -> dict[str, Any]:
    return {"queue_id": f"id-{name}", "name": name, **limits}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_history_is_that_of_the_rows(written: WrittenDatabase, now: int, seed: int) -> None:
    limits = {"concurrency": 20, "worker_concurrency": 4}
    limits |= {"rate_limit_max": 30, "rate_limit_period_sec": 1_800.0}
    written.write(random_runs(seed, 400), queues=[registered(**limits)])
    with dn.connect(written.url) as db:
        frame = db.queue_history("mail", "3h").set_index("time")
        rows = db.workflows(queue_name="mail", limit=None, load_errors=False)
        levels = db.concurrency("3h", queue_name="mail").set_index("time")
    assert frame.attrs["limits"]["concurrency"] == 20
    pd.testing.assert_frame_equal(frame[levels.columns], levels)
    started = rows[rows["queue_wait"].notna() & rows["dequeued_at"].notna()]
    waits = started.groupby(started["dequeued_at"].dt.floor("3h"))["queue_wait"]
    assert frame["waits"].sum() == len(started) > 60
    for name, share in (("queue_wait_p50", 0.5), ("queue_wait_p99", 0.99)):
        expected = waits.agg(percentile, share=share).reindex(frame.index)
        pd.testing.assert_series_equal(frame[name], expected, check_names=False)
    ended = rows[rows["completed_at"].notna()]
    by = pd.concat(
        [
            each[["executor_id"]].assign(at=each[time].dt.floor("3h"))
            for each, time in (
                (rows[rows["dequeued_at"].notna()], "dequeued_at"),
                (ended, "completed_at"),
            )
        ]
    ).groupby("at")["executor_id"]
    for time, names in by.unique().items():
        found = frame.loc[time, "executors"]
        assert pd.isna(found) if "local" in set(names) else found == len(names)
    lengths = np.full(len(frame), 3.0 * HOUR)
    lengths[-1] = now - frame.index[-1].timestamp() * 1000
    used = pd.DataFrame(
        {
            "concurrency": frame["running_mean"] / 20,
            "worker_concurrency": frame["running_mean"]
            / (4 * frame["executors"].astype("float64")),
            "rate_limit": frame["started"].astype("float64") / (lengths / 1_800_000 * 30),
        }
    )
    pd.testing.assert_series_equal(frame["utilization"], used.max(axis=1), check_names=False)
    assert frame["limit"].tolist() == used.idxmax(axis=1).tolist()


def test_limits_of_partitions_are_not_those_of_the_queue(
    written: WrittenDatabase, now: int
) -> None:
    old = registered(concurrency=1, partition_queue=True)
    written.write(random_runs(1, 60), queues=[old])
    with dn.connect(written.url) as db:
        frame = db.queue_history("mail")
        assert frame["utilization"].isna().all()
        assert frame.attrs["limits"]["concurrency"] is None
        written.write(random_runs(1, 60), queues=[old | {"partition_concurrency": 1}])
        assert db.queue_history("mail")["utilization"].notna().all()


def test_an_unknown_queue_is_refused_with_the_nearest(written: WrittenDatabase, now: int) -> None:
    written.write(random_runs(1, 60), queues=[registered("returns")])
    with dn.connect(written.url) as db:
        for name, near in (("male", "mail"), ("return", "returns")):
            for read in (db.queue_history, db.forecast):
                with pytest.raises(dn.FilterError, match=f"No queue is named '{name}'.*'{near}'"):
                    read(name)
        with pytest.raises(dn.FilterError, match="Omit queue_name"):
            db.queue_history("mail", queue_name="slow")
        # Registered, and never used.
        assert db.queue_history("returns").empty
        assert db.forecast("returns")["outlook"].tolist() == ["empty"]
        assert db.forecast()["queue_name"].tolist() == [
            "_dbos_internal_queue",
            "mail",
            "returns",
            "slow",
        ]


def test_a_cancelled_run_is_not_on_the_queue_any_more(written: WrittenDatabase, now: int) -> None:
    cancelled = {"status": "CANCELLED", "completed_at": NOW - HOUR + 5_000}
    written.write(
        [
            run("on it", NOW - HOUR, queue_name="mail", started_at_epoch_ms=NOW - HOUR),
            run("gone", NOW - HOUR, **cancelled),
        ]
    )
    with dn.connect(written.url) as db:
        frame = db.queue_history("mail")
    assert frame["enqueued"].sum() == 1
    assert frame.attrs["unknown"]["cancelled"] == 1
    assert "cancelled" not in frame


def test_the_range_of_a_forecast_contains_what_happens() -> None:
    """90 % of the times, for queues of different load, with a backlog all the time."""
    chance = np.random.default_rng(3)
    for arrivals, starts, backlog in ((0.0, 20.0, 100), (10.0, 14.0, 60), (50.0, 80.0, 2_000)):
        inside, trials = 0, 600
        for _ in range(trials):
            changes = chance.poisson(starts, PARTS) - chance.poisson(arrivals, PARTS)
            found = drain_time(backlog, changes)
            if found is None:
                continue
            assert found.low <= found.expected <= found.high
            # The backlog as a random walk of single starts and arrivals.
            count = round(backlog * (starts + arrivals) / (starts - arrivals) * 3)
            walk = np.where(chance.random(count) < starts / (starts + arrivals), -1, 1).cumsum()
            empty = int(np.argmax(walk == -backlog))
            assert empty > 0
            took = chance.gamma(empty + 1, 1 / (starts + arrivals))
            inside += bool(found.low <= took <= found.high)
        assert 0.86 <= inside / trials <= 0.95, (arrivals, starts, inside / trials)


def test_a_backlog_that_may_last_for_ever_has_no_end() -> None:
    changes = [-5, 6, -4, 7, -6, 5, -5, 6, -4, 7, -6, 5]
    found = drain_time(100, changes)
    assert found is not None
    assert found.high == math.inf
    assert 0 < found.low < found.expected
    assert drain_time(100, [0] * PARTS) is None
    assert drain_time(100, [2] * PARTS) == (50, 50, 50)


def recent(now: int, arrivals: int, starts: int, *, before: int = 0, running: int = 0) -> list[Any]:
    """Return runs of which so many arrived and started in the last hour, evenly."""
    runs = []
    for number in range(before + arrivals):
        young = number >= before
        at = now - 2 * HOUR
        if young:
            at = now - HOUR + (2 * (number - before) + 1) * HOUR // (2 * arrivals)
        values: dict[str, Any] = {"status": "ENQUEUED", "recovery_attempts": 0}
        if number < starts:
            started = max(at, now - HOUR + (2 * number + 1) * HOUR // (2 * starts))
            active = number >= starts - running
            values = {"started_at_epoch_ms": started, "status": "PENDING" if active else "SUCCESS"}
            values |= {} if active else {"completed_at": started + 1}
        runs.append(run(number, at, queue_name="mail", application_version="1", **values))
    return runs


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor is alive, as far as the evidence goes, which has its own tests."""
    estimate = Estimate("likely", "version 1 was last active 1 s ago")
    monkeypatch.setattr(ExecutorAvailability, "estimate", lambda *_, **__: estimate)


def test_the_forecast_of_a_queue_that_drains(
    written: WrittenDatabase, now: int, alive: None
) -> None:
    written.write(recent(now, 60, 120, before=180, running=2), queues=[registered(concurrency=2)])
    with dn.connect(written.url) as db:
        (row,) = db.forecast("mail").to_dict("records")
    assert (row["outlook"], row["backlog"], row["running"]) == ("draining", 120, 2)
    assert (row["arrivals_per_hour"], row["starts_per_hour"]) == (60, 120)
    assert row["completions_per_hour"] == 118
    assert row["drain_time"] == pd.Timedelta("2h")
    assert row["drain_time_low"] <= row["drain_time"] <= row["drain_time_high"]
    assert row["bottleneck"] == "concurrency limit"
    assert row["evidence"].startswith("2 of 2 are running; 120 starts and 60 arrivals")


@pytest.mark.parametrize(
    ("arrivals", "starts", "before", "outlook"),
    [
        (120, 60, 10, "growing"),
        (60, 60, 10, "steady"),
        (60, 0, 10, "stalled"),
        (0, 5, 100, "too few"),
        (60, 60, 0, "empty"),
    ],
)
def test_other_outlooks(
    written: WrittenDatabase,
    now: int,
    alive: None,
    arrivals: int,
    starts: int,
    before: int,
    outlook: str,
) -> None:
    written.write(recent(now, arrivals, starts, before=before), queues=[registered()])
    with dn.connect(written.url) as db:
        (row,) = db.forecast("mail").to_dict("records")
        assert row["outlook"] == outlook
        assert pd.isna(row["drain_time"]) == (outlook != "empty")
        assert row["bottleneck"] == (
            "none" if outlook in ("empty", "steady", "too few") else "unknown"
        )
        assert db.forecast("mail").dtypes.to_dict() == db.forecast().dtypes.to_dict()


@pytest.mark.parametrize(
    ("limits", "running", "bottleneck", "evidence"),
    [
        ({"concurrency": 3}, 3, "concurrency limit", "3 of 3 are running"),
        ({"concurrency": 4}, 3, "none", "no limit of the queue is reached"),
        (
            {"worker_concurrency": 3},
            3,
            "worker concurrency limit",
            "3 of 3 are running: 3 on each of 1 busy executor",
        ),
        (
            {"rate_limit_max": 20, "rate_limit_period_sec": 600.0},
            0,
            "rate limit",
            "20 of 20 started within the last 10 m",
        ),
        ({"rate_limit_max": 21, "rate_limit_period_sec": 600.0}, 0, "none", "no limit"),
    ],
)
def test_the_bottleneck_is_named(
    written: WrittenDatabase,
    now: int,
    alive: None,
    limits: dict[str, Any],
    running: int,
    bottleneck: str,
    evidence: str,
) -> None:
    written.write(recent(now, 10, 120, before=180, running=running), queues=[registered(**limits)])
    with dn.connect(written.url) as db:
        (row,) = db.forecast("mail").to_dict("records")
    assert row["bottleneck"] == bottleneck
    assert row["evidence"].startswith(evidence)


def test_without_an_executor_that_is_the_bottleneck(written: WrittenDatabase, now: int) -> None:
    """The evidence is real: no other process has opened the database."""
    written.write(recent(now, 10, 120, before=180), queues=[registered(concurrency=1)])
    with dn.connect(written.url) as db:
        (row,) = db.forecast("mail").to_dict("records")
    assert row["bottleneck"] == "no executor"
    assert "version 1 has no recent activity" in row["evidence"]


def test_starts_without_a_known_arrival_are_left_out(
    written: WrittenDatabase, now: int, alive: None
) -> None:
    runs = recent(now, 60, 120, before=180)
    for row in runs[:40]:
        row["recovery_attempts"] = 3
    written.write(runs, queues=[registered()])
    with dn.connect(written.url) as db:
        (row,) = db.forecast("mail").to_dict("records")
    assert row["starts_per_hour"] == 80
    assert row["evidence"].endswith("without 40 starts whose arrival is unknown")


@pytest.mark.parametrize("window", ["soon", "1s", -3600, None])
def test_an_invalid_window_is_refused(written: WrittenDatabase, now: int, window: Any) -> None:
    with dn.connect(written.url) as db, pytest.raises(dn.FilterError, match="window="):
        db.forecast(window=window)
