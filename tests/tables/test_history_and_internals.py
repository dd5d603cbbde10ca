"""What DBOS keeps beside the listings: earlier values of events, contexts, internal columns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook.payloads import Opaque

INTERNALS = ["rate_limited", "is_debounced", "debounce_deadline", "owner_xid", "creator_xid"]


def test_earlier_values_of_events_are_listed_with_their_steps(db: dn.Client) -> None:
    frame = db.events("checkout-1", history=True)
    assert frame["function_id"].tolist() == [1, 6]
    assert [value["stage"] for value in frame["value"]] == ["started", "done"]
    latest = db.events("checkout-1")
    assert latest["value"].tolist() == frame["value"].tolist()[-1:]
    assert db.events([], history=True).empty
    assert len(db.events(history=True, limit=3)) == 3


def test_a_database_without_earlier_values_says_so(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    with dn.connect(corpus_sqlite("2.0.0")) as old:
        with pytest.raises(dn.FilterError, match="stores no earlier values"):
            old.events(history=True)
        assert "key" in old.events()


def test_internal_columns_are_loaded_on_request(db: dn.Client) -> None:
    assert not set(INTERNALS) & set(db.workflows().columns)
    frame = db.workflows(load_internals=True)
    assert [str(frame[name].dtype) for name in INTERNALS] == [
        "boolean",
        "boolean",
        "datetime64[ms, UTC]",
        "str",
        "str",
    ]
    assert frame["creator_xid"].notna().any()
    assert not frame["is_debounced"].any()
    assert set(INTERNALS) <= set(db.queued(load_internals=True).columns)
    assert db.workflow("checkout-1").rate_limited in (True, False)


def test_internal_columns_of_an_old_database_are_missing(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    with dn.connect(corpus_sqlite("2.0.0")) as old:
        frame = old.workflows(load_internals=True)
        assert len(frame)
        assert frame[INTERNALS].isna().all(axis=None)
        assert isinstance(frame["debounce_deadline"].dtype, pd.DatetimeTZDtype)


def test_the_context_of_a_schedule_is_decoded_without_running_it(
    corpus_sqlite: Callable[[str], Path], tmp_path: Path
) -> None:
    from dbos import DBOSClient

    path = corpus_sqlite("3.4.0")
    marker = tmp_path / "ran"
    client = DBOSClient(system_database_url=f"sqlite:///{path}")
    for name, context in (("plain", {"region": "eu"}), ("none", None), ("hostile", "")):
        client.create_schedule(
            schedule_name=name, workflow_name="checkout", schedule="0 0 * * *", context=context
        )
    client.destroy()
    with sqlite3.connect(path) as connection:
        import base64

        hostile = base64.b64encode(
            b"\x80\x04\x8c\x07pathlib\x8c\x04Path\x93\x8c"
            + bytes([len(str(marker))])
            + str(marker).encode()
            + b"\x85R\x8c\x05touch\x86."
        ).decode()
        connection.execute(
            "UPDATE workflow_schedules SET context = ? WHERE schedule_name = 'hostile'", (hostile,)
        )
    with dn.connect(path) as db:
        contexts = db.schedules().set_index("schedule_name")["context"]
    assert contexts["plain"] == {"region": "eu"}
    assert contexts["none"] is None
    assert isinstance(contexts["hostile"], (tuple, Opaque, dn.payloads.Undecoded))
    assert not marker.exists()
