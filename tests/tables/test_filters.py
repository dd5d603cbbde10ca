"""What a person may write as a filter: times, ages, hostile text, and what is refused."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

import dbos_notebook as dn
from dbos_notebook.tables.aggregates import bucket_ms
from dbos_notebook.tables.filters import TIME_FILTERS, as_epoch_ms, as_seconds, check_filters

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
NOW_MS = 1_795_521_600_000
HOUR = 3_600_000
HOSTILE_IDS = ["o'brien", "100%", "_", "a\\b", "emoji☃", "'; DROP TABLE workflow_status; --", "%s"]


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the process's local time be New York's."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("24h", NOW_MS - 24 * HOUR),
        ("7d", NOW_MS - 7 * 24 * HOUR),
        ("90min", NOW_MS - 90 * 60_000),
        ("1.5h", NOW_MS - 90 * 60_000),
        (dt.timedelta(hours=2), NOW_MS - 2 * HOUR),
        (pd.Timedelta("30s"), NOW_MS - 30_000),
        ("2026-11-24T12:00:00Z", NOW_MS),
        ("2026-11-24T13:00:00+01:00", NOW_MS),
        ("2026-11-24T12:00:00.123456Z", NOW_MS + 123),
        (dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC), NOW_MS),
        (pd.Timestamp("2026-11-24T12:00", tz="UTC"), NOW_MS),
        (pd.Timestamp("2026-11-24T14:00", tz="Europe/Helsinki"), NOW_MS),
    ],
)
def test_times_and_ages(value: object, expected: int) -> None:
    assert as_epoch_ms(value, "start_time", NOW) == expected


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-24T12:00:00",
        dt.datetime(2026, 11, 24, 12),
        pd.Timestamp("2026-11-24T12:00"),
    ],
)
def test_a_time_without_a_zone_is_local_time(new_york: None, value: object) -> None:
    text = value if isinstance(value, str) else str(value)
    theirs = int(dt.datetime.fromisoformat(text).timestamp() * 1000)
    assert theirs == NOW_MS + 5 * HOUR
    assert as_epoch_ms(value, "start_time", NOW) == theirs


def test_a_date_is_its_local_midnight(new_york: None) -> None:
    assert as_epoch_ms(dt.date(2026, 11, 24), "start_time", NOW) == NOW_MS - 7 * HOUR


def test_every_millisecond_is_kept() -> None:
    """Float arithmetic loses one in some, and then a row's own time does not find the row."""
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for milliseconds in range(1_795_493_030_000, 1_795_493_031_000):
        moment = epoch + dt.timedelta(milliseconds=milliseconds)
        assert as_epoch_ms(moment, "start_time", NOW) == milliseconds
        assert as_epoch_ms(pd.Timestamp(moment), "start_time", NOW) == milliseconds


def test_filtering_by_a_rows_own_times_finds_it(db: dn.Client) -> None:
    frame = db.workflows(limit=None)
    for row in frame.itertuples():
        found = db.workflows(start_time=row.created_at, end_time=row.created_at)
        assert row.workflow_id in set(found["workflow_id"])
    finished = frame.dropna(subset=["completed_at"])
    assert len(finished) > 5
    for row in finished.itertuples():
        found = db.workflows(completed_after=row.completed_at, completed_before=row.completed_at)
        assert row.workflow_id in set(found["workflow_id"])


def test_ages_filter_in_the_database(db: dn.Client) -> None:
    newest = db.workflows(limit=None)["created_at"].max()
    since = pd.Timestamp.now(tz="UTC") - newest
    wide, narrow = since + pd.Timedelta(hours=1), since - pd.Timedelta(hours=1)
    assert len(db.workflows(start_time=wide)) > 0
    assert len(db.workflows(start_time=f"{int(wide.total_seconds())}s")) > 0
    if narrow > pd.Timedelta(0):
        assert len(db.workflows(start_time=narrow)) == 0


@pytest.mark.parametrize("name", TIME_FILTERS)
@pytest.mark.parametrize(
    "value",
    ["yesterday", "", "12", "-1h", dt.timedelta(hours=-1), pd.NaT, 1.5, 1795521600, [], True],
)
def test_an_invalid_time_is_refused_with_the_filter_name(name: str, value: object) -> None:
    with pytest.raises(dn.FilterError, match=name):
        check_filters({name: value})


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("start_time", "end_time"),
        ("completed_after", "completed_before"),
        ("dequeued_after", "dequeued_before"),
    ],
)
def test_a_start_after_the_end_is_refused(db: dn.Client, start: str, end: str) -> None:
    with pytest.raises(dn.FilterError, match=start) as raised:
        db.workflows(**{start: "1h", end: "2h"})
    assert end in str(raised.value)
    db.workflows(**{start: "2h", end: "1h"})
    same = "2026-11-24T12:00:00Z"
    db.workflows(**{start: same, end: same})


