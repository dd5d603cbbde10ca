"""Due times are those of DBOS's own scheduler; missed is only what was certainly due."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import pytest
from dbos._scheduler import backfill_schedule
from written_runs import WrittenDatabase, run

import dbos_notebook as dn

ROME = "Europe/Rome"


def schedule(cron: str, zone: str | None = None, **values: Any) -> dict[str, Any]:
    row = {"schedule_id": "s", "schedule_name": "nightly", "workflow_name": "load", "context": ""}
    return row | {"schedule": cron, "cron_timezone": zone, "status": "ACTIVE"} | values


def fired(
    due: dt.datetime, late: int = 1_000, lasted: int = 60_000, **values: Any
) -> dict[str, Any]:
    """Return a run as DBOS's scheduler enqueues it; ``late`` and ``lasted`` are milliseconds."""
    at = round(due.timestamp() * 1000)
    row = run(
        "",
        at + late // 2,
        schedule_name="nightly",
        started_at_epoch_ms=at + late,
        completed_at=at + late + lasted,
        queue_name="_dbos_internal_queue",
    )
    return row | {"workflow_uuid": f"sched-nightly-{due.isoformat()}"} | values


def hours_ago(hours: int) -> dt.datetime:
    """Return the start of an hour in the past."""
    now = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    return now - dt.timedelta(hours=hours)


class _Recorder:
    """What ``dbos._scheduler.backfill_schedule`` needs of a system database, for the IDs alone."""

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row
        self.serializer = self

    def deserialize(self, _: str) -> None:
        return None

    def get_schedule(self, _: str) -> dict[str, Any]:
        return {**self._row, "workflow_class_name": None}

    def get_workflow_status(self, _: str) -> bool:
        return True  # it exists, so that nothing is enqueued


@pytest.mark.parametrize(
    ("cron", "zone", "start", "end"),
    [
        # The nights in which the clocks change, and one in which they do not.
        ("30 2 * * *", ROME, "2026-03-27", "2026-03-31"),
        ("30 2 * * *", ROME, "2025-10-24", "2025-10-28"),
        ("*/20 * * * *", ROME, "2026-03-28T23:00", "2026-03-29T04:00"),
        ("*/20 * * * *", ROME, "2025-10-25T23:00", "2025-10-26T04:00"),
        ("*/30 * * * * *", None, "2026-01-01T00:00", "2026-01-01T00:10"),
        ("0 9 * * MON", "America/New_York", "2026-01-01", "2026-04-01"),
    ],
)
def test_all_runs_that_dbos_would_start_are_found(
    written: WrittenDatabase, cron: str, zone: str | None, start: str, end: str
) -> None:
    row = schedule(cron, zone)
    first, last = (dt.datetime.fromisoformat(each).replace(tzinfo=dt.UTC) for each in (start, end))
    ids = backfill_schedule(_Recorder(row), "nightly", first, last)  # type: ignore[arg-type] # what it needs
    prefix = "sched-nightly-"
    due = [dt.datetime.fromisoformat(each.removeprefix(prefix)) for each in ids]
    written.write([fired(time) for time in due], workflow_schedules=[row])
    with dn.connect(written.url) as db:
        frame = db.landing_times(
            "nightly", start_time=first + dt.timedelta(seconds=1), end_time=last
        )
        rows = db.workflows(ids, limit=None).set_index("workflow_id")
    frame = frame[frame["due_at"] < last]
    assert frame["workflow_id"].tolist() == sorted(
        ids, key=lambda each: dt.datetime.fromisoformat(each.removeprefix(prefix))
    )
    assert len(frame) > 3
    assert not frame["missed"].any()
    assert frame["lateness"].eq(pd.Timedelta("1s")).all()
    assert frame["landing_time"].eq(pd.Timedelta("61s")).all()
    found = frame.set_index("workflow_id")
    for name, column in (
        ("created_at", "created_at"),
        ("ended_at", "completed_at"),
        ("duration",) * 2,
    ):
        assert found[name].tolist() == rows.loc[found.index, column].tolist()


def test_missed_is_only_what_was_certainly_due(written: WrittenDatabase) -> None:
    runs = [fired(hours_ago(hours)) for hours in (10, 9, 7, 6)]
    # Neither is a run that was due.
    trigger = f"sched-nightly-trigger-{hours_ago(8).isoformat()}"
    runs.append(fired(hours_ago(8), workflow_uuid=trigger))
    other = {"workflow_uuid": f"sched-nightly-b-{hours_ago(5).isoformat()}"}
    runs.append(fired(hours_ago(5), **other, schedule_name="nightly-b"))
    written.write(runs, workflow_schedules=[schedule("0 * * * *")])
    with dn.connect(written.url) as db:
        frame = db.landing_times("nightly", start_time=hours_ago(12), end_time=hours_ago(4))
        assert frame["due_at"].tolist() == [hours_ago(hours) for hours in range(12, 3, -1)]
        # Nothing is known of the time before its first run.
        expected = [pd.NA, pd.NA, False, False, True, False, False, True, True]
        assert frame["missed"].tolist() == expected
        assert "3 missed, as dashed lines" in dn.plot(frame).svg
        assert frame["note"].iloc[0].startswith("before the oldest run was created")
        # In a window that begins later, the oldest run is still known.
        assert db.landing_times("nightly", start_time=hours_ago(5), end_time=hours_ago(4))[
            "missed"
        ].tolist() == [True, True]

        written.write(runs, workflow_schedules=[schedule("0 * * * *", status="PAUSED")])
        paused = db.landing_times("nightly", start_time=hours_ago(12), end_time=hours_ago(4))
        assert paused["missed"].tolist() == [*expected[:7], pd.NA, pd.NA]
        assert "paused" in paused["note"].iloc[-1]

        written.write([], workflow_schedules=[schedule("0 * * * *")])
        new = db.landing_times("nightly", start_time=hours_ago(12))
        assert len(new) == 13
        assert new["missed"].isna().all()
        assert new.dtypes.to_dict() == frame.dtypes.to_dict()


