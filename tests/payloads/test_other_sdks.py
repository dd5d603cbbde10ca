"""Payloads and failures of the Java and Go SDKs, and of an application's own serializers."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOSClient, Serializer

import dbos_notebook as dn
from dbos_notebook.payloads import Opaque, RecordedError, Undecoded, decode

T = 1795000000000


def go(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def wire(cls: str, message: str | None) -> str:
    """Return what Java's WireThrowable is stored as."""
    return json.dumps(
        {
            "@class": "dev.dbos.transact.json.WireThrowable",
            "v": 1,
            "type": cls,
            "message": message,
            "causeType": None,
            "stackPreview": ["java.util.ImmutableCollections$ListN", ["com.shop.Orders.charge"]],
            "suppressedCount": 0,
            "base64bytes": "rO0ABXNy",
            "node": None,
            "extra": {"@class": "java.util.ImmutableCollections$MapN"},
        }
    )


INSERTED = "workflow_uuid, status, name, inputs, output, error, serialization"


@pytest.fixture(scope="module")
def foreign(corpus_sqlite: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with workflows of the Go and Java SDKs, as these write them."""
    path = tmp_path_factory.mktemp("foreign") / "app.sqlite"
    shutil.copy(corpus_sqlite("3.4.0"), path)
    order = {"@class": "com.shop.Order", "id": 17, "total": ["java.math.BigDecimal", 9.5]}
    java_input = json.dumps(["[Ljava.lang.Object;", [order]])
    timeout = wire("java.net.SocketTimeoutException", "Read timed out")
    rows = [
        ("go-ok", "SUCCESS", go({"OrderID": 17}), go("shipped"), "", "DBOS_JSON"),
        ("go-bad", "ERROR", go({"OrderID": 18}), "__DBOS_NIL", "no address on file", "DBOS_JSON"),
        ("java-bad", "ERROR", java_input, None, timeout, "java_jackson"),
    ]
    with sqlite3.connect(path) as connection:
        for row in rows:
            identity, status, *rest = row
            connection.execute(
                f"INSERT INTO workflow_status ({INSERTED}, created_at, updated_at) "
                "VALUES (?, ?, 'ship', ?, ?, ?, ?, ?, ?)",
                (identity, status, *rest, T, T),
            )
        connection.executemany(
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, output, "
            "error, serialization) VALUES (?, 0, ?, ?, ?, ?)",
            [
                ("go-ok", "main.pack", go(3), "", "DBOS_JSON"),
                ("go-bad", "main.pack", "__DBOS_NIL", "no address on file", "DBOS_JSON"),
                # Java's steps have no serialization.
                ("java-bad", "charge", None, timeout, None),
            ],
        )
    connection.close()
    return path


def test_errors_of_go_and_java_have_a_type_and_a_message(foreign: Path) -> None:
    db = dn.connect(foreign)
    ids = ["go-ok", "go-bad", "java-bad"]
    frame = db.workflows(ids, load_input=True, load_output=True).set_index("workflow_id")
    words = frame[["error_type", "error_message"]].astype("object")
    assert words.loc["go-bad"].tolist() == ["error", "no address on file"]
    assert words.loc["java-bad"].tolist() == ["java.net.SocketTimeoutException", "Read timed out"]
    assert words.loc["go-ok"].isna().all()
    assert frame.loc["go-ok", "error"] is None
    assert (frame.loc["go-ok", "input"], frame.loc["go-ok", "output"]) == (
        {"OrderID": 17},
        "shipped",
    )
    assert frame.loc["java-bad", "input"][0].total == decimal.Decimal("9.5")
    steps = db.steps(ids).set_index("workflow_id")
    assert steps["status"].tolist() == ["ERROR", "SUCCESS", "ERROR"]
    assert steps.loc["java-bad", "error_type"] == "java.net.SocketTimeoutException"
    assert "error" not in str(db.workflow("go-ok")).lower()
    # Many are listed by another query.
    listed = db.workflows(limit=None).set_index("workflow_id")
    assert listed.loc["go-bad", "error_message"] == "no address on file"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", 42),
        ('["java.lang.Long", 1234567890123]', 1234567890123),
        ('["java.lang.Float", 3.5]', 3.5),
        ('["java.math.BigDecimal", 1.10]', decimal.Decimal("1.10")),
        ('["java.math.BigInteger", 12345678901234567890]', 12345678901234567890),
        ('["java.util.ArrayList", ["a", ["java.lang.Long", 7]]]', ["a", 7]),
        ('["java.util.ArrayList", ["java.lang.Long", "7"]]', ["java.lang.Long", "7"]),
        ('["java.util.HashSet", ["a"]]', {"a"}),
        ('{"@class": "java.util.LinkedHashMap", "a": 1}', {"a": 1}),
        ('["java.util.UUID", "00000000-0000-0000-0000-000000000007"]', uuid.UUID(int=7)),
        (
            '["java.time.Instant", "2026-01-02T03:00:00Z"]',
            dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC),
        ),
        ('["java.time.LocalDate", "2026-01-02"]', dt.date(2026, 1, 2)),
        ('["java.time.Duration", "PT3S"]', Opaque("java.time.Duration", ("PT3S",))),
        ('["com.shop.Color", "RED"]', Opaque("com.shop.Color", ("RED",))),
        ('{"@class": "com.shop.Order", "id": 7}', Opaque("com.shop.Order", state={"id": 7})),
        ('["[B", "AP8="]', b"\x00\xff"),
        ('["[Ljava.lang.Object;", [null, true]]', [None, True]),
    ],
)
def test_jackson_payloads_decode(text: str, expected: Any) -> None:
    back = decode(text, "java_jackson")
    assert (type(back), back) == (type(expected), expected)


def test_go_payloads_decode() -> None:
    assert decode(go([1, None]), "DBOS_JSON") == [1, None]
    assert decode(go({"a": 1})) == {"a": 1}
    assert decode("__DBOS_NIL", "DBOS_JSON") is None
    assert decode("__DBOS_NIL") is None
    gob = base64.b64encode(b"\x0d\xff\x81\x02\x01\x02\xff\x82\x00\x01").decode()
    undecoded = decode(gob, "DBOS_GOB")
    assert isinstance(undecoded, Undecoded)
    assert "gob, Go's binary format, 10 bytes" in undecoded.reason
    assert isinstance(decode(go("x")[:-3], "DBOS_JSON"), Undecoded)


def test_a_gob_of_a_dbos_error_has_its_type_and_message() -> None:
    # The value message of an interface, as the gob specification has it: its name, the number of
    # its type, its length, and the first field.
    message = b"queue is full"
    struct = b"\x01" + bytes([len(message)]) + message + b"\x00"
    name = b"*dbos.DBOSError"
    value = bytes([len(name)]) + name + b"\xff\x82" + bytes([len(struct)]) + struct
    error = decode(base64.b64encode(b"\x2e\x10\x00" + value).decode(), "DBOS_JSON", error=True)
    assert (error.type, error.message) == ("dbos.DBOSError", "queue is full")
    other = base64.b64encode(b"\x2e\x10\x00\x0e*main.Declined\xff\x82\x01\x00").decode()
    error = decode(other, "DBOS_JSON", error=True)
    assert error.type == "main.Declined"
    assert "gob" in error.message


class Tagged(Serializer):
    """JSON after a tag; an error as its class and words."""

    def serialize(self, data: Any) -> str:
        return "tag:" + json.dumps(data, default=lambda e: {"name": "E", "message": str(e)})

    def deserialize(self, serialized_data: str) -> Any:  # type: ignore[override]
        value = json.loads(serialized_data.removeprefix("tag:"))
        if isinstance(value, dict) and value.keys() == {"name", "message"}:
            return LookupError(value["message"])
        return value

    def name(self) -> str:
        return "tagged"


@pytest.fixture(scope="module")
def tagged(corpus_sqlite: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with a workflow of a custom serializer, which failed."""
    path = tmp_path_factory.mktemp("tagged") / "app.sqlite"
    shutil.copy(corpus_sqlite("3.4.0"), path)
    client = DBOSClient(system_database_url=f"sqlite:///{path}", serializer=Tagged())
    client.enqueue(
        {"queue_name": "q", "workflow_name": "ship", "workflow_id": "tagged"}, {"weight": 3}
    )
    client.destroy()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE workflow_status SET status = 'ERROR', error = ? WHERE workflow_uuid = 'tagged'",
            (Tagged().serialize({"name": "E", "message": "no card"}),),
        )
    connection.close()
    return path


