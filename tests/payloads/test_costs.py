"""What sharing, copying and comparing may cost, and what honest payloads still give."""

from __future__ import annotations

import base64
import collections
import copy
import datetime as dt
import decimal
import json
import pickle
import random
import time
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pytest
from costly_pickles import costly_errors

from dbos_notebook.payloads import Opaque, RecordedError, Undecoded, decode


def through(value: Any) -> Any:
    return decode(base64.b64encode(pickle.dumps(value)).decode(), "py_pickle")


def run(data: bytes) -> Any:
    return decode(base64.b64encode(data).decode(), "py_pickle")


# Each leaves one more part in the memo, made of two that are there.
MAKERS = (
    b"%s%s\x86",
    b"](%s%se",
    b"}(K\x01%sK\x02%su",
    b"\x8f(%s%s\x90",
    b"(%s%s\x91",
    b"cbuiltins\nValueError\n%s%s\x86R",
    b"ccollections\ndeque\n%s\x85R%s0",
    b"cbuiltins\nlist\n%s\x85R%s0",
    b"cbuiltins\ndict\n%s\x85R%s0",
    b"cbuiltins\nset\n%s\x85R%s0",
    b"ccollections\nCounter\n%s\x85R%s0",
    b"cdecimal\nDecimal\n%s\x85R%s0",
    b"cfractions\nFraction\n%s%s\x86R",
    b"cpathlib\nPurePosixPath\n%s%s\x86R",
    b"c_codecs\nencode\n%s\x85R%s0",
    b"%s%s\x93",
    b"cshop\nOrder\n)\x81}(X\x01\x00\x00\x00a%sX\x01\x00\x00\x00b%sub",
    b"%s%s\x85R",
)


def sharing_program(rng: random.Random) -> bytes:
    """Memorise some big parts, and use them many times through every maker."""
    size = rng.choice((10, 1_000, 100_000))
    parts = [
        b"X" + size.to_bytes(4, "little") + rng.choice((b"a", b"1", b"/", b"\x00")) * size,
        b"(" + b"K\x01" * size + b"t",
        b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in range(size)) + b"l",
        b"\x8b" + (1_700).to_bytes(4, "little") + rng.randbytes(1_699) + b"\x01",
        b"}(" + b"".join(b"J" + n.to_bytes(4, "little") + b"N" for n in range(size)) + b"u",
    ]
    rng.shuffle(parts)
    parts = parts[: rng.randint(1, 3)]
    data = b"\x80\x04" + b"".join(
        part + b"r" + place.to_bytes(4, "little") + b"0" for place, part in enumerate(parts)
    )
    for made in range(len(parts), len(parts) + rng.choice((10, 60, 2_000))):
        get = [
            b"j" + (made - 1 if rng.random() < 0.3 else rng.randrange(made)).to_bytes(4, "little")
            for _ in range(2)
        ]
        data += rng.choice(MAKERS) % tuple(get) + b"r" + made.to_bytes(4, "little") + b"0"
    return data + b"(" + b"".join(b"j" + n.to_bytes(4, "little") for n in range(made)) + b"l."


@pytest.mark.parametrize("seed", range(60))
def test_shared_parts_cost_no_more_than_their_bytes(seed: int) -> None:
    data = sharing_program(random.Random(seed))
    begun = time.process_time()
    shown = repr(run(data))
    # Ten microseconds for each byte: for small payloads, a tenth of a second and a collection.
    assert time.process_time() - begun < 10e-6 * (len(data) + 1e5)
    assert len(shown) < 16_000_000 + 40 * len(data)