def test_a_former_expression_is_recognized(written: WrittenDatabase) -> None:
    """It was due at half past until six hours ago."""
    half = dt.timedelta(minutes=30)
    runs = [fired(hours_ago(hours) + half) for hours in (10, 9, 8, 7)]
    runs += [fired(hours_ago(hours)) for hours in (5, 3)]
    written.write(runs, workflow_schedules=[schedule("0 * * * *")])
    with dn.connect(written.url) as db:
        frame = db.landing_times("nightly", start_time=hours_ago(9), end_time=hours_ago(3))
    missed = dict(zip(frame["due_at"], frame["missed"], strict=True))
    assert not missed[hours_ago(9) + half]
    assert pd.isna(missed[hours_ago(8)])
    assert missed[hours_ago(4)]
    assert not missed[hours_ago(3)]


def test_a_backfill_does_not_show_that_the_schedule_existed(written: WrittenDatabase) -> None:
    created = round(hours_ago(3).timestamp() * 1000)
    runs = [fired(hours_ago(hours), created_at=created + hours) for hours in (9, 8)]
    written.write([*runs, fired(hours_ago(2))], workflow_schedules=[schedule("0 * * * *")])
    with dn.connect(written.url) as db:
        frame = db.landing_times("nightly", start_time=hours_ago(9), end_time=hours_ago(1))
    assert frame["missed"].tolist() == [False, False, *[pd.NA] * 5, False, True]


def test_a_paused_schedule_missed_what_was_due_before_it_fired_last(
    written: WrittenDatabase,
) -> None:
    paused = schedule("0 * * * *", status="PAUSED", last_fired_at=hours_ago(3).isoformat())
    written.write([fired(hours_ago(6))], workflow_schedules=[paused])
    with dn.connect(written.url) as db:
        frame = db.landing_times("nightly", start_time=hours_ago(6), end_time=hours_ago(1))
    assert frame["missed"].tolist() == [False, True, True, True, pd.NA, pd.NA]


def test_what_is_due_now_is_not_missed_yet(written: WrittenDatabase) -> None:
    every_second = schedule("* * * * * *")
    written.write([fired(hours_ago(2))], workflow_schedules=[every_second])
    with dn.connect(written.url) as db:
        frame = db.landing_times("nightly", start_time="5min")
        with pytest.raises(dn.FilterError, match="is due over 100,000 times"):
            db.landing_times("nightly", start_time="2d")
    assert 299 <= len(frame) <= 301
    assert frame["missed"].isna().sum() == pytest.approx(60, abs=2)
    assert frame["missed"].iloc[0]


def test_runs_that_have_not_ended_or_were_cancelled(written: WrittenDatabase) -> None:
    waiting = {"status": "ENQUEUED", "started_at_epoch_ms": None, "completed_at": None}
    cancelled = {"status": "CANCELLED", "started_at_epoch_ms": None, "queue_name": None}
    runs = [
        fired(hours_ago(3), **cancelled),
        fired(hours_ago(2), status="PENDING", completed_at=None),
        fired(hours_ago(1), **waiting, recovery_attempts=0),
    ]
    written.write(runs, workflow_schedules=[schedule("0 * * * *")])
    with dn.connect(written.url) as db:
        frame = db.landing_times("nightly", start_time=hours_ago(3), end_time=hours_ago(1))
    assert frame["status"].tolist() == ["CANCELLED", "PENDING", "ENQUEUED"]
    assert frame["lateness"].isna().tolist() == [True, False, True]
    assert frame["landing_time"].isna().tolist() == [False, True, True]
    assert frame["missed"].tolist() == [False] * 3


def test_wrong_arguments_are_refused(written: WrittenDatabase) -> None:
    written.write([], workflow_schedules=[schedule("0 * * * *")])
    with dn.connect(written.url) as db:
        with pytest.raises(dn.ScheduleNotFoundError, match=r"'nightl'. Did you mean 'nightly'"):
            db.landing_times("nightl")
        with pytest.raises(dn.FilterError, match="is later than end_time="):
            db.landing_times("nightly", start_time="1d", end_time="2d")
        for cron, zone in (("every day", None), ("0 * * * *", "Mars/Base")):
            written.write([], workflow_schedules=[schedule(cron, zone)])
            with pytest.raises(dn.FilterError, match="cannot be computed"):
                db.landing_times("nightly")
        written.write()
        with pytest.raises(dn.ScheduleNotFoundError, match="stores no schedule"):
            db.landing_times("nightly")
