"""What Python and TypeScript programs store comes back legible, by every protocol."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import pickle
import re
import uuid
import zoneinfo
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pytest

from dbos_notebook.payloads import Opaque, RecordedError, Undecoded, decode
from dbos_notebook.payloads.pickles import run
from dbos_notebook.payloads.recorded_errors import to_recorded_error

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@dataclasses.dataclass
class Order:
    id: int
    name: str
    total: float


@dataclasses.dataclass(frozen=True)
class Key:
    id: int


@dataclasses.dataclass(slots=True)
class Slotted:
    id: int
    name: str


class Slots:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a, self.b = 1, [2]


class Color(enum.Enum):
    RED = "red"


@attrs.define
class Slim:
    x: int
    y: str


@attrs.frozen(slots=False)
class Wide:
    x: int


Point = collections.namedtuple("Point", "x y")


class Stack(list[int]):
    pass


class Declined(Exception):
    def __init__(self, order: str, code: int) -> None:
        super().__init__(order, code)
        self.retry = False


class Pydantic2:
    """Pickles as a pydantic 2 model does."""

    def __reduce__(self) -> Any:
        state = {"__dict__": {"id": 1, "tags": ["a"]}, "__pydantic_fields_set__": {"id"}}
        return (_new, (Pydantic2,), state)


class Pydantic1:
    """Pickles as a pydantic 1 model does."""

    def __reduce__(self) -> Any:
        return (_new, (Pydantic1,), {"__dict__": {"id": 1}, "__fields_set__": {"id"}})


class Extra:
    """Pickles as a pydantic 2 model with extra="allow" and a private attribute does."""

    def __reduce__(self) -> Any:
        state = {"__dict__": {"id": 1}, "__pydantic_extra__": {"note": "extra"}}
        return (_new, (Extra,), {**state, "__pydantic_private__": {"_secret": 7}})


def _new(kind: type) -> Any:
    return kind.__new__(kind)


def stored(value: Any, protocol: int = 4) -> str:
    return base64.b64encode(pickle.dumps(value, protocol)).decode()


def through(value: Any, protocol: int = 4) -> Any:
    return decode(stored(value, protocol), "py_pickle")


ITSELF = [
    None, True, 0, -1, 255, 65_536, 2**31, -(2**63), 10**100, 1.5, float("inf"), 1 + 2j,
    "", "naïve 🦜 \n '\"", b"", b"\x00\xff", bytearray(b"ab"),
    [], [1, [2, [3]]], (), (1,), (1, 2, 3, 4), {}, {"a": {"b": None}}, {1: 2, None: 3, (1, "x"): 4},
    set(), {1, 2}, {"a"}, frozenset({1, (2, 3)}),
    dt.date(2026, 11, 24), dt.time(3, 0, 1, 5), dt.datetime(2026, 11, 24, 3, 0),
    dt.datetime(2026, 11, 24, tzinfo=dt.UTC), dt.timedelta(days=-1, seconds=3, microseconds=4),
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2), "X")),
    decimal.Decimal("9.50"), fractions.Fraction(1, 3), uuid.UUID(int=7),
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1, 2], 3),
    pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath(r"c:\a"),
    {"args": ("order", 7), "kwargs": {}},
]  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", ITSELF, ids=repr)
def test_plain_values_come_back_as_themselves(value: Any, protocol: int) -> None:
    back = through(value, protocol)
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_defaultdict_names_its_factory_and_does_not_call_it(protocol: int) -> None:
    back = through(collections.defaultdict(list, a=[1]), protocol)
    assert repr(back) == "defaultdict(<builtins.list>, {'a': [1]})"
    assert back["a"] == [1]
    with pytest.raises(KeyError, match="list was not loaded"):
        back["b"]
    assert list(back) == ["a"]
    plain = through(collections.defaultdict(None, a=1), protocol)
    assert repr(plain) == "defaultdict(None, {'a': 1})"
    called = through(collections.defaultdict(functools.partial(Order, 1), a=1), protocol)
    assert repr(called) == "defaultdict(<functools.partial(…)>, {'a': 1})"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_read_like_the_originals(protocol: int) -> None:
    order = through(Order(7, "<b>widget</b>", 2.5), protocol)
    assert type(order) is Opaque
    assert repr(order) == repr(Order(7, "<b>widget</b>", 2.5))
    assert (order.id, order.name, order.total) == (7, "<b>widget</b>", 2.5)
    assert {"id", "name", "total"} <= set(dir(order))
    with pytest.raises(AttributeError, match="colour"):
        order.colour  # noqa: B018
    assert repr(through(Color.RED, protocol)) == "Color('red')"
    assert through({Color.RED: 1, Key(3): 2}, protocol) == {
        Opaque(f"{__name__}.Color", ("red",)): 1,
        Opaque(f"{__name__}.Key", state={"id": 3}): 2,
    }
    for model in (Pydantic1(), Pydantic2()):
        assert through(model, protocol).id == 1
    assert repr(through(Order, protocol)) == f"<{__name__}.Order>"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_slots_tuples_and_subclasses(protocol: int) -> None:
    assert through(Slots(), protocol).b == [2]
    assert through(Slotted(1, "x"), protocol).name == "x"
    assert through(Point(1, 2), protocol).args == (1, 2)
    assert through(Stack([1, 2]), protocol).items == [1, 2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_errors_keep_their_message_arguments_and_notes(protocol: int) -> None:
    error = Declined("order-5", 402)
    error.add_note("seen twice")
    back = decode(stored(error, protocol), "py_pickle", error=True)
    assert isinstance(back, RecordedError)
    assert back.type == f"{__name__}.Declined"
    assert back.args == ("order-5", 402)
    assert back.message == str(error)
    assert back.notes == ["seen twice"]
    assert back.state["retry"] is False
    nested = through({"cause": ValueError("inner")}, protocol)["cause"]
    assert (nested.type, nested.message) == ("builtins.ValueError", "inner")
    assert repr(nested) == "ValueError('inner')"


def test_numpy_shows_shape_and_dtype() -> None:
    for protocol in range(2, 6):
        assert through(np.float64(2.5), protocol) == 2.5
        assert through(np.int32(-3), protocol) == -3
        array = through(np.zeros((2, 3), dtype="f4"), protocol)
        assert (array.type, array.shape) == ("numpy.ndarray", (2, 3))
        assert array.dtype.endswith("f4")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pandas_shows_shape_and_dtypes(protocol: int) -> None:
    numbers = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "when": pd.to_datetime(["2026"] * 2)})
    back = through(numbers, protocol)
    assert (back.type, back.shape) == ("pandas.DataFrame", (2, 3))
    assert {"<i8", "<f8", "DatetimeArray"} <= set(back.dtypes)
    named = through(numbers.set_index("a"), protocol)
    assert named.shape == (2, 2)
    texts = through(pd.DataFrame({"a": ["x", "y", "z"]}), protocol)
    assert (texts.shape, texts.dtypes) == ((3, 1), ["ArrowStringArray"])
    assert through(pd.DataFrame({"when": numbers["when"]}), protocol).shape == (2, 1)
    assert through(numbers.set_index("when"), protocol).shape == (2, 2)
    series = through(numbers["b"], protocol)
    assert (series.shape, series.dtypes) == ((2,), ["<f8"])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Rome"])
def test_pandas_instants_come_back_as_themselves(unit: str, zone: str | None) -> None:
    when = pd.Timestamp("2026-07-01 03:00:00", tz=zone).as_unit(unit)  # type: ignore[arg-type]
    assert through(when) == when
    assert through(when).unit == unit
    took = pd.Timedelta(seconds=90).as_unit(unit)  # type: ignore[arg-type]
    assert through(took) == took
    assert through(pd.NaT) is pd.NaT


def test_all_fields_of_a_pydantic_model_are_shown() -> None:
    model = through(Extra())
    assert repr(model).endswith("id=1, note='extra', _secret=7)")
    assert (model.note, model._secret) == ("extra", 7)


@pytest.mark.parametrize(
    "value",
    [
        ipaddress.ip_address("10.0.0.7"), ipaddress.ip_network("2001:db8::/32"),
        ipaddress.ip_interface("10.0.0.7/24"), np.datetime64("2026-01-02"),
        np.datetime64("2026-01-02T03:04:05.123456789"), np.timedelta64(-90, "m"),
        np.complex64(1 + 2j),
    ],
    ids=repr,
)  # fmt: skip
def test_ip_addresses_and_numpy_times_come_back(value: Any) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert through(value, protocol) == value
        assert through({value: 1}, protocol) == {value: 1}


def test_nat_and_patterns_are_legible() -> None:
    assert "NaT" in repr(through(np.datetime64("NaT")))
    assert repr(through(re.compile("ab+c", re.IGNORECASE))) == "Pattern('ab+c', 34)"
    # As polars pickles its frames: in bytes of its own.
    assert repr(decode(_polars(), "py_pickle")) == "DataFrame(bytes=9)"


def _polars() -> str:
    data = b"\x80\x04cpolars.dataframe.frame\nDataFrame\n)\x81C\tDSL_bytesb."
    return base64.b64encode(data).decode()


def test_attrs_classes_read_like_the_originals() -> None:
    assert repr(through(Slim(1, "x"))) == repr(Slim(1, "x"))
    assert repr(through(Wide(2))) == repr(Wide(2))
    assert through({Wide(2): 1}) == {Opaque(f"{__name__}.Wide", state={"x": 2}): 1}


def test_a_known_zone_comes_back_and_an_unknown_one_does_not() -> None:
    when = dt.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Rome"))
    assert through(when) == when
    assert "Nowhere/Land" in repr(decode(_with_zone("Nowhere/Land"), "py_pickle"))


def _with_zone(name: str) -> str:
    data = pickle.dumps(zoneinfo.ZoneInfo("Europe/Rome"), 0)
    return base64.b64encode(data.replace(b"Europe/Rome", name.encode())).decode()


def test_recursive_structures_terminate() -> None:
    inner: list[Any] = [1]
    inner.append(inner)
    back = through(inner)
    assert back[1] is back
    assert repr(back) == "[1, [...]]"
    order = Order(1, "x", 2.0)
    order.name = order  # type: ignore[assignment]
    assert repr(through(order)) == "Order(id=1, name=..., total=2.0)"


def test_portable_errors_and_inputs() -> None:
    text = '{"name": "Declined", "message": "no", "code": 402, "data": {"a": 1}}'
    error = decode(text, "portable_json", error=True)
    assert (error.type, error.message, error.code, error.data) == ("Declined", "no", 402, {"a": 1})
    assert decode('{"positionalArgs": [1], "namedArgs": {}}', "portable_json") == {
        "positionalArgs": [1],
        "namedArgs": {},
    }


@pytest.mark.parametrize(
    ("json", "values", "expected"),
    [
        ('"2026-01-02T00:00:00.000Z"', '["Date"]', dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        ('{"a": "12"}', '{"a": ["bigint"]}', {"a": 12}),
        ('{"a": {"b": [1, 2]}}', '{"a.b": ["set"]}', {"a": {"b": {1, 2}}}),
        (r'{"a.b": null}', r'{"a\\.b": ["undefined"]}', {"a.b": None}),
        ('[["k", "1"]]', '["map", {"0.1": ["bigint"]}]', {"k": 1}),
        ('{"x": 1}', '[["class", "Order"]]', Opaque("Order", state={"x": 1})),
        ("[0, 255]", '[["custom", "Buffer"]]', b"\x00\xff"),
        ("[0, 256]", '[["custom", "Buffer"]]', Opaque("Buffer", state=[0, 256])),
        ('"/a/g"', '["regexp"]', Opaque("RegExp", ("/a/g",))),
        ('"-Infinity"', '["number"]', -float("inf")),
        ('{"name": "E", "message": "m"}', '["Error"]', RecordedError("E", message="m")),
    ],
)
def test_superjson(json: str, values: str, expected: Any) -> None:
    text = f'{{"json": {json}, "meta": {{"values": {values}}}, "__dbos_serializer": "superjson"}}'
    assert decode(text, "js_superjson") == expected
    assert decode(text) == expected


def test_missing_broken_and_foreign_payloads() -> None:
    assert decode(None) is None
    assert decode(float("nan")) is None
    foreign = decode("secret", "my_serializer")
    assert isinstance(foreign, Undecoded)
    assert "my_serializer" in foreign.reason
    assert foreign.text == "secret"
    assert "secret" not in repr(foreign)
    assert decode("%%%", "py_pickle") == Undecoded("not valid base64", "%%%")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no card"), ValueError(""), Declined("x" * 300, 1), RuntimeError("é" * 200),
        KeyError("sku"), Declined("a", 2), LookupError("\ud800"), ValueError("\x94\x85\x94R\x94."),
        decimal.Decimal("9.50"), Order(1, "x", 2.0), ValueError(7), collections.OrderedDict(a=1),
    ],
    ids=lambda error: repr(error)[:20],
)  # fmt: skip
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_fast_path_to_an_error_equals_the_slow_one(error: Any, protocol: int) -> None:
    data = pickle.dumps(error, protocol)
    value = run(data).stack[-1]
    back = decode(stored(error, protocol), "py_pickle", error=True)
    assert back == (to_recorded_error(value) or value)
    # With one byte more it is another pickle.
    longer = base64.b64encode(data[:-1] + b"0N.").decode()
    assert decode(longer, "py_pickle", error=True) is None
