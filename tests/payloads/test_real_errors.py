"""The class and the words of errors that real packages raise, as DBOS stores them."""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from real_errors import PACKAGES, made

from dbos_notebook.payloads import Opaque, RecordedError, Reference, decode
from dbos_notebook.payloads.recorded_errors import to_recorded_error

STORED = json.loads(Path(__file__).with_name("real_errors.json").read_text())

SHOWN = {
    # The cause is added.
    "dbos retries": (
        "DBOS Error 7: Step charge has exceeded its maximum of 3 retries: KeyError: 'b'"
    ),
    # The class is a Reference, not a class.
    "standard decimal": "[<decimal.ConversionSyntax>]",
    # urllib3 leaves the pool out of its pickles.
    "requests refused": (
        "Max retries exceeded with url: /orders (Caused by NewConnectionError("
        "'Failed to establish a new connection: [Errno 111] Connection refused'))"
    ),
    "urllib3 refused": (
        "Max retries exceeded with url: /a (Caused by NewConnectionError("
        "'Failed to establish a new connection: [Errno 111] Connection refused'))"
    ),
    "standard ExceptionGroup": "many (2 sub-exceptions: ValueError: a; KeyError: 'b')",
    "standard ExceptionGroup of one": "many (1 sub-exception: ValueError: a)",
    # What these say is in their code alone.
    "elasticsearch connection": "refused",
    "paramiko connections": "{('10.0.0.7', 22): ConnectionRefusedError(111, 'no')}",
    "werkzeug not found unsaid": "404 Not Found",
}
"""What is shown where it is not what Python says."""


def expected(package: str, name: str, words: str) -> str:
    if name == "DBOSMaxStepRetriesExceeded":
        return f"{words}: KeyError: 'b'"
    if package == "sqlalchemy":
        # The link to its manual has SQLAlchemy's version, which is not recorded.
        words = words.partition("(Background on this error at:")[0].rstrip()
    if (package, name) == ("pydantic", "user"):
        words = words.partition("\n\nFor further information")[0]
    return SHOWN.get(f"{package} {name}", words)


@pytest.mark.parametrize("package", STORED)
def test_stored_errors_have_their_class_and_message(package: str) -> None:
    assert STORED[package]
    for name, kind, words, stored in STORED[package]:
        error = decode(stored, "py_pickle", error=True)
        assert isinstance(error, RecordedError), name
        assert (error.type, error.message) == (kind, expected(package, name, words)), name


INSTALLED = ("sqlalchemy", "starlette", "requests", "httpx", "dbos", "standard", "psycopg")


@pytest.mark.parametrize("package", INSTALLED)
def test_errors_of_installed_packages_have_their_class_and_message(package: str) -> None:
    assert package in PACKAGES
    assert package == "standard" or importlib.util.find_spec(package), f"{package} is not installed"
    for name, kind, words, stored in made(package):
        error = decode(stored, "py_pickle", error=True)
        assert (error.type, error.message) == (kind, expected(package, name, words)), name


class Keyworded(Exception):
    """Made by keyword arguments alone, as azure's and many an application's errors are."""

    def __init__(self, *, order: str, reason: str) -> None:
        super().__init__()
        self.order, self.reason = order, reason

    def __reduce__(self) -> Any:
        return functools.partial(Keyworded, order=self.order, reason=self.reason), ()


class Newly(Exception):
    """Pickles with keyword arguments for ``__new__``."""

    def __new__(cls, *, reason: str = "") -> Newly:
        return super().__new__(cls)

    def __init__(self, *, reason: str = "") -> None:
        self.reason = reason

    def __reduce__(self) -> Any:
        return copyreg_newobj_ex, (Newly, (), {"reason": self.reason})


def copyreg_newobj_ex(cls: type, args: Any, kwargs: Any) -> Any:
    return cls(*args, **kwargs)


def of(value: object) -> RecordedError:
    stored = base64.b64encode(pickle.dumps(value)).decode()
    error = decode(stored, "py_pickle", error=True)
    assert isinstance(error, RecordedError)
    return error


def test_errors_built_by_a_function_have_the_class_it_returns() -> None:
    for error, words in (
        (Keyworded(order="o-1", reason="no card"), "no card"),
        (Newly(reason="b"), "b"),
    ):
        back = of(error)
        assert back.type == f"{__name__}.{type(error).__name__}"
        assert back.message == words
        assert back.kwargs["reason"] == words


class Attributed(Exception):
    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        vars(self).update(attributes)


class Composed(Exception):
    def __init__(self, order: str, code: int) -> None:
        self.message = f"Order {order} was declined with {code}"

    def __str__(self) -> str:
        return self.message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Attributed(message="no card"), "no card"),
        (Attributed(_message="no card", status=402), "402: no card"),
        (Attributed(detail={"sku": "unknown"}, code="E1"), "E1: {'sku': 'unknown'}"),
        (Attributed(orig=ValueError("no card")), "ValueError: no card"),
        (Attributed(order="o-1", retries=3, empty=None), "order='o-1', retries=3"),
        (Attributed(), ""),
        (Composed("o-1", 402), "Order o-1 was declined with 402"),
        (RuntimeError(ValueError("inner")), "inner"),
        (RuntimeError(KeyError("inner")), "'inner'"),
    ],
    ids=repr,
)
def test_messages_kept_in_attributes_are_shown(error: Exception, words: str) -> None:
    assert of(error).message == words


def test_a_lower_case_class_and_an_unknown_function_keep_their_names() -> None:
    assert to_recorded_error(Opaque("socket.timeout", ("timed out",))) == RecordedError(
        "socket.timeout", ("timed out",)
    )
    made_error = to_recorded_error(
        Opaque("shop.rebuild", ("x", Reference("shop.Order.Declined"), ("a",)))
    )
    assert made_error is not None
    assert (made_error.type, made_error.args) == ("shop.Order.Declined", ("x", ("a",)))
