"""Statistics of workflows and steps, against pandas over the rows."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from budgets import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import dbos_notebook as dn
from dbos_notebook.analysis.selections import bucket_limits, bucket_value, log_bucket
from dbos_notebook.errors import FilterError

LONGEST_MS = 2**48
"""More than between any two times in the years 1 to 9999."""


def sql_buckets(db: dn.Client, durations: list[int | None], bits: int) -> list[int | None]:
    def read(session: Any, queries: Any) -> list[int | None]:
        rows = queries.id_rows(["" if each is None else str(each) for each in durations])
        number = sa.cast(sa.func.nullif(rows.c[0], ""), sa.BigInteger())
        numbers = sa.select(number.label("x")).subquery()
        statement = sa.select(numbers.c.x, log_bucket(numbers.c.x, bits).label("bucket"))
        found = {row["x"]: row["bucket"] for row in session.rows(statement)}
        return [found[each] for each in durations]

    return db._store.read(read)


def expected_bucket(duration: int, bits: int) -> int:
    shift = max(duration.bit_length() - bits - 1, 0)
    return (shift << bits) + (duration >> shift)


@pytest.mark.parametrize("bits", [1, 6])
def test_both_databases_put_a_duration_in_the_same_bucket(db: dn.Client, bits: int) -> None:
    powers = [2**n + step for n in range(48) for step in (-1, 0, 1)]
    numbers = np.random.default_rng(1).integers(0, LONGEST_MS, 2_000)
    durations = [*powers, *(int(n) >> int(n) % 48 for n in numbers), LONGEST_MS - 1]
    found = sql_buckets(db, [*durations, -1, -LONGEST_MS, None], bits)
    assert found[-3:] == [-1, -LONGEST_MS, None]
    assert found[:-3] == [expected_bucket(each, bits) for each in durations]


@given(st.integers(0, LONGEST_MS), st.integers(0, LONGEST_MS))
def test_the_value_of_a_bucket_differs_by_less_than_one_percent(one: int, other: int) -> None:
    bucket = expected_bucket(one, 6)
    assert abs(bucket_value(bucket) - one) <= one / 128
    first, following = bucket_limits(bucket)
    assert first <= one < following
    assert (one <= other) <= (bucket <= expected_bucket(other, 6))
    # Buckets of fewer bits are unions.
    coarse, _ = bucket_limits(expected_bucket(one, 1), 1)
    assert coarse == bucket_limits(expected_bucket(int(first), 1), 1)[0] <= first


PERCENTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
TERMINAL = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


def percentile(durations: pd.Series[Any], share: float) -> pd.Timedelta:
    """Return the duration that PostgreSQL's percentile_disc returns."""
    known = durations.dropna().sort_values()
    if known.empty:
        return pd.NaT
    return known.iloc[max(math.ceil(round(share * len(known), 9)) - 1, 0)]