def test_a_reader_decodes_its_format_without_trust_payloads(tagged: Path) -> None:
    def read(text: str) -> Any:
        return json.loads(text.removeprefix("tag:"))

    db = dn.connect(tagged, payload_readers={"tagged": read})
    flow = db.workflow("tagged")
    assert flow.input.args == ({"weight": 3},)
    assert (flow.error_type, flow.error_message) == ("E", "no card")
    assert flow.error == RecordedError("E", message="no card")
    assert isinstance(dn.connect(tagged).workflow("tagged").input, Undecoded)


def test_a_reader_that_raises_leaves_the_string(tagged: Path) -> None:
    def read(text: str) -> Any:
        raise KeyError("no key\x1b[2J")

    db = dn.connect(tagged, payload_readers={"tagged": read})
    value = db.workflow("tagged").input
    assert isinstance(value, Undecoded)
    assert value.reason.startswith("the reader of 'tagged' raised KeyError: ")
    assert value.reason.isprintable()
    assert value.text.startswith("tag:")
    assert "raised KeyError" in db.workflows("tagged")["error_message"][0]


@pytest.mark.parametrize(
    ("readers", "words"),
    [
        (["tagged"], "must be a dict from serializer names"),
        ({1: json.loads}, "has the key 1"),
        ({"": json.loads}, "has the key ''"),
        ({"py_pickle": json.loads}, "is decoded without a function"),
        ({"tagged": "json"}, "='json' must be a function"),
    ],
)
def test_an_invalid_reader_is_refused(tagged: Path, readers: Any, words: str) -> None:
    with pytest.raises(dn.LocationError, match=words):
        dn.connect(tagged, payload_readers=readers)


