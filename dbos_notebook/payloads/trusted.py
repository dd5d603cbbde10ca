"""Payloads by DBOS's own deserialization, which runs what they hold. Only on request.

The one place that reaches into ``dbos._serialization``: DBOS has no public function for it, and
DBOSClient reads nothing written before dbos 3.0.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol

from dbos_notebook.errors import LocationError, TrustWarning
from dbos_notebook.payloads import decode

if TYPE_CHECKING:
    from dbos import Serializer


class Decoder(Protocol):
    """What turns the stored texts of a column into values."""

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Return the value of a text of the column ``input``, ``output``, ``error`` or another."""


def inert(text: str, serialization: str | None, column: str) -> Any:
    """Decode without running anything: the Decoder of a client that trusts nothing."""
    return decode(text, serialization, error=column == "error")


class Trusted:
    """The Decoder of a client that trusts its payloads: DBOS's own, with the given serializer.

    What DBOS cannot deserialize (another SDK's format, a class that is not installed) is decoded
    inertly instead, with one TrustWarning.
    """

    def __init__(self, serializer: Serializer | None = None) -> None:
        from dbos._serialization import DBOSDefaultSerializer

        for method in ("serialize", "deserialize", "name"):
            if serializer is not None and not callable(getattr(serializer, method, None)):
                raise LocationError(
                    f"serializer={serializer!r} has no method {method!r}. "
                    "Pass an instance of a dbos.Serializer, as the application does."
                )
        self._serializer = serializer or DBOSDefaultSerializer
        self._told = False

    def __call__(self, text: str, serialization: str | None, column: str) -> Any:
        """Deserialize a text as DBOS would."""
        from dbos import _serialization as own

        make: Any = {"input": own.deserialize_args, "error": own.deserialize_exception}.get(
            column, own.deserialize_value
        )
        try:
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