def expected_workflows(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Compute the statistics of workflows with pandas."""
    ended = rows["status"].isin(TERMINAL)
    failed = ended & (rows["status"] != "SUCCESS")
    rows = rows.assign(
        active=~ended,
        failed=failed,
        duration=rows["duration"].where(ended),
        queue_wait=rows["queue_wait"].where(~rows["status"].isin(["ENQUEUED", "DELAYED"])),
    )
    groups = rows.groupby(by, observed=True, dropna=False)
    frame = pd.DataFrame({"count": groups.size(), "active": groups["active"].sum()})
    frame["errors"] = groups["failed"].sum()
    return add_durations(frame, groups)


def add_durations(frame: pd.DataFrame, groups: Any) -> pd.DataFrame:
    active = frame.get("active", 0)
    frame["error_rate"] = frame["errors"] / (frame["count"] - active).replace(0, np.nan)
    frame["total"] = groups["duration"].sum(min_count=1)
    frame["share"] = frame["total"] / frame["total"].sum()
    frame["mean"] = frame["total"] / groups["duration"].count().replace(0, np.nan)
    for name, share in PERCENTS.items():
        frame[name] = groups["duration"].apply(percentile, share)
    frame["max"] = groups["duration"].max()
    if "active" in frame:
        for name in ("p50", "p99"):
            frame[f"queue_wait_{name}"] = groups["queue_wait"].apply(percentile, PERCENTS[name])
    return frame


def by_text(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the frame with its groups as text in the index, sorted."""
    keys = [
        " ".join("-" if pd.isna(key) else str(key) for key in group)
        for group in frame[by].itertuples(index=False)
    ]
    return frame.drop(columns=by).set_axis(keys).sort_index()


def assert_close(found: pd.DataFrame, expected: pd.DataFrame, by: list[str], within: float) -> None:
    """Compare statistics; percentiles may differ by a share, all others by rounding."""
    found, expected = (by_text(frame, by) for frame in (found, expected.reset_index()))
    assert list(found.columns) == list(expected.columns)
    assert list(found.index) == list(expected.index)
    for name in found:
        ours, theirs = (column.to_numpy() for column in (found[name], expected[name]))
        if found[name].dtype == "Int64":
            assert ours.tolist() == theirs.tolist(), name
            continue
        assert (pd.isna(ours) == pd.isna(theirs)).all(), name
        ours, theirs = (pd.Series(each).dropna() for each in (ours, theirs))
        if not name.startswith(("error_rate", "share")):
            assert found[name].dtype == "timedelta64[ms]", name
            ours, theirs = (each / pd.Timedelta("1ms") for each in (ours, theirs))
        share = within if "p" in name.removeprefix("queue_wait_")[:1] else 1e-9
        rounding = 1 if name == "mean" or share > 1e-9 else 0
        assert (abs(ours - theirs) <= share * abs(theirs) + rounding + 1e-9).all(), name


@pytest.mark.parametrize(("exact", "within"), [(True, 0), (False, 0.01)])
@pytest.mark.parametrize("by", [["name"], ["status", "queue_name"], ["workflow_id"]])
def test_workflow_statistics_are_those_of_the_rows(
    shop: dn.Client, by: list[str], exact: bool, within: float
) -> None:
    rows = shop.workflows(limit=None)
    found = shop.workflow_statistics(by, exact=exact)
    assert found["active"].sum() > 0
    assert_close(found, expected_workflows(rows, by), by, within)
    assert found["total"].is_monotonic_decreasing or found["total"].isna().any()


def ran_steps(db: dn.Client) -> pd.DataFrame:
    """Return the steps that ran, not those that a fork copied, with columns of their workflows."""
    rows = db.workflows(limit=None)
    steps = db.steps(rows)
    origins = rows.set_index("workflow_id")["forked_from"]
    same = ["workflow_id", "function_id", "started_at", "completed_at"]
    known = set(steps[same].itertuples(index=False, name=None))
    copied = [
        (origins[step.workflow_id], *step[1:]) in known
        for step in steps[same].itertuples(index=False)
    ]
    assert 0 < sum(copied) < len(steps), "a fork has steps of its original"
    own = rows[["workflow_id", "name", "app_version", "created_at"]]
    return steps[[not each for each in copied]].merge(own, on="workflow_id")


def expected_steps(steps: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Compute the statistics of steps with pandas."""
    groups = steps.assign(failed=steps["status"] == "ERROR").groupby(
        by, observed=True, dropna=False
    )
    frame = pd.DataFrame({"count": groups.size(), "errors": groups["failed"].sum()})
    return add_durations(frame, groups)


@pytest.mark.parametrize(("exact", "within"), [(True, 0), (False, 0.01)])
def test_step_statistics_are_those_of_the_steps(
    shop: dn.Client, exact: bool, within: float
) -> None:
    steps = ran_steps(shop)
    for by in (["function_name"], ["name", "function_name"], ["function_id", "app_version"]):
        found = shop.step_statistics(by, exact=exact)
        assert found["errors"].sum() > 0
        assert_close(found, expected_steps(steps, by), by, within)
    # The filters are those of workflows.
    newest = steps["created_at"].max()
    since = shop.step_statistics("function_name", start_time=newest, exact=exact)
    kept = steps[steps["created_at"] >= newest]
    assert_close(since, expected_steps(kept, ["function_name"]), ["function_name"], within)


def test_one_group_has_all(shop: dn.Client) -> None:
    rows, steps = shop.workflows(limit=None), ran_steps(shop)
    (whole,) = shop.workflow_statistics([], exact=True).to_dict("records")
    ended = rows[rows["status"].isin(TERMINAL)]["duration"]
    assert (whole["count"], whole["total"]) == (len(rows), ended.sum())
    assert (whole["max"], whole["p99"]) == (ended.max(), percentile(ended, 0.99))
    (whole,) = shop.step_statistics([], exact=True).to_dict("records")
    assert (whole["count"], whole["total"]) == (len(steps), steps["duration"].sum())
    # Steps have milliseconds; in whole seconds, all workflows may have taken no time.
    assert whole["share"] == 1


@pytest.mark.parametrize("exact", [True, False])
def test_workflows_that_ended_in_the_second_they_started_have_no_share(
    tmp_path: Path, shop_sqlite: Path, *, exact: bool
) -> None:
    path = tmp_path / "instant.sqlite"
    shutil.copyfile(shop_sqlite, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE workflow_status SET completed_at = coalesce(started_at_epoch_ms, created_at), "
            "updated_at = coalesce(started_at_epoch_ms, created_at), workflow_timeout_ms = NULL, "
            "workflow_deadline_epoch_ms = NULL WHERE completed_at IS NOT NULL"
        )
    with dn.connect(path) as client:
        (found,) = client.workflow_statistics([], exact=exact).to_dict("records")
        by_name = client.workflow_statistics(exact=exact)
    assert found["errors"] > 0
    zero = [found[name] for name in ("total", "mean", "p50", "p99", "max")]
    assert zero == [pd.Timedelta(0)] * len(zero)
    assert np.isnan(found["share"])
    assert by_name["share"].isna().all()


def test_statistics_by_time_have_the_groups_of_counts(shop: dn.Client) -> None:
    found = shop.workflow_statistics("status", bucket="10s", exact=True)
    assert list(found.columns[:3]) == ["status", "created_at", "count"]
    assert found["created_at"].dtype == "datetime64[ms, UTC]"
    assert found["created_at"].is_monotonic_increasing
    keys = ["created_at", "status"]
    counted = shop.counts("status", bucket="10s").sort_values(keys)
    ours = found.sort_values(keys)
    assert ours[[*keys, "count"]].to_dict("list") == counted[[*keys, "count"]].to_dict("list")
    rows = shop.workflows(limit=None)
    rows["created_at"] = rows["created_at"].dt.floor("10s")
    assert_close(found, expected_workflows(rows, keys), keys, 0)
    # By another time, those that have none are not counted.
    ended = shop.workflow_statistics([], bucket="1d", time="completed_at")
    assert ended["count"].sum() == rows["completed_at"].notna().sum() < len(rows)
    steps = ran_steps(shop)
    steps["started_at"] = steps["started_at"].dt.floor("10s")
    by = ["started_at", "name"]
    found = shop.step_statistics("name", bucket="10s", exact=True)
    assert_close(found, expected_steps(steps, by), by, 0)


def test_a_latency_histogram_counts_every_workflow_and_step_once(shop: dn.Client) -> None:
    histogram = shop.latency_histogram("10s", by="name")
    interval = ["duration_from", "duration_to"]
    assert list(histogram.columns) == ["name", "created_at", *interval, "count", "errors"]
    assert [str(histogram[name].dtype) for name in interval] == ["timedelta64[ms]"] * 2
    keys = ["created_at", "name"]
    counted = shop.counts("name", bucket="10s").set_index(keys)["count"].sort_index()
    sums = histogram.groupby(keys, observed=True)["count"].sum().sort_index()
    assert sums.to_dict() == counted.to_dict()
    rows = shop.workflows(limit=None)
    unknown = rows["duration"].isna() | ~rows["status"].isin(TERMINAL)
    assert histogram.loc[histogram["duration_from"].isna(), "count"].sum() == unknown.sum() > 0
    rows, steps = rows[~unknown], ran_steps(shop)
    for found, durations in (
        (shop.latency_histogram(None), rows["duration"]),
        (shop.latency_histogram(None, of="step"), steps["duration"]),
    ):
        found = found[found["duration_from"].notna()]
        assert found["duration_from"].is_monotonic_increasing
        expected = [
            int(((durations >= first) & (durations < last)).sum())
            for first, last in found[interval].itertuples(index=False)
        ]
        assert found["count"].tolist() == expected
        assert sum(expected) == len(durations)
    by_step = shop.latency_histogram("10s", of="step")
    assert (by_step.columns[0], by_step["count"].sum()) == ("started_at", len(steps))


def test_results_say_which_method_made_them(db: dn.Client) -> None:
    for name in ("workflow_statistics", "step_statistics", "latency_histogram"):
        assert name in getattr(db, name)().attrs.values()


@pytest.mark.parametrize("bucket", [None, "1h"])
def test_nothing_selected_gives_the_same_columns(db: dn.Client, bucket: str | None) -> None:
    for method in (db.workflow_statistics, db.step_statistics, db.latency_histogram):
        filled, empty = method(bucket=bucket), method(bucket=bucket, name="no such workflow")
        assert filled.size
        assert not empty.size
        assert [str(dtype) for dtype in empty.dtypes] == [str(dtype) for dtype in filled.dtypes]
        assert list(empty.columns) == list(filled.columns)
        whole = method(by=[], bucket=bucket, name="no such workflow")
        assert not whole.size


def test_what_is_not_a_column_is_refused(db: dn.Client) -> None:
    with pytest.raises(FilterError, match=r"by='nam' .*name"):
        db.workflow_statistics("nam")
    with pytest.raises(FilterError, match=r"by='function' .*function_name"):
        db.step_statistics("function")
    with pytest.raises(FilterError, match=r"time='dequeued_at' .*started_at"):
        db.step_statistics(bucket="1h", time="dequeued_at")
    with pytest.raises(FilterError, match="bucket='often' is not a duration"):
        db.workflow_statistics(bucket="often")
    with pytest.raises(FilterError, match="by has 'created_at', which bucket='1h' groups"):
        db.workflow_statistics("created_at", bucket="1h")
    with pytest.raises(FilterError, match="of='flow' is neither 'workflow' nor 'step'"):
        db.latency_histogram(of="flow")  # type: ignore[arg-type] # that is tested


def test_before_steps_had_times_their_durations_are_missing(
    corpus_sqlite: Callable[[str], Path], corpus_postgres: Callable[[str], str]
) -> None:
    for location in (corpus_sqlite("2.0.0"), corpus_postgres("2.0.0")):
        with dn.connect(location) as client:
            statistics = client.step_statistics()
            steps = client.steps(client.workflows(limit=None))
            assert "started_at" not in steps or steps["started_at"].isna().all()
            counted = statistics.set_index("function_name")["count"]
            assert counted.to_dict() == steps["function_name"].value_counts().to_dict()
            known = statistics[["total", "share", "mean", "p50", "p90", "p99", "max"]].notna()
            assert not known.any(axis=None)
            histogram = client.latency_histogram(None, of="step")
            assert histogram["count"].tolist() == [len(steps)]
            assert client.step_statistics(bucket="1h").empty
            found, rows = client.workflow_statistics(exact=True), client.workflows(limit=None)
            assert_close(found, expected_workflows(rows, ["name"]), ["name"], 0)


def test_durations_that_clocks_made_negative(tmp_path: Path, old_sqlite: Path) -> None:
    path = tmp_path / "skewed.sqlite"
    shutil.copyfile(old_sqlite, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        for back in (1, 999, 1000, 5000):
            connection.execute(
                "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, "
                "started_at_epoch_ms, completed_at_epoch_ms) SELECT workflow_uuid, 1000 + ?, "
                "'skewed', 1790000000000, 1790000000000 - ? FROM workflow_status "
                "WHERE forked_from IS NULL LIMIT 1",
                (back, back),
            )
    with dn.connect(path) as client:
        (skewed,) = client.step_statistics().query("function_name == 'skewed'").to_dict("records")
    assert skewed["count"] == 4
    # Less than a second is rounding; more is not known.
    assert [skewed[name] for name in ("total", "mean", "p99", "max")] == [pd.Timedelta(0)] * 4


def written(path: Path, durations: Sequence[int], old_sqlite: Path) -> Path:
    """Return a database with one step of each duration, of one workflow."""
    shutil.copyfile(old_sqlite, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM operation_outputs")
        (workflow,) = connection.execute("SELECT workflow_uuid FROM workflow_status").fetchone()
        connection.executemany(
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, "
            "started_at_epoch_ms, completed_at_epoch_ms) VALUES (?, ?, 'work', 1790000000000, ?)",
            [(workflow, n, 1790000000000 + each) for n, each in enumerate(durations)],
        )
    return path


@examples(30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 40).map(lambda bits: 2**bits) | st.integers(0, 10**10), min_size=1))
def test_percentiles_of_buckets_differ_by_at_most_one_percent(
    tmp_path: Path, old_sqlite: Path, durations: list[int]
) -> None:
    with dn.connect(written(tmp_path / "steps.sqlite", durations, old_sqlite)) as client:
        (approximate,) = client.step_statistics().to_dict("records")
        (exact,) = client.step_statistics(exact=True).to_dict("records")
    series = pd.Series(durations, dtype="timedelta64[ms]")
    assert (exact["max"], exact["total"]) == (series.max(), series.sum())
    for name, share in PERCENTS.items():
        assert exact[name] == percentile(series, share)
        assert abs(approximate[name] - exact[name]) <= exact[name] / 100
        assert series.min() <= approximate[name] <= series.max()
    same = ("count", "total", "mean", "max")
    assert [approximate[name] for name in same] == [exact[name] for name in same]
