"""Invalid arguments are refused before anything is read or written."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from raw_rows import write

import dbos_notebook as dn


@pytest.fixture
def db(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    with dn.connect(corpus_sqlite("3.4.0")) as client:
        yield client


@pytest.mark.parametrize(
    "options",
    [
        {"application_version": 2.0},
        {"application_version": ""},
        {"application_version": "\ud800"},
        {"queue_name": ""},
        {"queue_name": "a\0b"},
        {"queue_name": 5},
        {"queue_partition_key": " "},
        {"timeout": 1e300},
        {"timeout": float("nan")},
        {"timeout": True},
        {"key": "\ud800"},
        {"key": "a\0b"},
        {"key": 42},
        {"replacement_children": ["a"]},
        {"replacement_children": {"a": 5}},
        {"start_step": 10**5000},
        {"start_step": {"checkout-1": {"checkout-1": 1}}},
        {"start_step": {"checkout-1": True}},
        {"start_step": 1.0},
        {"start_step": np.bool_(True)},
        {"start_step": pd.Series({"checkout-1": float("nan")})},
    ],
    ids=lambda options: next(iter(options)),
)
def test_invalid_fork_options_are_refused(db: dn.Client, options: dict[str, object]) -> None:
    with pytest.raises(dn.FilterError, match=next(iter(options))):
        db.fork("checkout-1", **{"start_step": "first", **options})
    for other in ("application_version", "queue_name"):
        if other in options:
            with pytest.raises(dn.FilterError, match=other):
                db.repair("parent-6-bad", **options)
    assert db.workflows(forked_from="checkout-1").empty


def test_numpy_numbers_are_accepted(db: dn.Client) -> None:
    assert db.fork("checkout-1", np.int64(3), timeout=np.int64(5)).ok
    assert len(db.wait("checkout-1", timeout=np.float32(0))) == 1


def test_keys_are_normalized_as_unicode(db: dn.Client) -> None:
    for key in ("caf\u00e9", "cafe\u0301"):
        db.fork("checkout-1", "first", key=key)
    assert len(db.workflows(forked_from="checkout-1")) == 1


def test_a_frame_with_two_workflow_id_columns_is_refused(db: dn.Client) -> None:
    with pytest.raises(dn.FilterError, match="2 workflow_id columns"):
        db.cancel(pd.DataFrame([["a", "b"]], columns=["workflow_id", "workflow_id"]))


@pytest.mark.parametrize("given", [{"until": "1960-01-01"}, {"delay": 1e300}, {"delay": -1}])
def test_invalid_delays_are_refused(db: dn.Client, given: dict[str, object]) -> None:
    with pytest.raises(dn.FilterError, match=next(iter(given))):
        db.set_delay("queued-1", **given)


def test_an_invalid_stored_delay_can_be_replaced(db: dn.Client) -> None:
    write(
        db, "UPDATE {}workflow_status SET status = 'DELAYED', delay_until_epoch_ms = ?", 2**63 - 1
    )
    assert db.set_delay("queued-1", 5).counts["done"] == 1
    assert db.set_delay("queued-1", until="2500-01-01").counts["done"] == 1


@pytest.mark.parametrize(
    "attributes",
    [{"a": (1, 2)}, {"a": {1: "x", None: "y"}}, {"a": 1e22, "b": -0.0, "c": 10**300}, {"a": "é"}],
)
def test_attributes_are_compared_in_their_stored_form(
    idle_db: dn.Client, attributes: dict[str, object]
) -> None:
    assert idle_db.set_attributes("checkout-1", attributes).counts["done"] == 1
    assert idle_db.set_attributes("checkout-1", attributes).counts["unchanged"] == 1


def test_true_and_one_are_different_attribute_values(idle_db: dn.Client) -> None:
    assert idle_db.set_attributes("checkout-1", {"a": [1]}).counts["done"] == 1
    assert idle_db.set_attributes("checkout-1", {"a": [True]}).counts["done"] == 1
    assert idle_db.set_attributes("checkout-1", {"a": [True]}, merge=True).counts["unchanged"] == 1
    assert idle_db.workflows("checkout-1")["attributes"].iloc[0]["a"] == [True]


@pytest.mark.parametrize("key", ['a"b', "a\\b", "é", "a\nb", "a.b[0]"])
def test_merge_takes_any_attribute_key(idle_db: dn.Client, key: str) -> None:
    before = idle_db.workflows("attributed")["attributes"].iloc[0]
    assert before
    assert idle_db.set_attributes("attributed", {key: {key: [1]}}, merge=True).counts["done"] == 1
    assert idle_db.workflows("attributed")["attributes"].iloc[0] == {**before, key: {key: [1]}}
    assert idle_db.set_attributes("attributed", {key: {key: [1]}}, merge=True).ok
    assert idle_db.set_attributes("checkout-1", {key: 1, "z": 2}, merge=True).counts["done"] == 1
    assert idle_db.workflows("checkout-1")["attributes"].iloc[0] == {key: 1, "z": 2}


def test_a_merge_keeps_attributes_added_since_the_plan(idle_db: dn.Client) -> None:
    plan = idle_db.set_attributes("attributed", {"é": 1}, merge=True, plan=True)
    idle_db.set_attributes("attributed", {"tier": "gold"}, merge=True)
    assert plan.apply().counts["done"] == 1
    now = idle_db.workflows("attributed")["attributes"].iloc[0]
    assert (now["é"], now["tier"], now["customer"]) == (1, "gold", "acme")


@pytest.mark.parametrize("stored", ["{broken", '{"a": ' + "1" * 5000 + "}"])
def test_unreadable_attributes_can_be_replaced(db: dn.Client, stored: str) -> None:
    write(db, "UPDATE {}workflow_status SET attributes = ?", stored)
    assert db.set_attributes("checkout-1", {"a": 1}).counts["done"] == 1
    ((now,),) = write(
        db, "SELECT attributes FROM {}workflow_status WHERE workflow_uuid = 'checkout-1'"
    )
    assert json.loads(now) == {"a": 1}


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon", True])
def test_a_receipt_validates_the_timeout_of_wait(db: dn.Client, timeout: object) -> None:
    receipt = db.cancel("checkout-1")
    with pytest.raises(dn.FilterError, match="timeout"):
        receipt.wait(timeout)
    assert len(receipt.wait(dt.timedelta(seconds=1))) == 1
    assert db.delete("checkout-1", confirm=True).wait(1).empty
