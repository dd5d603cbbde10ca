"""Templates of error messages: which values are replaced, and that any text takes linear time."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbos_notebook.analysis.fingerprints import MAX_INPUT, MAX_TEMPLATE, fingerprint

MESSAGES = {
    "card of ann.lee+shop@mail.example.com declined": "card of <email> declined",
    "GET https://api.example.com/v1/orders?id=7#top failed": "GET <url> failed",
    "postgresql://app@db:5432/orders refused": "<url> refused",
    "no route to db-3.prod.internal:5432": "no route to <host>",
    "connection to localhost:8080 lost": "connection to <host> lost",
    "10.0.3.17:443 and 192.168.0.0/16 and ::1": "<ip> and <ip> and <ip>",
    "from 2001:db8::8a2e:370:7334": "from <ip>",
    "trace 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "trace <trace_id>",
    "x-ray Root=1-5759e988-bd862e3fe1be46a994272793": "x-ray Root=<trace_id>",
    "order f47ac10b-58cc-4372-a567-0e02b2c3d479 is gone": "order <uuid> is gone",
    "child f47ac10b-58cc-4372-a567-0e02b2c3d479-2-1": "child <uuid>-<int>-<int>",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": "<hash>",
    "at 2026-11-26T22:06:10.123Z, or 2026-11-26": "at <date>, or <date>",
    "Thu, 26 Nov 2026 22:06:10 GMT": "<date>",
    "closed at 22:06:10": "closed at <date>",
    "waited 250ms, then 1h 30m 5s, then 3 minutes": "waited <duration>, then <duration>, "
    "then <duration>",
    "object at 0x7f3a1c2d, commit a1b2c3d": "object at <hex>, commit <hex>",
    "402.50 USD, 1e-9, -3.5": "<float> USD, <float>, <float>",
    "order-17 of order_18: #19, 1,234,567, -5": "order-<int> of order_<int>: #<int>, <int>, <int>",
    "KeyError: 'sku 7'": "KeyError: <quoted>",
    'no "Sencha 煎茶" in `batch`': "no <quoted> in <quoted>",
    # What is no value of a run stays.
    "can't encode it, won't try": "can't encode it, won't try",
    "shop.steps.fetch in steps.py uses utf8, sha256 and v2": "shop.steps.fetch in steps.py uses "
    "utf8, sha256 and v2",
    "std::vector is a::b": "std::vector is a::b",
    "": "",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_values_are_replaced(message: str) -> None:
    assert fingerprint(message) == MESSAGES[message]


def test_the_id_of_the_workflow_is_replaced_first() -> None:
    assert fingerprint("order-7-2 lost, order-7 too", "order-7") == (
        "<workflow_id>-<int> lost, <workflow_id> too"
    )
    assert fingerprint("reorder 1 of 11", "1") == "reorder <workflow_id> of <int>"
    assert fingerprint("<int> of int", "int") == "<int> of <workflow_id>"


VALUES = st.one_of(
    st.integers(-(10**15), 10**15).map(str),
    st.integers(0, 10**15).map("{:,}".format),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map("{:.3f}".format),
    st.uuids().map(str),
    st.datetimes().map(lambda moment: moment.isoformat(" ", "seconds")),
    st.ip_addresses().map(str),
    st.text("abcdefghij klmnop.", max_size=30).map("'{}'".format),
    st.binary(min_size=20, max_size=20).map(bytes.hex),
    st.integers(0, 10**9).map("{}ms".format),
    st.integers(0, 2**63).map(hex),
    st.from_regex(r"[a-z]{1,9}\.[a-z]{1,9}@[a-z]{1,9}\.com", fullmatch=True),
    st.from_regex(r"https://[a-z]{1,9}\.com/[a-z0-9/]{0,20}", fullmatch=True),
)
TEXTS = st.text(
    st.one_of(st.sampled_from("0123456789abcdefx.:-+/@'\"`<> ,_#\n"), st.characters()),
    max_size=80,
)


@given(st.lists(st.tuples(st.sampled_from(["order", "of user:", "(", "in"]), VALUES), max_size=8))
def test_a_template_has_none_of_the_values(parts: list[tuple[str, str]]) -> None:
    template = fingerprint(" ".join(f"{word} {value}" for word, value in parts))
    assert not any(character.isdigit() or character in "'@" for character in template), template


@pytest.mark.parametrize(
    "values",
    [
        st.integers(-(10**15), 10**15).map(str),
        st.floats(0.001, 1e9).map("{:.3f}".format),
        st.uuids().map(str),
        st.ip_addresses(v=4).map(str),
        st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds")),
        st.text("abc defg.", max_size=30).map("'{}'".format),
        st.integers(0, 10**9).map("{} s".format),
    ],
)
def test_messages_that_differ_in_values_have_one_template(values: st.SearchStrategy[str]) -> None:
    @given(values, values)
    def check(one: str, other: str) -> None:
        message = "step (2) of {} failed: {}, not 'a'"
        assert fingerprint(message.format(one, one)) == fingerprint(message.format(other, other))

    check()


@given(TEXTS, st.one_of(st.none(), TEXTS))
def test_the_template_of_a_template_is_the_template(message: str, workflow_id: str | None) -> None:
    template = fingerprint(message, workflow_id)
    assert fingerprint(template) == template


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "1", "'", '"', "a.", "1.", ":", "a-", "0x", "f1", "'a ", "1m ", "1,000", "<", "a@"),
        *("+", "1 ", "://", "a://", "1:1", "ab:", "2026-", "\n", "é", "Mon, "),
    ],
)
def test_hostile_messages_take_linear_time(unit: str) -> None:
    message = unit * (1_000_000 // len(unit))
    started = time.perf_counter()
    template = fingerprint(message, str(uuid.UUID(int=7)))
    assert time.perf_counter() - started < 0.5
    assert len(template) <= MAX_TEMPLATE + 60
    assert fingerprint(message[: 2 * MAX_INPUT]) == template
    assert fingerprint(template) == template