def test_aware_and_naive_times_may_be_mixed(new_york: None, db: dn.Client) -> None:
    with pytest.raises(dn.FilterError):
        # The naive one is 17:00 UTC.
        db.workflows(start_time=dt.datetime(2026, 11, 24, 12), end_time=NOW)
    db.workflows(start_time=dt.datetime(2026, 11, 24, 6), end_time=NOW)


@pytest.mark.parametrize(
    ("filters", "suggestion"),
    [
        ({"status": "EROR"}, "'ERROR'"),
        ({"status": ["SUCCESS", "CANCELED"]}, "'CANCELLED'"),
        ({"staus": "ERROR"}, "'status'"),
        ({"queue": "slow"}, "'queue_name'"),
        ({"workflow_id": "x"}, "'workflow_ids'"),
    ],
)
def test_an_unknown_filter_suggests_the_nearest_name(
    db: dn.Client, filters: dict[str, object], suggestion: str
) -> None:
    for read in (db.workflows, db.counts):
        with pytest.raises((dn.FilterError, TypeError), match=suggestion):
            read(**filters)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["statsu", ["status", "statsu"]])
def test_an_unknown_column_suggests_the_nearest_name(db: dn.Client, by: object) -> None:
    with pytest.raises(dn.FilterError, match="'status'"):
        db.counts(by=by)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", [5, None])
def test_columns_are_a_name_or_a_list(db: dn.Client, by: object) -> None:
    for read in (db.counts, db.workflow_statistics, db.step_statistics, db.latency_histogram):
        with pytest.raises(dn.FilterError, match=f"by={by} must be a name, or a list of names"):
            read(by=by)  # type: ignore[operator]
    with pytest.raises(dn.FilterError, match="time=5 must be a name"):
        db.counts(bucket="1h", time=5)  # type: ignore[arg-type]
    with pytest.raises(dn.FilterError, match=f"hide={by} must be a name"):
        db.variants(hide=by)  # type: ignore[arg-type]


def test_a_number_names_its_argument(db: dn.Client) -> None:
    for read in (db.tree, db.graph):
        with pytest.raises(dn.FilterError, match=r"depth=-1 must not.* of levels"):
            read("checkout-1", depth=-1)  # type: ignore[operator]
    with pytest.raises(dn.FilterError, match="max_ids must be an integer"):
        db.variants(max_ids=1.5)  # type: ignore[arg-type]
    with pytest.raises(dn.FilterError, match="not 'Steps'"):
        db.explain("Steps")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bucket", "expected"),
    [
        (np.int64(3600), 3_600_000),
        (np.float64(1.001), 1001),
        ("1001ms", 1001),
        (np.timedelta64(1, "h"), 3_600_000),
        (dt.timedelta(milliseconds=19_999), 19_999),
    ],
    ids=str,
)
def test_a_bucket_is_a_number_of_seconds_or_a_duration(bucket: object, expected: int) -> None:
    assert bucket_ms(bucket) == expected


def test_a_duration_may_be_numpys() -> None:
    assert as_seconds(np.timedelta64(90, "m"), "timeout") == 5400
    with pytest.raises(dn.FilterError, match=r"timeout=.*NaT"):
        as_seconds(np.timedelta64("NaT"), "timeout")