def test_legitimate_payloads_that_resemble_attacks_decode() -> None:
    assert through([np.bytes_(b"a"), np.str_("né"), 1]) == [b"a", "né", 1]
    assert "rest" in repr(through([np.void(b"a"), np.datetime64("2020-01-01"), "rest"]))
    error = ValueError("no card")
    first, second = through([error, error])
    assert first is second
    assert first.message == "no card"
    amounts = collections.Counter({"a": decimal.Decimal("NaN"), "b": decimal.Decimal(1)})
    assert repr(through(amounts)) == "Counter({'a': Decimal('NaN'), 'b': Decimal('1')})"
    assert type(through(collections.Counter(a=decimal.Decimal(2)))) is collections.Counter
    days = {dt.date(2020, 1, 1) + dt.timedelta(n): n for n in range(3_000)}
    assert through(days) == days
    ids = {uuid.UUID(int=n << 40): n for n in range(3_000)}
    assert through(ids) == ids
    customer = {"name": "Ada", "note": "x" * 2_000}
    assert through([customer] * 1_000) == [customer] * 1_000


def test_a_uuid_whose_state_is_set_late_is_complete_everywhere() -> None:
    others = b"".join(b"Nq" + bytes([n + 1]) + b"0" for n in range(40))
    data = b"\x80\x04(cuuid\nUUID\n)\x81q\x00" + others + b"}X\x03\x00\x00\x00intK\x07sbh\x00t."
    assert run(data) == (uuid.UUID(int=7), uuid.UUID(int=7))


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Rome", dt.timezone(dt.timedelta(hours=5))])
@pytest.mark.parametrize("at", ["1677-09-23", "2262-04-10", "0001-01-03", "9999-12-30 12:00"])
def test_the_earliest_and_latest_instants(at: str, zone: Any) -> None:
    when = pd.Timestamp(dt.datetime.fromisoformat(at)).as_unit("s").tz_localize(zone)
    assert through(when) == when


def test_special_attributes_of_protocols_are_hidden() -> None:
    obeyed = ("__array_interface__", "__deepcopy__", "__html__", "_repr_html_", "_ipython_key_")
    value = Opaque("shop.Order", state=dict.fromkeys(obeyed, "x") | {"total": 1})
    assert not any(hasattr(value, name) for name in obeyed)
    assert value.total == 1
    assert copy.deepcopy(value) == value
    assert np.asarray(value).shape == ()


def test_one_invalid_part_does_not_lose_the_rest_of_a_document() -> None:
    def of(json_: Any, kind: Any) -> Any:
        document = {"json": {"odd": json_, "n": 7}, "meta": {"values": {"odd": kind}}}
        value = decode(json.dumps(document), "js_superjson")
        assert value["n"] == 7
        return value["odd"]

    late = "+010000-01-01T00:00:00.000Z"
    assert of(late, ["Date"]) == Opaque("Date", (late,))
    assert of([1, True], ["set"]) == Opaque("Set", ([1, True],))
    assert of([{"a": 1}], ["set"]) == Opaque("Set", ([{"a": 1}],))
    assert of([[1, "a"], [True, "b"]], ["map"]) == Opaque("Map", ([[1, "a"], [True, "b"]],))
    assert of("12_0", ["bigint"]) == "12_0"
    assert of(" 7 ", ["bigint"]) == " 7 "
    assert repr(of("x", [["class", "\x1b[2J\ud800"]])).isprintable()


def test_documents_are_limited_before_they_are_built() -> None:
    assert isinstance(decode("[" + "[],[]," * 600_000 + "0]", "portable_json"), Undecoded)
    prose = "a, b [c] " * 500_000
    assert decode(json.dumps({"text": prose}), "portable_json") == {"text": prose}
    error = decode('{"name": "\\ud800\\u001b", "message": "x"}', "portable_json", error=True)
    assert isinstance(error, RecordedError)
    assert error.type.isprintable()
    error.type.encode()


@pytest.mark.parametrize("name", costly_errors())
def test_error_messages_cost_no_more_than_their_bytes(name: str) -> None:
    data = costly_errors()[name]
    begun = time.process_time()
    error = decode(base64.b64encode(data).decode(), "py_pickle", error=True)
    assert isinstance(error, RecordedError), error
    shown = error.message + repr(error)
    assert time.process_time() - begun < 10e-6 * (len(data) + 1e5)
    assert len(shown) < 16_000_000 + 40 * len(data)
