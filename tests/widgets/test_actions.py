"""The actions of the views in their Python half: availability, plans and receipts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from widget_messages import ask

import dbos_notebook as dn


@pytest.fixture(params=["sqlite", "postgres"])
def idle_client(
    request: pytest.FixtureRequest,
    corpus_sqlite: Callable[[str], Path],
    corpus_postgres: Callable[[str], str],
) -> Iterator[dn.Client]:
    """A client on its own copy of the corpus, without a running application."""
    copy = corpus_sqlite if request.param == "sqlite" else corpus_postgres
    with dn.connect(copy("3.4.0")) as client:
        yield client


def test_buttons_are_enabled_where_dbos_would_act(idle_client: dn.Client) -> None:
    widget = idle_client.explore()
    for status, offered in {
        "SUCCESS": {"fork", "delete"},
        "ERROR": {"fork", "repair", "delete"},
        "ENQUEUED": {"cancel", "resume", "send"},
        "PENDING": {"cancel", "send"},
    }.items():
        workflow_id = idle_client.workflows(status=status)["workflow_id"].iloc[0]
        possible = ask(widget, "possible", ids=[workflow_id])["possible"]
        assert {name for name, availability in possible.items() if availability["count"]} == {
            *offered,
            "set_attributes",
        }, status
        for name, availability in possible.items():
            if name not in ("repair", "set_attributes"):
                arguments = {"fork": ["failed"], "send": [1], "set_delay": [1]}.get(name, [])
                plan = getattr(idle_client, name)(workflow_id, *arguments, plan=True)
                assert availability["count"] == plan.counts["ready"]
                assert availability["why"] or availability["count"]
    selected = ask(widget, "possible", ids=["queued-1", "queued-2", "checkout-1"])["possible"]
    assert selected["cancel"]["count"] == 2


def test_a_plan_writes_nothing_and_its_confirmation_applies_it_once(idle_client: dn.Client) -> None:
    widget = idle_client.explore()
    plan = ask(widget, "plan", action="cancel", ids=["queued-1", "checkout-1"], key="click-1")
    assert plan["counts"] == {"ready": 1, "unchanged": 1, "refused": 0, "not_found": 0}
    assert plan["code"] == 'db.cancel(["queued-1", "checkout-1"])'
    assert idle_client.workflow("queued-1").status == "ENQUEUED"
    assert widget.receipt is None
    receipt = ask(widget, "apply", key="click-1")
    assert receipt["counts"]["done"] == 1
    assert idle_client.workflow("queued-1").status == "CANCELLED"
    idle_client.resume("queued-1")
    # Confirming the same click again returns the first receipt and changes nothing.
    assert ask(widget, "apply", key="click-1")["rows"] == receipt["rows"]
    assert idle_client.workflow("queued-1").status == "ENQUEUED"
    assert widget.receipt is not None
    assert widget.receipt.to_frame()["outcome"].tolist() == ["done", "unchanged"]


def test_a_reason_is_shown_to_its_end_and_begins_with_what_decides(idle_client: dn.Client) -> None:
    options = {"queue_name": "typo-queue", "application_version": "2026.07-" + "x" * 400}
    widget = idle_client.inspect("checkout-5-bad")
    ids = ["checkout-5-bad"]
    plan = ask(widget, "plan", action="fork", ids=ids, options=options, key="click-1")
    expected = idle_client.fork(ids, "failed", plan=True, **options).items[0].will_run
    assert plan["will_run"] == str(expected)
    assert "no queue 'typo-queue' is registered in the database; " in plan["will_run"][:100]
    receipt = ask(widget, "apply", key="click-1")
    assert receipt["notes"][0].endswith("has no recent activity.")


def test_a_click_makes_one_fork(idle_client: dn.Client) -> None:
    widget = idle_client.inspect("checkout-5-bad")
    question = {
        "action": "fork",
        "ids": ["checkout-5-bad"],
        "key": "click-ab",
        "options": {"start_step": "3", "application_version": "v2", "queue_name": ""},
    }
    (row,) = ask(widget, "plan", **question)["rows"]
    assert "step 3 (charge)" in row["effect"]
    assert ask(widget, "plan", **question)["code"] == (
        'db.fork("checkout-5-bad", 3, application_version="v2")'
    )
    (done,) = ask(widget, "apply", key="click-ab")["rows"]
    assert done["new_workflow_id"] == row["new_workflow_id"]
    # A second kernel that receives the same click finds the fork.
    second_view = idle_client.inspect("checkout-5-bad")
    ask(second_view, "plan", **question)
    (repeated,) = ask(second_view, "apply", key="click-ab")["rows"]
    assert (repeated["outcome"], repeated["new_workflow_id"]) == (
        "unchanged",
        done["new_workflow_id"],
    )
    forks = idle_client.workflows(forked_from="checkout-5-bad")["workflow_id"].tolist()
    assert sorted(forks) == sorted(["fork-1", done["new_workflow_id"]])
    assert idle_client.workflow(done["new_workflow_id"]).app_version == "v2"


def test_fifty_workflows_are_forked_together(shop_sqlite: Path, tmp_path: Path) -> None:
    copy = tmp_path / "shop.sqlite"
    copy.write_bytes(shop_sqlite.read_bytes())
    with dn.connect(copy) as client:
        ids = client.workflows(status="SUCCESS", limit=50)["workflow_id"].tolist()
        assert len(ids) == 50
        widget = client.controls(ids)
        plan = ask(widget, "plan", action="fork", ids=ids, key="k", options={"start_step": "first"})
        assert plan["counts"]["ready"] == 50
        receipt = ask(widget, "apply", key="k")
        assert receipt["counts"]["done"] == 50
        assert len(client.workflows(is_fork=True, status="ENQUEUED", limit=None)) == 50


def test_refused_actions_give_the_reason(idle_client: dn.Client) -> None:
    widget = idle_client.controls("checkout-1")
    assert "has expired" in ask(widget, "apply", key="never")["text"]
    assert ask(widget, "plan", action="destroy", ids=[], key="x")["type"] == "FilterError"
    plan = ask(
        widget, "plan", action="fork", ids=["checkout-1"], key="y", options={"start_step": "99"}
    )
    assert plan["counts"]["refused"] == 1
    with pytest.raises(dn.WorkflowNotFoundError):
        idle_client.controls(["nobody"])


def test_a_deletion_is_confirmed(idle_client: dn.Client) -> None:
    widget = idle_client.explore()
    plan = ask(widget, "plan", action="delete", ids=["checkout-1"], key="k")
    assert plan["confirm"]
    assert ask(widget, "apply", key="k")["type"] == "ConfirmationError"
    assert idle_client.workflow("checkout-1").status == "SUCCESS"
    receipt = ask(widget, "apply", key="k", confirm=True)
    assert (receipt["counts"]["done"], receipt["follows"]) == (1, False)
    assert idle_client.workflows("checkout-1").empty


def test_the_fields_of_an_action_become_its_plan_and_its_code(idle_client: dn.Client) -> None:
    widget = idle_client.controls("queued-1")

    def plan(action: str, **options: object) -> dict[str, object]:
        return ask(widget, "plan", action=action, ids=["queued-1"], key=action, options=options)

    found = plan("send", message='{"approved": true}', format="json", topic="approval")
    assert found["code"] == 'db.send("queued-1", {"approved": True}, "approval")'
    found = plan("send", message="[1]", format="text")
    assert found["code"] == 'db.send("queued-1", "[1]")'
    assert ask(widget, "apply", key="send")["counts"]["done"] == 1
    # A second kernel that receives the same click sends nothing.
    other = idle_client.controls("queued-1")
    question = {"action": "send", "ids": ["queued-1"], "key": "send"}
    ask(other, "plan", **question, options={"message": "[1]", "format": "text"})
    assert ask(other, "apply", key="send")["counts"]["unchanged"] == 1
    assert idle_client.messages("queued-1")["message"].tolist() == ["[1]"]
    for message in ("yes", "", "{'a': 1}", "NaN", "[" * 100_000):
        error = plan("send", message=message, format="json")
        assert error["type"] == "FilterError"
        assert "JSON" in str(error["text"])

    assert plan("set_delay", delay="1.5h")["code"] == 'db.set_delay("queued-1", 5400.0)'
    assert "10m" in str(plan("set_delay", delay="soon")["text"])
    found = plan("set_attributes", attributes='{"tier": "<b>"}', merge=True)
    assert found["code"] == 'db.set_attributes("queued-1", {"tier": "<b>"}, merge=True)'
    assert ask(widget, "apply", key="set_attributes")["counts"]["done"] == 1
    assert idle_client.workflow("queued-1").attributes == {"tier": "<b>"}


def test_a_receipt_is_followed_until_the_work_has_ended(idle_client: dn.Client) -> None:
    widget = idle_client.explore()
    ids = ["checkout-1", "checkout-2"]
    options = {"start_step": "first"}
    plan = ask(widget, "plan", action="fork", ids=ids, key="k", options=options)
    assert plan["kinds"] == ["2 from DBOS.setEvent"]
    # What is the same for all stands once.
    assert plan["will_run"].startswith("un")
    assert not any("will_run" in row for row in plan["rows"])
    receipt = ask(widget, "apply", key="k")
    assert receipt["follows"]
    progress = ask(widget, "progress", key="k")
    assert (progress["text"], progress["ended"]) == ("0 of 2 succeeded, 2 enqueued", False)
    first, second = (row["new_workflow_id"] for row in receipt["rows"])
    idle_client.cancel(first)
    idle_client.delete(second, force=True, confirm=True)
    progress = ask(widget, "progress", key="k")
    assert (progress["text"], progress["ended"]) == (
        "0 of 2 succeeded, 1 cancelled, 1 deleted",
        True,
    )
    assert progress["statuses"] == {first: "CANCELLED"}
    # A cancel is not meant to make anything succeed.
    ask(widget, "plan", action="cancel", ids=["queued-1", "queued-2"], key="cancel")
    ask(widget, "apply", key="cancel")
    progress = ask(widget, "progress", key="cancel")
    assert (progress["text"], progress["ended"]) == ("2 cancelled", True)


def test_many_workflows_are_planned_at_once(
    shop_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbos_notebook.widgets.controls.MAX_PROBED", 20)
    copy = tmp_path / "shop.sqlite"
    copy.write_bytes(shop_sqlite.read_bytes())
    with dn.connect(copy) as client:
        frame = client.workflows(limit=None)
        ids = frame["workflow_id"].tolist()
        assert len(ids) > 50
        widget = client.explore()
        possible = ask(widget, "possible", ids=ids)["possible"]
        statuses = frame["status"].value_counts()
        assert possible["fork"]["count"] >= statuses["SUCCESS"]
        plan = ask(widget, "plan", action="cancel", ids=ids, key="k")
        assert len(plan["rows"]) == 50
        assert plan["left_out"] == len(ids) - 50
        assert plan["counts"]["ready"] == possible["cancel"]["count"]


def test_schedules_are_listed_and_controlled(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO workflow_schedules (schedule_id, schedule_name, workflow_name, schedule,"
            " status, context) VALUES ('1', '<b>nightly', 'checkout', '0 0 * * *', 'ACTIVE',"
            " 'gAROLg==')"
        )
    with dn.connect(path) as client:
        widget = client.controls(schedules=True)
        assert repr(widget).endswith(": schedules>")
        assert widget.code == "db.controls(schedules=True)"
        assert "<b>" not in widget.static_html()
        (row,) = ask(widget, "schedules")["rows"]
        assert (row["schedule_name"], row["status"]) == ("<b>nightly", "ACTIVE")
        question = {"action": "pause_schedule", "ids": ["<b>nightly"], "key": "k"}
        assert ask(widget, "plan", **question)["counts"]["ready"] == 1
        assert ask(widget, "apply", key="k")["counts"]["done"] == 1
        assert client.schedules()["status"].tolist() == ["PAUSED"]
        question = {"action": "backfill_schedule", "ids": ["<b>nightly"], "key": "b"}
        plan = ask(widget, "plan", **question, options={"start": "3d"})
        assert plan["code"] == 'db.backfill_schedule("<b>nightly", "3d")'
        with pytest.raises(dn.FilterError, match="either workflows or schedules"):
            client.controls("checkout-1", schedules=True)
        with pytest.raises(dn.FilterError, match="either workflows or schedules"):
            client.controls()


def test_old_plans_expire(idle_client: dn.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbos_notebook.widgets.controls.MAX_CACHED_PLANS", 2)
    widget = idle_client.explore()
    for number in range(4):
        ask(widget, "plan", action="cancel", ids=["queued-1"], key=f"k{number}")
    assert ask(widget, "apply", key="k0")["kind"] == "error"
    assert ask(widget, "apply", key="k3")["counts"]["done"] == 1


def test_a_read_only_client_offers_no_actions(corpus_sqlite: Callable[[str], Path]) -> None:
    with dn.connect(corpus_sqlite("3.4.0"), read_only=True) as client:
        widget = client.explore()
        assert "read-only" in widget._start["forbidden"]
        possible = ask(widget, "possible", ids=["queued-1"])["possible"]
        assert not any(availability["count"] for availability in possible.values())
        ask(widget, "plan", action="cancel", ids=["queued-1"], key="k")
        assert ask(widget, "apply", key="k")["type"] == "ReadOnlyError"
        assert client.workflow("queued-1").status == "ENQUEUED"
