"""Messages to running workflows: which ones wait for one, and that an answer arrives once."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable

import pandas as pd
import pytest
from live_executors import LiveApplication, until
from raw_rows import write

import dbos_notebook as dn

UniqueId = Callable[[str], str]


def waiting(db: dn.Client, workflow_id: str) -> dict[str, object] | None:
    """Return the row of a workflow in the list of those that wait for a message."""
    frame = db.awaiting_messages()
    rows = frame[frame["workflow_id"] == workflow_id].to_dict("records")
    return {str(name): value for name, value in rows[0].items()} if rows else None


def ask(live: LiveApplication, db: dn.Client, workflow_id: str) -> dict[str, object]:
    """Start a workflow that waits for a message; return its row once it waits."""
    live.send("v2", "start", name="approval", ids=[workflow_id])
    row: dict[str, object] = until(lambda: waiting(db, workflow_id), "the workflow waits")
    return row


def test_a_waiting_run_is_answered_once(
    live: LiveApplication, live_db: dn.Client, unique_id: UniqueId
) -> None:
    first, second = unique_id("asks"), unique_id("asks")
    row = ask(live, live_db, first)
    assert (row["name"], row["function_id"], row["unread"]) == ("approval", 3, 0)
    assert (row["event_key"], row["event"]) == ("question", "May it be sent?")
    assert row["app_version"] == "v2"
    timeout = pd.Timestamp(str(row["timeout_at"])) - pd.Timestamp(str(row["since"]))
    assert abs(timeout - dt.timedelta(seconds=600)) < dt.timedelta(seconds=5)

    answer = {
        "approved": True,
        "by": ["ann", "bob"],
        "total": 9.5,
        "note": "naïve \N{OK HAND SIGN}",
    }
    plan = live_db.send(first, answer, "approval", plan=True)
    (item,) = plan.items
    assert item.effect.startswith(
        "answers step 3 only if it waits for topic 'approval', where it appears to wait until "
    )
    assert item.effect.endswith("; DBOS does not record the topic it waits for")
    assert not plan.notes
    untold = live_db.send(first, answer, plan=True)
    assert untold.items[0].effect.startswith("answers step 3 only if it waits without a topic,")
    assert untold.notes[0].startswith("⚠ The topic of the wait is not known")
    assert str(item.will_run).startswith("likely")
    assert live_db.messages(first).empty
    assert plan.apply().counts["done"] == 1
    assert plan.apply().counts["unchanged"] == 1
    assert live_db.wait(first, timeout=20)["status"].tolist() == ["SUCCESS"]
    assert live_db.workflow(first).output == answer
    assert len(live_db.messages(first)) == 1
    assert waiting(live_db, first) is None

    # The topic of a wait is not recorded, but an earlier run received one at this step.
    row = ask(live, live_db, second)
    assert row["topic"] == "approval"
    assert "earlier runs received 'approval' there" in str(row["evidence"])
    (item,) = live_db.send(second, answer, "aproval", plan=True).items
    assert item.effect == (
        "stored, but probably not received: it waits at step 3, where earlier runs received "
        "'approval', not 'aproval'"
    )
    plan = live_db.send(second, answer, plan=True)
    assert plan.notes == [
        "⚠ 1 would probably not receive it: earlier runs received 'approval' there, not a message "
        "without a topic."
    ]
    # The view that sent it tells that it has not arrived.
    click = {"key": "click", "request": "r", "action": "send", "ids": [second]}
    view = live_db.controls([second])
    for kind in ("plan", "apply", "progress"):
        reply = view.answer({**click, "kind": kind, "options": {"message": "1"}})
    assert reply["text"] == "running; still waiting: the message has not been received"
    for _ in range(2):
        receipt = live_db.send(second, False, "approval", idempotency_key="answer")
    assert receipt.lines[0].detail == (
        "a message with the idempotency key 'answer' was sent to it already"
    )
    assert live_db.wait(second, timeout=20)["status"].tolist() == ["SUCCESS"]
    assert live_db.workflow(second).output is False
    assert live_db.history()["action"].tolist() == ["send"] * 5
    with pytest.raises(dn.RefusedError, match=r"it has finished \(SUCCESS\)"):
        live_db.send(second, True, "approval")


def test_only_a_recorded_timeout_without_its_step_appears_to_wait(
    live: LiveApplication, live_db: dn.Client, unique_id: UniqueId
) -> None:
    naps, event, short = unique_id("naps"), unique_id("event"), unique_id("short")
    live.send("v2", "start", name="naps", ids=[naps])
    live.send("v2", "start", name="awaits_event", ids=[event], args=[naps])
    live.send("v2", "start", name="approval", ids=[short], args=[None, 0.01])
    until(lambda: len(live_db.steps(naps)) == 2, "the workflow sleeps")
    assert live_db.wait(short, timeout=20)["status"].tolist() == ["SUCCESS"]
    # An event is awaited in the same way, and nothing tells the two apart.
    until(lambda: waiting(live_db, event), "the workflow waits for an event")
    ids = live_db.awaiting_messages()["workflow_id"].tolist()
    assert naps not in ids
    assert short not in ids
    (item,) = live_db.send(naps, 1, plan=True).items
    assert item.effect == (
        "stored until it receives it; it does not appear to wait for a message now"
    )
    live_db.cancel([naps, event])


def test_a_plan_does_not_send_a_second_answer(
    live: LiveApplication, live_db: dn.Client, unique_id: UniqueId
) -> None:
    workflow_id = unique_id("asks")
    ask(live, live_db, workflow_id)
    late = live_db.send(workflow_id, "late", "approval", plan=True)
    live_db.send(workflow_id, "first", "approval")
    (line,) = late.apply().lines
    assert line.outcome == "unchanged"
    assert live_db.wait(workflow_id, timeout=20)["status"].tolist() == ["SUCCESS"]
    (line,) = late.apply().lines
    assert (line.outcome, line.status_before) == ("unchanged", "SUCCESS")
    assert live_db.messages(workflow_id)["message"].tolist() == ["first"]


def test_a_message_that_cannot_arrive_is_refused(idle_db: dn.Client) -> None:
    with pytest.raises(dn.WorkflowNotFoundError):
        idle_db.send("nobody", 1)
    with pytest.raises(dn.FilterError, match="cannot be stored as JSON"):
        idle_db.send("queued-1", {1, 2})
    with pytest.raises(dn.FilterError, match="cannot be stored as JSON"):
        idle_db.send("queued-1", float("nan"))
    with pytest.raises(dn.FilterError, match="topic"):
        idle_db.send("queued-1", 1, "")
    with pytest.raises(dn.FilterError, match="idempotency_key must be"):
        idle_db.send("queued-1", 1, idempotency_key=" ")
    with pytest.raises(dn.RefusedError, match="force=True"):
        idle_db.send(["queued-1", "checkout-1"], 1)
    assert idle_db.messages(["queued-1", "checkout-1"]).empty
    receipt = idle_db.send(["queued-1", "checkout-1"], None, force=True, idempotency_key="k")
    assert receipt.ok
    messages = idle_db.messages(["queued-1", "checkout-1"])
    assert sorted(messages["message_id"]) == ["k::checkout-1", "k::queued-1"]
    with dn.connect(str(idle_db.location), read_only=True) as reader:
        with pytest.raises(dn.ReadOnlyError):
            reader.send("queued-1", 1)
        assert isinstance(reader.send("queued-1", 1, plan=True).problem, dn.ReadOnlyError)


@pytest.mark.parametrize(
    ("answer", "described"),
    [
        ("hunter2-secret", "str, 16 bytes of JSON"),
        ({"hunter2-secret": True}, "dict, 24 bytes of JSON"),
        (["a", {"by": "hunter2-secret"}], "list, 31 bytes of JSON"),
        (7_272_727, "int"),
    ],
)
def test_a_message_is_in_no_log_history_plan_or_receipt(
    idle_db: dn.Client, caplog: pytest.LogCaptureFixture, answer: object, described: str
) -> None:
    caplog.set_level(logging.DEBUG)
    plan = idle_db.send("queued-1", answer, "approval", plan=True)
    receipt = plan.apply()
    assert receipt.ok
    # A message that the database refuses is in SQLAlchemy's error, with the statement.
    if idle_db.location.path:
        write(
            idle_db,
            "CREATE TRIGGER no BEFORE INSERT ON notifications BEGIN "
            "SELECT RAISE(ABORT, 'not this one'); END",
        )
    else:
        write(idle_db, "ALTER TABLE {}notifications ADD CHECK (topic <> 'refused')")
    failed = idle_db.send("queued-2", answer, "refused")
    assert failed.counts["failed"] == 1
    shown = [caplog.text, idle_db.history().to_csv(), repr(plan.operation)]
    for table in (plan, receipt, failed):
        shown += [repr(table), table._repr_html_(), table.to_frame().to_csv()]
    shown.append(repr(idle_db.last_receipt()))
    for secret in ("hunter2", "7272727"):
        assert not [text for text in shown if secret in text]
    title = f"message={described!r}, topic='approval'"
    assert title in repr(plan)
    assert f"send({title})" in caplog.text
    assert idle_db.history()["options"].iloc[0] == title
    # It was sent as it is.
    assert idle_db.messages("queued-1")["message"].tolist() == [answer]


def test_a_message_that_cannot_be_stored_is_not_in_the_error(idle_db: dn.Client) -> None:
    for answer in ({"token": "hunter2", "at": object()}, ["hunter2", "\ud800"]):
        with pytest.raises(dn.FilterError, match="cannot be stored as JSON: ") as caught:
            idle_db.send("queued-1", answer, plan=True)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("answer", ["Robert'); DROP TABLE", "<img src=x onerror=alert(1)>", "\0\r"])
def test_a_hostile_message_stays_text(idle_db: dn.Client, answer: str) -> None:
    plan = idle_db.send("queued-1", answer, "<b>topic</b>", plan=True)
    assert "<img" not in plan._repr_html_()
    assert "<b>" not in plan._repr_html_()
    assert plan.apply().ok
    (stored,) = idle_db.messages("queued-1").to_dict("records")
    assert (stored["message"], stored["topic"]) == (answer, "<b>topic</b>")
