"""``normalize=True``: loaded payloads as columns."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook.payloads import Opaque, RecordedError
from dbos_notebook.tables.columns import PANDAS_3
from dbos_notebook.tables.frames import MAX_COLUMNS, MAX_LEVELS, flatten


def flat(*values: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"output": pd.Series(values, dtype=object)})
    return flatten(frame, ["output"]).drop(columns="output")


def test_a_listing_gains_columns_and_keeps_its_own(db: dn.Client) -> None:
    filters: dict[str, Any] = {"name": "checkout", "load_input": True, "load_output": True}
    plain = db.workflows(**filters)
    frame = db.workflows(**filters, normalize=True)
    pd.testing.assert_frame_equal(frame[plain.columns], plain)
    assert frame["input.0.id"].tolist() == [value["args"][0].id for value in plain["input"]]
    done = frame[frame["status"] == "SUCCESS"]
    assert done["output.id"].tolist() == [value.id for value in done["output"]]
    assert frame.loc[frame["status"] == "ERROR", "output.id"].isna().all()
    assert frame["input.0.placed"].dtype.kind == "M"
    assert frame.attrs == plain.attrs
    queued = db.queued(load_input=True, normalize=True)
    assert any(column.startswith("input.0") for column in queued)


def test_steps_gain_columns(db: dn.Client) -> None:
    steps = db.steps("checkout-1", load_output=True, normalize=True)
    charged = steps.set_index("function_name").loc["charge"]
    assert charged["output.charged"] == charged["output"]["charged"]


def test_both_ways_of_recording_arguments_give_the_same_columns() -> None:
    python = {"args": ({"sku": "a"}, 2), "kwargs": {"customer": "bo"}}
    portable = {"positionalArgs": [{"sku": "b"}, 3], "namedArgs": {"customer": "cy"}}
    frame = flat(python, portable)
    assert frame.columns.tolist() == ["output.0.sku", "output.1", "output.customer"]
    assert frame.values.tolist() == [["a", 2, "bo"], ["b", 3, "cy"]]


def test_normalized_columns_have_specific_dtypes() -> None:
    when = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
    one = {"n": 1, "x": 0.5, "yes": True, "text": "a", "when": when, "price": Decimal("9.5")}
    frame = flat(one, {"n": None, "many": [1, 2]}, None, 7, {"n": 2**70})
    assert frame.dtypes.astype(str).to_dict() == {
        "output.n": "object",
        "output.x": "float64",
        "output.yes": "boolean",
        "output.text": "str" if PANDAS_3 else "object",
        "output.when": "datetime64[us, UTC]" if PANDAS_3 else "datetime64[ns, UTC]",
        "output.price": "object",
        "output.many": "object",
    }
    assert frame["output.many"].tolist()[1] == [1, 2]
    assert flat({"n": 1}, {}, {"n": 3})["output.n"].dtype == pd.Int64Dtype()


def test_objects_flatten_by_their_fields_and_errors_do_not() -> None:
    order = Opaque("shop.Order", state={"id": 7, "to": Opaque("shop.To", kwargs={"city": "Rome"})})
    frame = flat(order, RecordedError("builtins.ValueError", ("no",), state={"x": 1}))
    assert frame.iloc[0].to_dict() == {"output.id": 7, "output.to.city": "Rome"}
    assert frame.iloc[1].isna().all()


def test_a_recursive_value_terminates() -> None:
    loop: dict[str, Any] = {"n": 1}
    loop["again"] = loop
    columns = flat(loop).columns.tolist()
    assert columns[:2] == ["output.n", "output.again.n"]
    assert len(columns) == MAX_LEVELS + 1


def test_colliding_column_names_keep_every_value() -> None:
    frame = pd.DataFrame({"output": [{"a.b": 1, "a": {"b": 2}}]})
    both = flatten(frame, ["output"])
    assert both["output.a.b"].tolist() == [1]
    assert both["output"].tolist() == frame["output"].tolist()


def test_keys_that_are_data_are_refused() -> None:
    with pytest.raises(dn.FilterError, match=r"more than 1,000 columns.*'output\.k1000'"):
        flat({f"k{n}": n for n in range(MAX_COLUMNS + 1)})


def test_nothing_to_flatten() -> None:
    assert flat(1, "text", None, [1]).columns.tolist() == []
    assert len(flat()) == 0


def test_payloads_that_were_not_loaded_are_an_error(db: dn.Client) -> None:
    with pytest.raises(dn.FilterError, match="add load_output=True"):
        db.workflows(normalize=True)
    with pytest.raises(dn.FilterError, match="add load_output=True"):
        db.steps("checkout-1", normalize=True)


def test_long_and_unprintable_keys_make_short_names() -> None:
    frame = flat({"k" * 10**6: {"a": 1, "b": 2}, "\ud800\x1b": 3})
    assert max(map(len, frame.columns)) < 120
    assert frame.columns[-1] == "output.\\ud800\\x1b"
    assert frame.iloc[0].tolist() == [1, 2, 3]
    repr(frame).encode()