@pytest.mark.parametrize(
    "bucket", ["sometimes", "", "-1h", "0h", 0, -5, True, float("inf"), float("nan")]
)
def test_an_invalid_bucket_is_refused(db: dn.Client, bucket: object) -> None:
    with pytest.raises(dn.FilterError):
        db.counts(bucket=bucket)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "filters",
    [
        {"limit": -1},
        {"limit": 1.5},
        {"limit": "10"},
        {"limit": True},
        {"offset": -1},
        {"status": 5},
        {"status": b"ERROR"},
        {"name": [1]},
        {"workflow_ids": pd.DataFrame({"id": ["a"]})},
        {"is_fork": "yes"},
        {"queues_only": 1},
        {"attributes": "tier"},
        {"attributes": {1: 2}},
        {"search": 5},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_type_is_refused(db: dn.Client, filters: dict[str, object]) -> None:
    with pytest.raises(dn.FilterError, match=next(iter(filters))):
        db.workflows(**filters)  # type: ignore[arg-type]


@pytest.mark.parametrize("workflow_id", HOSTILE_IDS)
def test_hostile_ids_match_nothing_and_harm_nothing(db: dn.Client, workflow_id: str) -> None:
    before = len(db.workflows(limit=None))
    assert len(db.workflows(workflow_ids=workflow_id)) == 0
    assert len(db.workflows(workflow_ids=[workflow_id, "checkout-1"])) == 1
    assert len(db.workflows(name=workflow_id)) == 0
    assert len(db.workflows(workflow_id_prefix=workflow_id)) == 0
    assert len(db.workflows(search=workflow_id)) <= before
    for read in (db.steps, db.tree):
        with pytest.raises(dn.WorkflowNotFoundError) as raised:
            read(workflow_id)
        assert repr(workflow_id) in str(raised.value)
    assert len(db.events(workflow_id)) == 0
    assert len(db.workflows(limit=None)) == before


def test_a_nul_is_refused_with_its_value(db: dn.Client) -> None:
    for call in (
        lambda: db.workflows(workflow_ids="a\0b"),
        lambda: db.workflows(workflow_id_prefix="a\0b"),
        lambda: db.workflows(name=["a\0b"]),
        lambda: db.workflows(search="a\0b"),
        lambda: db.steps("a\0b"),
        lambda: db.tree("a\0b"),
        lambda: db.workflows(attributes={"a\0b": "x"}),
        lambda: db.workflows(attributes={"tier": {"deep": ["a\0b"]}}),
    ):
        with pytest.raises(dn.FilterError, match=r"a\\x00b"):
            call()


def test_a_lone_surrogate_does_not_crash(db: dn.Client) -> None:
    """Text that UTF-8 cannot hold is in no database."""
    for filters in ({"workflow_ids": "\ud800"}, {"search": "\ud800"}, {"name": ["x", "\ud800"]}):
        with pytest.raises(dn.FilterError, match="ud800"):
            db.workflows(**filters)  # type: ignore[arg-type]


def test_a_search_finds_errors_that_contain_the_text_and_no_others(db: dn.Client) -> None:
    """Errors are base64 of pickles, in which a character depends on its neighbours."""
    failed = db.workflows(status="ERROR", limit=None)
    words = failed["error_type"].astype(str) + " " + failed["error_message"].astype(str)
    searched = 0
    for word in set(re.findall(r"\w[\w ]{8,}\w", "\n".join(words))):
        for begin, end in [(0, 3), (1, 5), (2, 7), (0, 8), (3, 10)]:
            text = word[begin:end]
            found = set(db.workflows(error=text, limit=None)["workflow_id"])
            assert found == set(failed["workflow_id"][words.str.contains(text, regex=False)]), text
            # Its neighbours in base64 share some bits with it.
            for other in (text[:-1] + chr(ord(text[-1]) ^ 1), chr(ord(text[0]) ^ 64) + text[1:]):
                if not words.str.contains(other, regex=False).any():
                    assert db.workflows(error=other, limit=None).empty, (text, other)
                    assert db.workflows(search=other, limit=None).empty, (text, other)
                    searched += 1
    assert searched > 5
    # Neither is the encoding itself searched.
    assert db.workflows(error="gASV").empty


def test_many_ids_at_once(db: dn.Client) -> None:
    many = [f"absent-{n}" for n in range(70_000)] + ["checkout-1"]
    assert db.workflows(workflow_ids=many)["workflow_id"].tolist() == ["checkout-1"]
    assert set(db.steps(many)["workflow_id"]) == {"checkout-1"}


def test_status_is_case_insensitive(db: dn.Client) -> None:
    assert len(db.workflows(status="error")) == len(db.workflows(status="ERROR")) > 0


def test_an_unknown_workflow_has_no_tree(db: dn.Client) -> None:
    with pytest.raises(dn.WorkflowNotFoundError, match="absent"):
        db.tree("absent")


@pytest.mark.parametrize("statuses", [["DELAYED", "ENQUEUED", "PENDING"], ["PENDING", "DELAYED"]])
def test_active_statuses_are_found_by_the_partial_indexes(
    statuses: list[str], corpus_postgres: Callable[[str], str]
) -> None:
    with dn.connect(corpus_postgres("3.4.0")) as db, db._store.session() as session:
        condition = db._store.queries.where({"status": statuses})
        statement = sa.select(sa.func.count()).where(*condition)
        # Otherwise a small table is read whole.
        session.rows(sa.select(sa.func.set_config("enable_seqscan", "off", True).label("value")))
        plan = session.explain(statement)
        assert "idx_workflow_status_delayed" in plan
        assert "idx_workflow_status_pending" in plan or "in_flight" in plan
