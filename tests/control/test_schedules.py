"""Schedules that were written by hand: no context may run, whatever comes between."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

import pytest
from raw_rows import write

import dbos_notebook as dn


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object]]:
        return Path.touch, (self.path,)


def text(value: object) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def add(db: dn.Client, cron: str = "0 0 * * *", zone: str | None = None) -> None:
    """Write a schedule named daily."""
    write(
        db,
        "INSERT INTO {}workflow_schedules (schedule_id, schedule_name, workflow_name, schedule, "
        "status, context, cron_timezone) VALUES ('i', 'daily', 'tidy', ?, 'ACTIVE', ?, ?)",
        cron,
        text({"retries": 3}),
        zone,
    )


def set_context(db: dn.Client, context: str) -> None:
    write(db, "UPDATE {}workflow_schedules SET context = ?", context)


@pytest.mark.parametrize("late", [False, True], ids=["after the plan", "after the last look"])
@pytest.mark.parametrize("operation", ["backfill", "trigger"])
def test_a_context_stored_after_the_plan_is_not_run(
    idle_db: dn.Client, tmp_path: Path, operation: str, late: bool
) -> None:
    add(idle_db)
    evil = text(Payload(tmp_path / "ran"))
    if operation == "backfill":
        plan = idle_db.backfill_schedule("daily", "2d", plan=True)
    else:
        plan = idle_db.trigger_schedule("daily", plan=True)
    assert plan.counts["ready"]
    if late:
        call = plan.operation.call

        def swap_then_call(client: object, items: object) -> object:
            set_context(idle_db, evil)
            return call(client, items)  # type: ignore[arg-type]

        object.__setattr__(plan.operation, "call", swap_then_call)
        with pytest.raises(dn.PartialFailureError, match="names classes") as caught:
            plan.apply()
        receipt = caught.value.receipt
        assert set(receipt.to_frame()["outcome"]) <= {"failed", "unchanged"}
    else:
        set_context(idle_db, evil)
        receipt = plan.apply()
        assert set(receipt.to_frame()["outcome"]) == {"unchanged"}
        assert receipt.to_frame()["detail"].str.startswith("refused: its context names").all()
    assert not (tmp_path / "ran").exists()
    assert idle_db.workflows(workflow_id_prefix="sched-").empty


def test_a_changed_schedule_is_not_backfilled_by_an_old_plan(idle_db: dn.Client) -> None:
    add(idle_db)
    plan = idle_db.backfill_schedule("daily", "2d", plan=True)
    write(idle_db, "UPDATE {}workflow_schedules SET cron_timezone = 'Asia/Tokyo'")
    receipt = plan.apply()
    assert set(receipt.to_frame()["outcome"]) == {"unchanged"}
    assert receipt.to_frame()["detail"].str.contains("has changed since the plan").all()
    write(idle_db, "DELETE FROM {}workflow_schedules")
    assert set(plan.apply().to_frame()["outcome"]) == {"not_found"}
    assert idle_db.workflows(workflow_id_prefix="sched-").empty


@pytest.mark.parametrize(
    ("cron", "zone", "start", "end"),
    [
        ("0 0 31 2 *", None, "2d", None),
        ("whenever", None, "2d", None),
        ("0 0 * * *", "../../etc/passwd", "2d", None),
        ("0 0 * * *", "No/Where", "2d", None),
        ("0 0 * * *", "America", "2d", None),
        ("0 0 * * *", None, "9999-12-30T00:00:00Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_a_schedule_whose_runs_cannot_be_computed_is_refused(
    idle_db: dn.Client, cron: str, zone: str | None, start: str, end: str | None
) -> None:
    add(idle_db, cron, zone)
    with pytest.raises(dn.RefusedError, match="runs cannot be computed"):
        idle_db.backfill_schedule("daily", start, end)


@pytest.mark.parametrize("name", [["daily"], "da\0ily", "\ud800", " ", None])
def test_an_invalid_schedule_name_is_refused(idle_db: dn.Client, name: str) -> None:
    with pytest.raises(dn.FilterError, match="schedule"):
        idle_db.backfill_schedule(name, "2d")


def test_a_memo_index_far_away_allocates_no_memory() -> None:
    from dbos_notebook.control.safe_serializer import is_safe_context

    assert is_safe_context(base64.b64encode(b"\x80\x04]q\x00.").decode())
    assert not is_safe_context(base64.b64encode(b"\x80\x04]r\xff\xff\xff\x7f.").decode())
