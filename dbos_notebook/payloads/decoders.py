"""Decoders: inert, with functions of the user's, or by DBOS's own deserialization on request.

DBOS's runs what payloads hold. This is the one place that reaches into ``dbos._serialization``:
DBOS has no public function for it, and DBOSClient reads nothing written before dbos 3.0. Before
dbos 2.14 there was one format, a pickle, and a serializer that replaced it.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from dbos_notebook.errors import LocationError, MissingPackageError, TrustWarning
from dbos_notebook.payloads import FORMATS, RecordedError, Undecoded, decode
from dbos_notebook.payloads.json_dialects import portable_error
from dbos_notebook.text import printable

if TYPE_CHECKING:
    from dbos import Serializer


class Decoder(Protocol):
    """What turns the stored texts of a column into values."""

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Return the value of a text of the column ``input``, ``output``, ``error`` or another."""


def require_dbos() -> None:
    """Raise MissingPackageError where dbos, which is to deserialize, is not installed."""
    if importlib.util.find_spec("dbos") is None:
        raise MissingPackageError(
            "trust_payloads=True deserializes with dbos, which is not installed here. Install the "
            "application's version of it, or connect without trust_payloads."
        )


def inert(text: str, serialization: str | None, column: str) -> Any:
    """Decode without running anything: the Decoder of a client that trusts nothing."""
    return decode(text, serialization, error=column == "error")


def recorded_error(text: str, serialization: str | None, decoder: Decoder) -> Any:
    """Return a recorded error for its type and message.

    Formats that are known are decoded inertly whatever the decoder; one of the application's own,
    which says nothing otherwise, by the decoder.
    """
    if serialization is None or serialization in FORMATS or decoder is inert:
        return inert(text, serialization, "error")
    return as_recorded(decoder(text, serialization, "error"))


def as_recorded(value: Any) -> Any:
    """Make a RecordedError of an exception or of an error's portable form; others stay."""
    if not isinstance(value, BaseException):
        return portable_error(value)
    kind = type(value)
    try:
        message = str(value)
    except Exception as problem:  # noqa: BLE001 - the application's code may raise anything
        message = f"<str() raised {type(problem).__name__}>"
    return RecordedError(f"{kind.__module__}.{kind.__qualname__}", value.args, message=message)


class Readers:
    """A Decoder with functions of the user's for the formats that have a name of their own."""

    def __init__(self, readers: Mapping[str, Callable[[str], Any]], otherwise: Decoder) -> None:
        self._readers = dict(checked_readers(readers))
        self._otherwise = otherwise

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Read a text by the function for its format, if there is one."""
        reader = self._readers.get(serialization or "")
        if reader is None:
            return self._otherwise(text, serialization, column)
        try:
            value = reader(text)
        except Exception as problem:  # noqa: BLE001 - the application's code may raise anything
            raised = printable(f"{type(problem).__name__}: {problem}")
            return Undecoded(f"the reader of {printable(serialization)!r} raised {raised}", text)
        return as_recorded(value) if column == "error" else value


def checked_readers(
    readers: Mapping[str, Callable[[str], Any]],
) -> Mapping[str, Callable[[str], Any]]:
    """Return the readers; raises LocationError for what is no mapping of names to functions.

    Examples
    --------
    >>> checked_readers({"py_pickle": print})
    Traceback (most recent call last):
    dbos_notebook.errors.LocationError: payload_readers has 'py_pickle', which is decoded ...
    """
    if not isinstance(readers, Mapping):
        raise LocationError(
            f"payload_readers={readers!r} must be a dict of functions by the name of their "
            'serializer, such as {"my_serializer": function}.'
        )
    for name, reader in readers.items():
        if not isinstance(name, str) or not name:
            raise LocationError(
                f"payload_readers has the key {name!r}; its keys are names of serializers, as the "
                "column 'serialization' shows them."
            )
        if name in FORMATS - {"DBOS_GOB"}:
            raise LocationError(
                f"payload_readers has {name!r}, which is decoded without a function. Its keys are "
                "the names of an application's own serializers."
            )
        if not callable(reader):
            raise LocationError(
                f"payload_readers[{name!r}] is {reader!r}; it must be a function that takes a "
                "string and returns a value."
            )
    return readers


class Trusted:
    """The Decoder of a client that trusts its payloads: DBOS's own, with the given serializer.

    What DBOS cannot deserialize (another SDK's format, a class that is not installed) is decoded
    inertly instead, with one TrustWarning.
    """

    def __init__(self, serializer: Serializer | None = None) -> None:
        require_dbos()
        from dbos import _serialization as own

        # Formats have names since dbos 2.14.
        name = ("name",) if hasattr(own, "deserialize_value") else ()
        for method in ("serialize", "deserialize", *name):
            if serializer is not None and not callable(getattr(serializer, method, None)):
                raise LocationError(
                    f"serializer={serializer!r} has no method {method!r}. "
                    "Pass an instance of a dbos.Serializer, as the application does."
                )
        self._serializer: Any = serializer or getattr(own, "DBOSDefaultSerializer", None)
        if self._serializer is None:
            self._serializer = getattr(own, "DefaultSerializer", lambda: own)()
        self._told = False

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Deserialize a text as DBOS would."""
        from dbos import _serialization as own

        try:
            if not hasattr(own, "deserialize_value"):  # before dbos 2.14
                return self._serializer.deserialize(text)
            make: Any = {"input": own.deserialize_args, "error": own.deserialize_exception}.get(
                column, own.deserialize_value
            )
            return make(text, serialization, self._serializer)
        except Exception as problem:  # noqa: BLE001 - the application's code may raise anything
            if not self._told:
                self._told = True
                warnings.warn(
                    f"A payload of {column!r} ({serialization or 'default'}) could not be "
                    f"deserialized by DBOS ({type(problem).__name__}: {problem}). It, and others "
                    "like it, are decoded inertly instead.",
                    TrustWarning,
                    stacklevel=2,
                )
            return inert(text, serialization, column)
