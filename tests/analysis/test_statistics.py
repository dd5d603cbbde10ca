"""Statistics of workflows and steps, against pandas over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
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
        statement = sa.select(numbers.c.x, log_bucket(queries, numbers.c.x, bits).label("bucket"))
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
    assert found[-3:] == [-1, -1, None]
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


def test_a_negative_duration_has_no_value() -> None:
    assert np.isnan(bucket_value([-1, 0])).tolist() == [True, False]
