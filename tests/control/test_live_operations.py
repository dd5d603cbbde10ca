"""Operations on workflows that run in another process."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable

import pandas as pd
import pytest
from live_executors import LiveApplication, until

import dbos_notebook as dn


def status(db: dn.Client, workflow_id: str) -> str:
    found = db.workflows([workflow_id], load_errors=False)
    return str(found["status"].iloc[0]) if len(found) else "none"


def only(receipt: dn.Receipt) -> dict[str, str]:
    """Return the workflow_id row of a receipt."""
    (row,) = receipt.to_frame().to_dict("records")
    return row


def test_cancel_stops_at_the_next_step_and_resume_continues_after_the_last(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("three")
    live.send("v1", "start", name="three", ids=[workflow_id], args=[workflow_id])
    until(lambda: live.effects(workflow_id)[f"held-{workflow_id}"], "the second step runs")
    row = only(live_db.cancel(workflow_id))
    assert (row["outcome"], row["status_before"], row["status_after"]) == (
        "done",
        "PENDING",
        "CANCELLED",
    )
    live.open(workflow_id)
    row = only(live_db.resume(workflow_id))
    assert row["outcome"] == "done"
    assert live_db.wait(workflow_id, timeout=20)["status"].tolist() == ["SUCCESS"]
    # DBOS records nothing of what it has cancelled: the step that ran then runs again, and only it.
    assert live.effects(workflow_id) == {"a": 1, f"held-{workflow_id}": 2, "b": 1, "c": 1}


def test_cancel_removes_work_from_its_queue_and_the_receipt_records_the_queue(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    holder, waiting, delayed = unique_id("holder"), unique_id("waiting"), unique_id("delayed")
    live.send("v1", "enqueue", name="three", ids=[holder], args=[holder], queue="busy")
    until(lambda: live.effects(holder)[f"held-{holder}"], "the queue is held")
    live.send("v1", "enqueue", name="three", ids=[waiting], queue="busy")
    live.send("v1", "delay", name="three", ids=[delayed], queue="busy")
    receipt = live_db.cancel([waiting, delayed])
    frame = receipt.to_frame()
    assert frame["outcome"].tolist() == ["done", "done"]
    assert frame["status_before"].tolist() == ["ENQUEUED", "DELAYED"]
    assert frame["detail"].str.contains("leaves queue 'busy'").all()
    live.open(holder)
    live_db.wait(holder, timeout=20)
    assert not live.effects(waiting)
    # Again: nothing to do, and it says so.
    assert set(live_db.cancel([waiting, delayed]).to_frame()["outcome"]) == {"unchanged"}
    assert only(live_db.cancel(holder))["detail"] == "it has finished: SUCCESS"


def test_resume_starts_an_enqueued_or_delayed_workflow_at_once(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    holder, waiting, delayed = unique_id("holder"), unique_id("waiting"), unique_id("delayed")
    live.send("v2", "enqueue", name="three", ids=[holder], args=[holder], queue="busy")
    until(lambda: live.effects(holder)[f"held-{holder}"], "the queue is held")
    live.send("v2", "enqueue", name="three", ids=[waiting], queue="busy")
    live.send("v2", "delay", name="three", ids=[delayed], queue="busy")
    receipt = live_db.resume([waiting, delayed])
    assert receipt.ok
    assert set(receipt.wait(timeout=20)["status"]) == {"SUCCESS"}
    assert status(live_db, holder) == "PENDING"
    live.open(holder)
    live_db.wait(holder, timeout=20)


def test_cancel_with_children_lists_each_cancelled_child(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("parent")
    live.send("v1", "start", name="parent", ids=[workflow_id], args=[workflow_id])
    until(lambda: live.effects(f"{workflow_id}-2")[f"held-{workflow_id}"], "the child runs")
    plan = live_db.cancel(workflow_id, cancel_children=True, plan=True)
    assert plan.to_frame()["workflow_id"].tolist() == [workflow_id, f"{workflow_id}-2"]
    receipt = plan.apply()
    assert receipt.counts["done"] == 2
    assert {status(live_db, workflow_id), status(live_db, f"{workflow_id}-2")} == {"CANCELLED"}
    live.open(workflow_id)


def test_a_child_that_its_parent_awaits_is_cancelled_and_deleted_only_once_the_parent_has_ended(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    parent = unique_id("parent")
    child = f"{parent}-2"
    live.send("v1", "start", name="parent", ids=[parent], args=[parent])
    until(lambda: live.effects(child)[f"held-{parent}"], "the child runs")
    with pytest.raises(dn.RefusedError, match="it is PENDING: cancel it first"):
        live_db.delete(child, confirm=True)
    (forced,) = live_db.delete(child, force=True, plan=True).items
    assert forced.effect.endswith(
        f"; its parent {parent} is PENDING and waits without end if it awaits this workflow"
    )
    detail = only(live_db.cancel(child))["detail"]
    assert detail.endswith(f"; its parent {parent} is PENDING and fails if it awaits this workflow")
    live.open(parent)
    # The parent has recorded that its child was cancelled, and needs it no more.
    assert live_db.wait(parent, timeout=20)["status"].tolist() == ["ERROR"]
    assert only(live_db.delete(child, confirm=True))["outcome"] == "done"


def test_a_fork_copies_earlier_steps_and_runs_on_the_chosen_version(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("rich")
    live.send("v1", "run", name="rich", ids=[workflow_id])
    receipt = live_db.fork(workflow_id, "failed", application_version="v2", key="rich again")
    new = only(receipt)["new_workflow_id"]
    assert new.startswith("rich-again-")
    (row,) = receipt.wait(timeout=20).to_dict("records")
    assert (row["status"], row["app_version"], row["forked_from"]) == ("SUCCESS", "v2", workflow_id)
    assert live.effects(new) == {"b": 1, "c": 1}
    # What waiting returns is what the list shows, with the causes of failures.
    both = live_db.wait([workflow_id, new], timeout=20)
    listed = live_db.workflows(workflow_ids=[workflow_id, new])
    listed = listed.set_index("workflow_id").loc[both["workflow_id"]].reset_index()
    columns = ["status", "error_type", "error_message", "failed_step", "failed_step_id"]
    pd.testing.assert_frame_equal(both[columns], listed[columns])
    assert both["failed_step"].tolist()[0] == "fragile"
    assert set(live.versions(new).values()) == {"v2"}
    old, forked = live_db.steps(workflow_id), live_db.steps(new)
    assert forked["function_name"].tolist()[:3] == old["function_name"].tolist()[:3]
    assert (forked["started_at"][:3] == old["started_at"][:3]).all()
    assert live_db.events(new)["value"].tolist() == ["two"]
    assert live_db.streams(new)["value"].tolist()[:2] == ["first", "second"]
    assert live_db.events(workflow_id)["value"].tolist() == ["one"]


def test_the_same_key_makes_one_fork(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("rich")
    live.send("v1", "run", name="rich", ids=[workflow_id])
    for number in range(3):
        row = only(live_db.fork(workflow_id, "failed", application_version="v2", key="twice"))
        assert row["outcome"] == ("unchanged" if number else "done")
    assert row["detail"].startswith(f"already forked as {row['new_workflow_id']}, which is ")
    assert len(live_db.workflows(forked_from=workflow_id)) == 1
    # Another key, or another step, is another fork.
    other = only(live_db.fork(workflow_id, "first", application_version="v2", key="twice"))
    assert other["outcome"] == "done"
    assert len(live_db.workflows(forked_from=workflow_id)) == 2


def test_twenty_concurrent_forks_with_one_key_make_one_fork(
    live: LiveApplication,
    live_db: dn.Client,
    unique_id: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # SQLite gives its lock to any of those that wait: on a busy machine, one may wait for long.
    monkeypatch.setattr("dbos_notebook.control.transactions.BUSY_TIMEOUT_SECONDS", 60)
    ids = [unique_id("leaf") for _ in range(5)]
    live.send("v1", "run", name="leaf", ids=ids, args=[1])
    plan = live_db.fork(ids, "failed", application_version="v2", plan=True)
    clients = [dn.connect(live.url) for _ in range(4)]
    receipts: list[dn.Receipt] = []
    start = threading.Barrier(20)

    def same_plan() -> None:
        start.wait()
        receipts.append(plan.apply())

    def same_key(client: dn.Client) -> None:
        start.wait()
        receipt = client.fork(ids, "failed", application_version="v2", key=plan_key)
        assert isinstance(receipt, dn.Receipt)
        keyed.append(receipt)

    plan_key, keyed = unique_id("key"), []
    threads = [threading.Thread(target=same_plan) for _ in range(10)]
    threads += [threading.Thread(target=same_key, args=[clients[i % 4]]) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for client in clients:
        client.close()
    for group in (receipts, keyed):
        assert len(group) == 10
        rows = [row for receipt in group for row in receipt.to_frame().to_dict("records")]
        assert {row["outcome"] for row in rows} == {"done", "unchanged"}
        for workflow_id in ids:
            mine = [row for row in rows if row["workflow_id"] == workflow_id]
            assert [row["outcome"] for row in mine].count("done") == 1
            assert len({row["new_workflow_id"] for row in mine}) == 1
    assert len(live_db.workflows(forked_from=ids)) == 2 * len(ids)


def test_a_stale_plan_is_not_applied(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id, two = unique_id("three"), unique_id("leaf")
    live.send("v1", "start", name="three", ids=[workflow_id], args=[workflow_id])
    live.send("v1", "run", name="leaf", ids=[two], args=[1])
    until(lambda: live.effects(workflow_id)[f"held-{workflow_id}"], "it runs")
    cancel = live_db.cancel(workflow_id, plan=True)
    assert cancel.items[0].verdict == "ready"
    live.open(workflow_id)
    live_db.wait(workflow_id, timeout=20)
    row = only(cancel.apply())
    assert row["outcome"] == "unchanged"
    assert row["detail"] == "it has finished: SUCCESS (when it was planned: PENDING)"
    # And workflow_id that has been deleted meanwhile.
    fork = live_db.fork(two, "failed", plan=True)
    live_db.delete(two, confirm=True)
    assert only(fork.apply())["outcome"] == "not_found"


def test_rewind_runs_the_same_workflow_again(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("rich")
    live.send("v1", "run", name="rich", ids=[workflow_id])
    receipt = live_db.rewind(workflow_id, "fragile", application_version="v2")
    assert only(receipt)["outcome"] == "done"
    assert receipt.wait(timeout=20)["status"].tolist() == ["SUCCESS"]
    assert live.effects(workflow_id) == {"a": 1, "b": 2, "c": 1}
    assert live_db.events(workflow_id)["value"].tolist() == ["two"]


def test_a_rewind_fails_again_as_planned_unless_its_child_is_rewound_first(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("top")
    middle, leaf = f"{workflow_id}-2", f"{workflow_id}-2-2"
    live.send("v1", "run", name="top", ids=[workflow_id], args=[1])
    warning = f"; but step 4 awaits {middle}, whose failure is recorded, and will fail again"
    for call, start in ((live_db.fork, 3), (live_db.rewind, "first"), (live_db.rewind, 3)):
        again = call(workflow_id, start, application_version="v2")
        assert warning in only(again)["detail"]
        assert again.wait(timeout=20)["status"].tolist() == ["ERROR"]
    for one in (leaf, middle, workflow_id):
        rewound = live_db.rewind(one, "failed", application_version="v2")
        assert "will fail again" not in only(rewound)["detail"]
        assert rewound.wait(timeout=20)["status"].tolist() == ["SUCCESS"]


def test_delays_attributes_and_deletion(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id, done = unique_id("delayed"), unique_id("three")
    live.send(
        "v2",
        "delay",
        name="three",
        ids=[workflow_id],
        queue="free",
        attributes={"tenant": "a", "tier": 1},
    )
    live.send("v2", "run", name="three", ids=[done])
    row = only(live_db.set_delay(workflow_id, until="2035-01-01T00:00:00Z"))
    assert row["outcome"] == "done"
    assert str(live_db.workflows(workflow_id)["delay_until"].iloc[0]) == "2035-01-01 00:00:00+00:00"
    assert (
        only(live_db.set_delay(workflow_id, until="2035-01-01T00:00:00Z"))["outcome"] == "unchanged"
    )
    assert only(live_db.set_delay(done, 5))["detail"].startswith("only a DELAYED workflow")
    assert only(live_db.set_attributes(workflow_id, {"tier": 2}, merge=True))["outcome"] == "done"
    assert live_db.workflows(workflow_id)["attributes"].iloc[0] == {"tenant": "a", "tier": 2}
    assert "removes tenant" in only(live_db.set_attributes(workflow_id, {"tier": 3}))["detail"]
    assert live_db.workflows(workflow_id)["attributes"].iloc[0] == {"tier": 3}
    with pytest.raises(dn.RefusedError, match="it is DELAYED: cancel it first, or pass force=True"):
        live_db.delete(workflow_id, confirm=True)
    assert live_db.cancel(workflow_id).ok
    with pytest.raises(dn.ConfirmationError, match="delete would permanently remove 1"):
        live_db.delete(workflow_id)
    assert only(live_db.delete(workflow_id, confirm=True))["outcome"] == "done"
    assert status(live_db, workflow_id) == "none"
    assert live_db.steps([workflow_id]).empty


def test_a_delay_of_zero_starts_the_workflow(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("delayed")
    live.send("v2", "delay", name="three", ids=[workflow_id], queue="free")
    assert only(live_db.set_delay(workflow_id, 0))["outcome"] == "done"
    assert live_db.wait(workflow_id, timeout=20)["status"].tolist() == ["SUCCESS"]


def test_schedules_are_paused_resumed_triggered_backfilled_and_deleted(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    name = unique_id("yearly")
    live.send("v2", "schedule", name=name, cron="0 0 1 1 *", context={"a": 1})
    schedule = lambda: live_db.schedules().set_index("schedule_name").loc[name, "status"]  # noqa: E731
    assert only(live_db.pause_schedule(name))["outcome"] == "done"
    assert schedule() == "PAUSED"
    assert only(live_db.pause_schedule(name))["detail"] == "it is already PAUSED"
    triggered = live_db.trigger_schedule(name)
    assert only(triggered)["detail"].startswith("enqueues scheduled once, now; the schedule stays")
    assert triggered.wait(timeout=20)["status"].tolist() == ["SUCCESS"]
    assert only(live_db.resume_schedule(name))["outcome"] == "done"
    assert schedule() == "ACTIVE"
    years = ("2021-06-01T00:00:00Z", "2024-06-01T00:00:00Z")
    filled = live_db.backfill_schedule(name, *years)
    runs = [f"sched-{name}-{year}-01-01T00:00:00+00:00" for year in (2022, 2023, 2024)]
    assert filled.to_frame()["workflow_id"].tolist() == runs
    assert filled.counts["done"] == 3
    assert set(filled.wait(timeout=20)["status"]) == {"SUCCESS"}
    assert live_db.backfill_schedule(name, *years).counts["unchanged"] == 3
    with pytest.raises(dn.ConfirmationError):
        live_db.delete_schedule(name)
    assert only(live_db.delete_schedule(name, confirm=True))["outcome"] == "done"
    with pytest.raises(dn.ScheduleNotFoundError):
        live_db.pause_schedule(name)


def test_a_schedule_whose_context_would_run_code_is_refused(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    name = unique_id("opaque")
    live.send("v2", "schedule", name=name, cron="0 0 1 1 *", context="object")
    with pytest.raises(dn.RefusedError, match="unpickle"):
        live_db.trigger_schedule(name)
    with pytest.raises(dn.RefusedError, match="unpickle"):
        live_db.backfill_schedule(name, "2021-06-01T00:00:00Z")
    assert live_db.trigger_schedule(name, force=True).ok
    live_db.delete_schedule(name, confirm=True)


def test_control_in_an_event_loop_and_in_a_thread_emits_no_warning(
    live: LiveApplication,
    live_db: dn.Client,
    unique_id: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = [unique_id("delayed") for _ in range(3)]
    live.send("v2", "delay", name="three", ids=ids, queue="free")
    receipts = []

    async def cell() -> None:
        receipts.append(live_db.cancel(ids[0]))
        receipts.append(await asyncio.to_thread(live_db.cancel, ids[1]))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(cell())
        receipts.append(live_db.cancel(ids[2]))
    assert [only(receipt)["outcome"] for receipt in receipts] == ["done"] * 3
    assert [r.name for r in caplog.records if r.levelname != "INFO"] == []


def test_will_run_distinguishes_running_from_dead_executors(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("leaf")
    live.send("v1", "run", name="leaf", ids=[workflow_id], args=[1])
    live.send("v2", "run", name="three", ids=[unique_id("three")])

    def will_run(**options: str) -> str:
        return str(live_db.fork(workflow_id, "failed", plan=True, **options).items[0].will_run)

    assert will_run(application_version="v2").startswith("likely: version v2 was last active")
    assert will_run().startswith("likely: version v2 (the latest)")
    assert will_run(application_version="v9") == (
        "unlikely. Version v2 is alive: fork with application_version='v2'. "
        "Reason: no executor has registered version v9 (registered: v2, v1)"
    )
    assert "runs 1 at a time" in will_run(queue_name="busy")
    assert will_run(queue_name="nowhere").startswith(
        "unknown: no queue 'nowhere' is registered in the database; version v2 (the latest)"
    )
    receipt = live_db.fork(workflow_id, "failed", application_version="v9")
    assert "unlikely" in only(receipt)["detail"]
    assert "wait for an executor" in repr(receipt)
    live_db.cancel(only(receipt)["new_workflow_id"])
