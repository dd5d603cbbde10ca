"""Decoders: inert (the default), with the user's functions, or with DBOS's own deserialization.

DBOS's deserialization can run code in payloads. Only this module uses ``dbos._serialization``: DBOS
has no public function for it, and DBOSClient reads nothing written before dbos 3.0. Before dbos
2.14, the only format was pickle, which a serializer could replace.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from dbos_notebook.errors import LocationError, MissingPackageError, TrustWarning
from dbos_notebook.imports import WholeImports
from dbos_notebook.payloads import FORMATS, RecordedError, Undecoded, decode
from dbos_notebook.payloads.json_dialects import portable_error
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    from dbos import Serializer


class Decoder(Protocol):
    """A function that converts stored strings of a column into values."""

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Return the value of a string in the column ``input``, ``output``, ``error``, …."""


def decode_inert(text: str, serialization: str | None, column: str) -> Any:
    """Decode without running any code: the default Decoder of a client."""
    return decode(text, serialization, error=column == "error")


def decode_error(text: str, serialization: str | None, decoder: Decoder) -> Any:
    """Return a recorded error, to get its type and message.

    Known formats are decoded inertly, whatever the decoder. Only an application's own format is
    passed to the decoder.
    """
    if serialization is None or serialization in FORMATS or decoder is decode_inert:
        return decode_inert(text, serialization, "error")
    return to_recorded(decoder(text, serialization, "error"))


def to_recorded(value: Any) -> Any:
    """Convert an exception or a portable error to a RecordedError; return other values as is."""
    if not isinstance(value, BaseException):
        return portable_error(value)
    kind = type(value)
    try:
        message = str(value)
    except Exception as problem:  # noqa: BLE001 - the application's code may raise anything
        message = f"<str() raised {type(problem).__name__}>"
    return RecordedError(f"{kind.__module__}.{kind.__qualname__}", value.args, message=message)


Readers = Mapping[str, Callable[[str], Any]]


class ReaderDecoder:
    """A Decoder that calls the user's functions for an application's own formats."""

    def __init__(self, readers: Readers, fallback: Decoder) -> None:
        self._readers = dict(check_readers(readers))
        self._fallback = fallback

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Decode a string with the function for its format, if there is one."""
        reader = self._readers.get(serialization or "")
        if reader is None:
            return self._fallback(text, serialization, column)
        try:
            value = reader(text)
        except Exception as problem:  # noqa: BLE001 - the user's function may raise anything
            raised = sanitize(f"{type(problem).__name__}: {problem}")
            return Undecoded(f"the reader of {sanitize(serialization)!r} raised {raised}", text)
        return to_recorded(value) if column == "error" else value


def check_readers(readers: Readers) -> Readers:
    """Return the readers; raise LocationError if they are not a mapping of names to functions.

    Examples
    --------
    >>> check_readers({"py_pickle": print})
    Traceback (most recent call last):
    dbos_notebook.errors.LocationError: payload_readers has 'py_pickle', which is decoded ...
    """
    if not isinstance(readers, Mapping):
        raise LocationError(
            f"payload_readers={readers!r} must be a dict from serializer names to functions, such "
            'as {"my_serializer": function}.'
        )
    for name, reader in readers.items():
        if not isinstance(name, str) or not name:
            raise LocationError(
                f"payload_readers has the key {name!r}; its keys must be serializer names, as in "
                "the column 'serialization'."
            )
        if name in FORMATS - {"DBOS_GOB"}:
            raise LocationError(
                f"payload_readers has {name!r}, which is decoded without a function. Its keys must "
                "be names of an application's own serializers."
            )
        if not callable(reader):
            raise LocationError(
                f"payload_readers[{name!r}]={reader!r} must be a function that takes a string and "
                "returns a value."
            )
    return readers


class TrustedDecoder:
    """The Decoder for ``trust_payloads=True``: DBOS's deserialization with the given serializer.

    Payloads that DBOS cannot deserialize (another SDK's format, a class that is not installed) are
    decoded inertly, with one TrustWarning.
    """

    def __init__(self, serializer: Serializer | None = None) -> None:
        if importlib.util.find_spec("dbos") is None:
            raise MissingPackageError(
                "trust_payloads=True needs dbos, which is not installed here. Install the "
                "application's version of it, or connect without trust_payloads."
            )
        with WholeImports():
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
        self._warned = False

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Deserialize a string as DBOS does."""
        with WholeImports():
            from dbos import _serialization as own

        try:
            if not hasattr(own, "deserialize_value"):  # before dbos 2.14
                return self._serializer.deserialize(text)
            make: Any = {"input": own.deserialize_args, "error": own.deserialize_exception}.get(
                column, own.deserialize_value
            )
            return make(text, serialization, self._serializer)
        except Exception as problem:  # noqa: BLE001 - the application's code may raise anything
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"A payload of {column!r} ({serialization or 'default'}) could not be "
                    f"deserialized by DBOS ({type(problem).__name__}: {problem}). This payload and "
                    "others like it are decoded without running code instead.",
                    TrustWarning,
                    stacklevel=2,
                )
            return decode_inert(text, serialization, column)
