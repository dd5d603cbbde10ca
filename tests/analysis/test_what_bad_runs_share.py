"""What bad runs have in common: simulations both ways, and counts against pandas over the rows."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

import dbos_notebook as dn
from dbos_notebook.analysis.contrast import (
    COLUMNS,
    MAX_INPUTS,
    MIN_COUNT,
    Counts,
    count_parts,
    over_represented,
)
from dbos_notebook.tables.columns import STRING_DTYPE

SIZES = {"app_version": 3, "executor_id": 8, "hour": 24, "user": 300}
"""How many values each simulated field has; those of the last are rare."""


def simulate(
    rng: np.random.Generator, runs: int, cause: tuple[str, int] | None = None, rate: float = 0.3
) -> list[Counts]:
    """Count the values of runs of which 5 % are bad, and of those with the cause, ``rate``."""
    fields = {name: rng.zipf(1.4, runs) % size for name, size in SIZES.items()}
    is_bad = rng.random(runs) < 0.05
    if cause is not None:
        is_bad |= (fields[cause[0]] == cause[1]) & (rng.random(runs) < rate)
    of_bad = int(is_bad.sum())
    counts = []
    for name, values in fields.items():
        total = np.bincount(values, minlength=SIZES[name])
        bad = np.bincount(values[is_bad], minlength=SIZES[name])
        for value in np.flatnonzero(total >= MIN_COUNT):
            sides = int(bad[value]), of_bad, int(total[value] - bad[value]), runs - of_bad
            counts.append(Counts(name, str(value), *sides))
    return counts


def found(counts: list[Counts]) -> list[tuple[str, str]]:
    frame = over_represented(counts, confidence=0.95, all_values=False)
    return list(zip(frame["field"], frame["value"], strict=True))


def test_without_a_cause_at_most_five_percent_of_calls_find_one() -> None:
    rng = np.random.default_rng(1)
    false = sum(bool(found(simulate(rng, 1_500))) for _ in range(400))
    assert 0 < false <= 20


def test_a_planted_cause_comes_first() -> None:
    rng = np.random.default_rng(2)
    hits = [found(simulate(rng, 1_500, cause=("executor_id", 3))) for _ in range(60)]
    assert sum(each[:1] == [("executor_id", "3")] for each in hits) >= 57
    # Hardly anything else comes with it.
    assert sum(len(each) for each in hits) <= 70


def test_a_rare_value_of_many_is_found_if_all_its_runs_are_bad() -> None:
    rng = np.random.default_rng(3)
    user = ("user", 40)
    hits = [found(simulate(rng, 4_000, cause=user, rate=1.0)) for _ in range(30)]
    assert sum(("user", "40") in each for each in hits) >= 29


def test_lift_and_shares() -> None:
    counts = [
        Counts("user", "ann", 30, 100, 10, 1_000),
        Counts("user", "bob", 10, 100, 0, 1_000),
        Counts("user", "eve", 60, 100, 990, 1_000),
        # The same in every run, and too rare to tell.
        Counts("name", "checkout", 100, 100, 1_000, 1_000),
        Counts("hour", "2026-11-26 10:00", 1, 100, 0, 1_000),
    ]
    frame = over_represented(counts, confidence=0.95, all_values=False)
    assert frame["value"].tolist() == ["bob", "ann"]
    ann = frame.iloc[1]
    assert (ann["share_bad"], ann["share_baseline"], ann["lift"]) == (0.3, 0.01, 30)
    assert 15 < ann["lift_low"] < 30 < ann["lift_high"] < 62
    assert math.isinf(frame.loc[0, "lift"])
    assert frame.loc[0, "lift_low"] > 15
    every = over_represented(counts, confidence=0.95, all_values=True)
    assert every["value"].tolist() == ["bob", "ann", "eve"]
    assert every["lift"].iloc[-1] < 1


def test_many_numbers_are_counted_by_ranges() -> None:
    rng = np.random.default_rng(4)
    amounts = rng.integers(1, 10_000, 2_000)
    parts = [{"input.amount": int(each), "input.kind": "ab"[each % 2]} for each in amounts]
    bad = [each for each in parts if each["input.amount"] > 9_000]
    baseline = [each for each in parts if each["input.amount"] <= 9_000]
    counts = count_parts(bad, baseline)
    assert sum(each.bad for each in counts if each.field == "input.amount") == len(bad)
    assert sum(each.baseline for each in counts if each.field == "input.amount") == len(baseline)
    ((_, value),) = {hit for hit in found(counts) if hit[0] == "input.amount"}
    low, high = (float(each) for each in value.split(" to "))
    assert low == pytest.approx(9_000, abs=250)
    assert high == amounts.max()
    # Few different numbers are counted one by one, and so are true and false.
    few = count_parts([{"n": 1, "b": True}] * 5, [{"n": 2, "b": False}] * 5)
    assert {(each.field, each.value) for each in few} == {
        ("n", "1"),
        ("n", "2"),
        ("b", "True"),
        ("b", "False"),
    }


def test_fields_and_values_of_inputs_are_bounded() -> None:
    hostile = [{f"input.{n}": n for n in range(5_000)}, {"input.text": "x" * 10_000}]
    counts = count_parts(hostile * 5, [{"input.text": "y" * 10_000}] * 5)
    assert len({each.field for each in counts}) <= 100
    assert all(len(each.value) <= 200 for each in counts)
    infinite = [{"input.x": value} for value in (math.inf, -math.inf, math.nan, 10**9_000)] * 9
    assert {each.field for each in count_parts(infinite, infinite)} == {"input.x"}


# On databases

FILTERS = {
    "name": "name",
    "app_version": "app_version",
    "application_name": "application_name",
    "executor_id": "executor_id",
    "user": "authenticated_user",
    "schedule_name": "schedule_name",
}


def test_counts_are_those_of_the_rows(shop: dn.Client) -> None:
    assert check_counts(shop, "SUCCESS") > 5


def check_counts(db: dn.Client, word: str) -> int:
    """Compare what a contrast counts with the rows, and return how many values it has."""
    runs = db.workflows(limit=None)
    bad = runs[runs["status"] == word]
    baseline = runs[
        runs["name"].isin(bad["name"].unique())
        & runs["created_at"].between(bad["created_at"].min(), bad["created_at"].max())
        & ~runs["status"].isin([word, "ENQUEUED", "DELAYED"])
    ]
    frame = db.contrast({"status": word}, all_values=True, confidence=0.5)
    for row in frame.itertuples():
        erased = row.field == "queue_name"
        sides = [
            side[~side["status"].isin(["CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])]
            if erased
            else side
            for side in (bad, baseline)
        ]
        assert (row.of_bad, row.of_baseline) == tuple(len(side) for side in sides)
        counted = [sum(value == row.value for value in values(side, row.field)) for side in sides]
        assert [row.bad, row.baseline] == counted, row
    return len(frame)


def values(runs: pd.DataFrame, field: str) -> list[str]:
    """Return the values of a field of the runs as strings."""
    if field.startswith("attributes."):
        key = field.partition(".")[2]
        listed = [each.get(key) for each in runs["attributes"] if isinstance(each, dict)]
        return [json.dumps(each) if isinstance(each, bool) else str(each) for each in listed]
    if field == "hour":
        return runs["created_at"].dt.strftime("%Y-%m-%d %H:00").tolist()
    if field == "hour_of_day":
        return runs["created_at"].dt.strftime("%H:00").tolist()
    return [str(each) for each in runs[FILTERS.get(field, field)]]


HOUR = 3_600_000
BEGIN = 1_790_000_000_000 // HOUR * HOUR


def planted() -> list[tuple[Any, ...]]:
    """Return rows of 600 runs over three days; those of one customer that are vip fail."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(600):
        region, vip = ("eu", "us", "ap")[rng.integers(3)], bool(rng.random() < 0.2)
        customer, amount = f"c-{rng.integers(20)}", int(rng.integers(1, 1_000))
        failed = vip and region == "eu"
        attributes = {"region": region, "vip": vip, "seats": int(rng.integers(3)), "tags": [1]}
        argument = {"customer": customer, "amount": amount + (5_000 if failed else 0)}
        status = "ERROR" if failed else ("SUCCESS", "SUCCESS", "CANCELLED", "ENQUEUED")[number % 4]
        queue = None if status == "CANCELLED" else "orders"
        text = json.dumps({"positionalArgs": [argument], "namedArgs": {}})
        created = BEGIN + int(rng.integers(0, 72 * HOUR))
        identity = f"p-{number}"
        rows.append((identity, status, "order", created, queue, json.dumps(attributes), text))
    return rows


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def orders(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[dn.Client]:
    """The corpus's database with the planted runs."""
    insert = (
        "INSERT INTO {}workflow_status (workflow_uuid, status, name, created_at, updated_at, "
        "queue_name, attributes, serialization) VALUES ({})"
    )
    payload = "INSERT INTO {}workflow_input (workflow_uuid, inputs) VALUES ({})"
    rows = planted()
    runs = [(*row[:4], row[3], *row[4:6], "portable_json") for row in rows]
    texts = [(row[0], row[6]) for row in rows]
    if request.param == "sqlite":
        path: Any = tmp_path_factory.mktemp("orders") / "orders.sqlite"
        shutil.copyfile(request.getfixturevalue("old_sqlite"), path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany(insert.format("", ",".join("?" * 8)), runs)
            connection.executemany(payload.format("", "?, ?"), texts)
    else:
        path = request.getfixturevalue("corpus_postgres")("3.4.0")
        with psycopg.connect(path) as connection:
            cursor = connection.cursor()
            cursor.executemany(insert.format("dbos.", ",".join(["%s"] * 8)).encode(), runs)
            cursor.executemany(payload.format("dbos.", "%s, %s").encode(), texts)
    with dn.connect(path) as db:
        yield db


def test_counts_of_planted_runs_are_those_of_the_rows(orders: dn.Client) -> None:
    assert check_counts(orders, "ERROR") > 20


def test_attributes_of_bad_runs(orders: dn.Client) -> None:
    frame = orders.contrast({"status": "ERROR", "name": "order"})
    assert list(zip(frame["field"], frame["value"], strict=True)) == [
        ("attributes.vip", "true"),
        ("attributes.region", "eu"),
    ]
    text = str(STRING_DTYPE.__name__ if STRING_DTYPE is object else STRING_DTYPE)
    assert dict(frame.dtypes.astype(str)) == {
        name: text if dtype == "text" else dtype for name, dtype in COLUMNS.items()
    }
    # All bad runs are of vips in Europe.
    assert frame["share_bad"].tolist() == [1.0, 1.0]
    assert frame.attrs["dbos_notebook"] == "contrast"


def test_a_frame_of_runs_and_another_baseline(orders: dn.Client) -> None:
    bad = orders.workflows(status="ERROR", name="order", limit=None)
    by_ids = orders.contrast(bad)
    pd.testing.assert_frame_equal(by_ids, orders.contrast({"status": "ERROR", "name": "order"}))
    vips = orders.contrast(bad, {"attributes": {"vip": True}, "name": "order"})
    assert vips.loc[0, ["field", "value"]].tolist() == ["attributes.region", "eu"]
    assert not vips["field"].eq("attributes.vip").any()
    succeeded = orders.contrast(bad, {"status": "SUCCESS"}, name="order", all_values=True)
    assert succeeded["of_baseline"].max() == len(orders.workflows(status="SUCCESS", name="order"))


def test_what_was_erased_is_not_a_cause(orders: dn.Client) -> None:
    """Cancelling clears the queue."""
    frame = orders.contrast({"status": "SUCCESS", "name": "order"}, {"status": "CANCELLED"})
    assert "queue_name" not in set(frame["field"])


def test_inputs_are_decoded_on_request(orders: dn.Client) -> None:
    frame = orders.contrast({"status": "ERROR", "name": "order"}, inputs=True)
    amounts = frame[frame["field"] == "input.0.amount"]
    assert len(amounts) == 1
    assert float(amounts["value"].iloc[0].split(" to ")[1]) > 5_000
    assert "input.0.customer" not in set(frame["field"])
    assert not frame["field"].str.startswith("input").all()


def test_inputs_are_bounded(orders: dn.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_INPUTS == 2_000
    monkeypatch.setattr("dbos_notebook.analysis.contrast.MAX_INPUTS", 30)
    frame = orders.contrast(
        {"status": "ERROR", "name": "order"}, inputs=True, all_values=True, confidence=0.5
    )
    own = frame[frame["field"].str.startswith("input.")]
    assert set(own["of_bad"]) == set(own["of_baseline"]) == {30}
    monkeypatch.setattr("dbos_notebook.analysis.contrast.MAX_INPUT_CHARACTERS", 10)
    frame = orders.contrast({"status": "ERROR", "name": "order"}, inputs=True, all_values=True)
    assert not frame["field"].str.startswith("input.").any()


def test_what_selects_nothing_gives_an_empty_frame(orders: dn.Client) -> None:
    expected = orders.contrast({"status": "ERROR", "name": "order"}).dtypes
    for bad, baseline in (
        ({"name": "no such"}, None),
        ([], None),
        ({}, None),
        ({"status": "ERROR"}, {"name": "no such"}),
    ):
        frame = orders.contrast(bad, baseline, inputs=True, all_values=True)
        assert frame.empty
        pd.testing.assert_series_equal(frame.dtypes, expected)


def test_unknown_filters_are_refused(orders: dn.Client) -> None:
    with pytest.raises(dn.FilterError, match="Did you mean 'status'"):
        orders.contrast({"statsu": "ERROR"})
    with pytest.raises(dn.FilterError, match=r"bad and .* have status='SUCCESS'. Give it once"):
        orders.contrast({"status": "ERROR"}, status="SUCCESS")
    with pytest.raises(dn.FilterError, match="confidence=1 must be"):
        orders.contrast({"status": "ERROR"}, confidence=1)


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0"])
def test_older_databases(
    corpus_sqlite: Callable[[str], Path], corpus_postgres: Callable[[str], str], version: str
) -> None:
    frames = []
    for database in (corpus_sqlite(version), corpus_postgres(version)):
        with dn.connect(database) as db:
            frame = db.contrast({"name": "checkout"}, {}, inputs=True, all_values=True)
            assert ("name", "checkout") in set(zip(frame["field"], frame["value"], strict=True))
            frames.append(frame[~frame["field"].isin(["hour", "executor_id"])])
    pd.testing.assert_frame_equal(*(each.reset_index(drop=True) for each in frames))
