"""Payloads by DBOS's own deserialization, which runs what they hold. Only on request.

The one place that reaches into ``dbos._serialization``: DBOS has no public function for it, and
DBOSClient reads nothing written before dbos 3.0. Before dbos 2.14 there was one format, a pickle,
and a serializer that replaced it.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol

from dbos_notebook.database import releases
from dbos_notebook.errors import LocationError, MissingPackageError, TrustWarning
from dbos_notebook.payloads import decode

if TYPE_CHECKING:
    from dbos import Serializer


class Decoder(Protocol):
    """What turns the stored texts of a column into values."""

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Return the value of a text of the column ``input``, ``output``, ``error`` or another."""


def require_dbos() -> None:
    """Raise MissingPackageError where dbos, which is to deserialize, is not installed."""
    if releases.installed() is None:
        raise MissingPackageError(
            "trust_payloads=True deserializes with dbos, which is not installed here. Install the "
            "application's version of it, or connect without trust_payloads."
        )


def inert(text: str, serialization: str | None, column: str) -> Any:
    """Decode without running anything: the Decoder of a client that trusts nothing."""
    return decode(text, serialization, error=column == "error")


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