def test_a_trusted_serializer_gives_the_type_of_its_errors(tagged: Path) -> None:
    with pytest.warns(dn.TrustWarning):
        db = dn.connect(tagged, trust_payloads=True, serializer=Tagged())
    row = db.workflows("tagged").iloc[0]
    assert (row["error_type"], row["error_message"]) == ("LookupError", "no card")


END_MARKS = (
    ('"__DBOS_STREAM_CLOSED__"', "portable_json"),
    ("gASVGgAAAAAAAACMFl9fREJPU19TVFJFQU1fQ0xPU0VEX1+ULg==", "py_pickle"),
    ("__DBOS_STREAM_CLOSED__", None),
    (go("__DBOS_STREAM_CLOSED__"), "DBOS_JSON"),
)


@pytest.mark.parametrize("mark", END_MARKS, ids=lambda mark: str(mark[1]))
def test_the_end_of_a_stream_is_not_a_value(foreign: Path, tmp_path: Path, mark: Any) -> None:
    path = tmp_path / "app.sqlite"
    shutil.copy(foreign, path)
    with sqlite3.connect(path) as connection:
        connection.executemany(
            'INSERT INTO streams (workflow_uuid, key, value, "offset", function_id, serialization) '
            "VALUES (?, ?, ?, ?, 1, ?)",
            [
                ("go-ok", "tokens", go("It"), 0, "DBOS_JSON"),
                ("go-ok", "tokens", go("is"), 1, "DBOS_JSON"),
                ("go-ok", "tokens", mark[0], 2, mark[1]),
                ("go-ok", "open", go("on"), 0, "DBOS_JSON"),
                ("go-bad", "tokens", go("no"), 0, "DBOS_JSON"),
            ],
        )
    connection.close()
    db = dn.connect(path)
    frame = db.streams(["go-ok", "go-bad"])
    assert frame["value"].tolist() == ["no", "on", "It", "is"]
    assert frame["closed"].tolist() == [False, False, True, True]
    assert db.workflow("go-ok").streams == {"open": ["on"], "tokens": ["It", "is"]}
