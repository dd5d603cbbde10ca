"""The causes of recorded errors: what wrappers of every SDK wrap, and words in attributes."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import pytest
from dbos import error as dbos_errors
from dbos._serialization import PortableWorkflowError, exception_to_workflow_error_data

from dbos_notebook.payloads import RecordedError, decode
from dbos_notebook.payloads.decoders import decode_inert
from dbos_notebook.payloads.recorded_errors import MAX_NESTED_ERRORS, describe, find_cause
from dbos_notebook.tables.frames import summarize_error

NO_ATTEMPT = "DBOS Error 7: Step pay has exceeded its maximum of 0 retries"
RETRIES = "dbos._error.DBOSMaxStepRetriesExceeded"


class Declined(Exception):
    """Has no arguments."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        vars(self).update(attributes)


class OutOfStock(Exception):
    """Has a name that does not say that it is an error."""


class Unsaid(Exception):
    """Has an empty argument, as constructors with a default message have."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


def retries(*errors: Exception) -> Exception:
    """Return the error of a step that failed as often as there are errors."""
    return dbos_errors.DBOSMaxStepRetriesExceeded("pay", len(errors), list(errors))


def with_attributes(error: Exception, **attributes: Any) -> Exception:
    """Set attributes of an error and return it."""
    vars(error).update(attributes)
    return error


def recorded(error: Exception) -> str:
    """Return what DBOS records."""
    return base64.b64encode(pickle.dumps(error)).decode()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no card"), ("ValueError", "no card", None, None)),
        (retries(KeyError("a"), ValueError("503")), ("ValueError", "503", RETRIES, 2)),
        (
            retries(OutOfStock("sku 7")),
            (f"{__name__}.OutOfStock", "sku 7", RETRIES, 1),
        ),
        (
            ExceptionGroup("several", [OutOfStock("sku 7")]),
            (f"{__name__}.OutOfStock", "sku 7", "ExceptionGroup", None),
        ),
        (
            retries(),
            (RETRIES, NO_ATTEMPT, None, 0),
        ),
        (ExceptionGroup("g", [ValueError("a")]), ("ValueError", "a", "ExceptionGroup", None)),
        (
            retries(ExceptionGroup("g", [ExceptionGroup("h", [ValueError("a")])])),
            ("ValueError", "a", RETRIES, 1),
        ),
        (
            ExceptionGroup("g", [ValueError("a"), KeyError("b")]),
            ("ExceptionGroup", "g (2 sub-exceptions: ValueError: a; KeyError: 'b')", None, None),
        ),
        (
            PortableWorkflowError("no card", "PaymentError", 402),
            ("PaymentError", "no card", "dbos._serialization.PortableWorkflowError", None),
        ),
        (
            Declined(status_code=402, detail="no funds"),
            (f"{__name__}.Declined", "402: no funds", None, None),
        ),
        (
            Declined(order="o-1", tries=3),
            (f"{__name__}.Declined", "order='o-1', tries=3", None, None),
        ),
        (
            with_attributes(Unsaid(), reason="no funds"),
            (f"{__name__}.Unsaid", "no funds", None, None),
        ),
        # The application's own error says what the application says.
        (
            with_attributes(RuntimeError("order failed"), cause=ValueError("a")),
            ("RuntimeError", "order failed", None, None),
        ),
    ],
)
def test_python_errors(error: Exception, expected: tuple[Any, ...]) -> None:
    assert summarize_error(recorded(error), "py_pickle", decode_inert) == expected


def test_an_error_raised_from_another_is_recorded_without_it() -> None:
    error = RuntimeError("b")
    error.__cause__ = ValueError("a")
    assert b"ValueError" not in pickle.dumps(error)


def test_a_portable_error_tells_the_attempts_but_not_the_cause() -> None:
    stored = json.dumps(exception_to_workflow_error_data(retries(ValueError("a"))))
    summary = summarize_error(stored, "portable_json", decode_inert)
    assert (summary.type, summary.wrapper) == ("DBOSMaxStepRetriesExceeded", None)
    assert summary.attempts == 1


def typescript(*errors: dict[str, Any]) -> str:
    """Return what version 5.3 of the TypeScript SDK records, without stacks."""
    message = "Step pay has exceeded its maximum of 2 retries. Previous errors: Error 1: a"
    error = {"dbosErrorCode": 23, "errors": list(errors), "name": "Error", "message": message}
    return json.dumps(
        {
            "json": {**error, "stack": "Error: …"},
            "meta": {"values": {"errors": [["Error"], ["Error"]]}},
            "__dbos_serializer": "superjson",
        }
    )


def test_typescript_errors() -> None:
    last = {"status": 503, "name": "UpstreamError", "message": "503", "stack": "…"}
    stored = typescript({"name": "Error", "message": "a"}, last)
    summary = summarize_error(stored, "js_superjson", decode_inert)
    assert summary == ("UpstreamError", "503", "DBOSMaxStepRetriesError", 2)
    error = decode(stored, "js_superjson", error=True)
    assert error.cause.state["status"] == 503
    assert describe(error) == "failed after 2 attempts: UpstreamError: 503"


def test_go_errors() -> None:
    stored = (
        "DBOS Error MaxStepRetriesExceeded: Step pay has exceeded its maximum of 3 retries: 503"
    )
    summary = summarize_error(stored, "DBOS_JSON", decode_inert)
    assert (summary.type, summary.message, summary.attempts) == ("error", "503", 3)


def test_nested_wrappers_are_bounded() -> None:
    error = RecordedError("ValueError", ("a",))
    for _ in range(10 * MAX_NESTED_ERRORS):
        error = RecordedError(RETRIES, ("pay", 1, [error]))
    found = find_cause(error)
    assert found.wrapper == RETRIES
    assert len(describe(error)) < 10_000


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("pay",),
        ("pay", 3, None),
        ("pay", "x", []),
        ("pay", 3, [7]),
        (1, 2, {"a": 1}),
        ("p", 3, [[]]),
    ],
)
def test_wrappers_of_another_shape_stay_themselves(args: tuple[Any, ...]) -> None:
    error = RecordedError(RETRIES, args)
    assert find_cause(error).error is error
    assert isinstance(describe(error), str)


def test_the_search_for_attempts_is_bounded() -> None:
    error = RecordedError("error", message="Step " * 1_000_000 + "has exceeded")
    assert find_cause(error).attempts is None
