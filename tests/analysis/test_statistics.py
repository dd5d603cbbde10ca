"""Statistics of workflows and steps, against pandas over the rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import dbos_notebook as dn
from dbos_notebook.analysis.selections import bucket_limits, bucket_value, log_bucket

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
