"""What a type checker knows about the public API. ``make check`` runs mypy on it; it never runs."""

from __future__ import annotations

import datetime as dt
from typing import assert_type

import pandas as pd

import dbos_notebook as dn


def a_plan_and_a_receipt_are_told_apart(db: dn.Client) -> None:
    assert_type(db.cancel("a"), dn.Receipt)
    assert_type(db.cancel("a", plan=True), dn.Plan)
    assert_type(db.cancel("a", plan=True, cancel_children=True), dn.Plan)
    assert_type(db.resume(["a"], queue_name="original", plan=True), dn.Plan)
    assert_type(db.fork("a", "failed", key="incident-7", timeout=dt.timedelta(hours=1)), dn.Receipt)
    assert_type(db.fork("a", [2, 3], application_version="v2", plan=True), dn.Plan)
    assert_type(db.rewind("a", 3, confirm=True), dn.Receipt)
    assert_type(db.repair(["a"], wait=False, plan=True), dn.Plan)
    assert_type(db.delete("a", plan=True, delete_children=True), dn.Plan)
    assert_type(db.send("a", {"approved": True}, "approval"), dn.Receipt)
    assert_type(db.send(["a"], None, idempotency_key="k", plan=True), dn.Plan)
    assert_type(db.set_delay("a", 60, plan=True), dn.Plan)
    assert_type(db.set_attributes("a", {"tier": 2}, merge=True), dn.Receipt)
    assert_type(db.pause_schedule("nightly", plan=True), dn.Plan)
    assert_type(db.trigger_schedule("nightly", force=True), dn.Receipt)
    assert_type(db.backfill_schedule("nightly", "7d", plan=True), dn.Plan)
    assert_type(db.delete_schedule("nightly", confirm=True), dn.Receipt)


def filters_are_checked(db: dn.Client) -> None:
    failed = db.workflows(status=["ERROR"], start_time="24h", attributes={"customer": "acme"})
    assert_type(failed, pd.DataFrame)
    assert_type(db.steps(failed), pd.DataFrame)
    assert_type(db.workflow("a"), dn.Workflow)
    assert_type(db.explore(name="checkout", live=True), dn.Explore)
    db.workflows(stauts="ERROR")  # type: ignore[call-arg] # a misspelled filter is an error
    db.counts("name", queue_name=3)  # type: ignore[arg-type] # and so is a number for a name
    db.cancel("a", plan=True, force=True)  # type: ignore[call-overload] # cancel takes no force
