"""Inert records, with readable reprs, for values that are not reconstructed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from reprlib import recursive_repr
from typing import Any

from dbos_notebook.text import sanitize

# Python, numpy and notebooks read such attributes of any object and act on them.
_PROTOCOL_PREFIXES = ("__", "_repr_", "_ipython_")


class Opaque:
    """The record of an object whose class was not loaded: its type and recorded state.

    No code of the class runs. Recorded attributes can be read as ``order.total``, positional
    arguments as ``order.args``. Attributes with a meaning for Python or a notebook
    (``__array_interface__``, ``_repr_html_``) are available only in ``order.state``.

    Attributes
    ----------
    type
        The dotted name of the class or function.
    args, kwargs
        The recorded constructor arguments.
    state
        The recorded attributes; a dict if they have names.
    items
        The items of a subclass of list, dict or set.

    Examples
    --------
    >>> order = Opaque("shop.Order", state={"id": 7, "total": 12.5})
    >>> order
    Order(id=7, total=12.5)
    >>> order.total
    12.5
    """

    __slots__ = ("args", "items", "kwargs", "state", "type")

    def __init__(
        self,
        type: str,  # noqa: A002 - the standard term
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        state: Any = None,
        items: list[Any] | None = None,
    ) -> None:
        self.type = type
        self.args = args
        self.kwargs = kwargs or {}
        self.state = state
        self.items = items

    def __getattr__(self, name: str) -> Any:
        # copy and debuggers read slots before they are set.
        if name in Opaque.__slots__ or name.startswith(_PROTOCOL_PREFIXES):
            raise AttributeError(name)
        state = self.state
        if type(state) is dict and name in state:
            return state[name]
        if name in self.kwargs:
            return self.kwargs[name]
        raise AttributeError(f"The record of this {self.type} has no attribute {name!r}.")

    def __dir__(self) -> Iterator[str]:
        yield from Opaque.__slots__
        names = [*(self.state if type(self.state) is dict else ()), *self.kwargs]
        yield from (
            name
            for name in names
            if type(name) is str
            and len(name) <= 200
            and name.isidentifier()
            and not name.startswith(_PROTOCOL_PREFIXES)
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Opaque):
            return NotImplemented
        return _parts(self) == _parts(other)

    def __hash__(self) -> int:
        # Enum members and frozen dataclasses can be keys.
        state = frozenset(self.state.items()) if type(self.state) is dict else ()
        return hash((self.type, tuple(self.args), state))

    @recursive_repr()
    def __repr__(self) -> str:
        parts = [repr(arg) for arg in self.args]
        if type(self.state) is dict:
            parts += [f"{_name(name)}={value!r}" for name, value in self.state.items()]
        elif self.state is not None:
            parts.append(f"state={self.state!r}")
        parts += [f"{_name(name)}={value!r}" for name, value in self.kwargs.items()]
        if self.items:
            parts.append(f"items={self.items!r}")
        return f"{sanitize(self.type.rpartition('.')[2])}({', '.join(parts)})"


def _name(name: Any) -> str:
    return sanitize(name if type(name) is str else repr(name))


def _parts(value: Opaque) -> tuple[Any, ...]:
    return value.type, tuple(value.args), value.kwargs, value.state, value.items


class Reference(Opaque):
    """The name of a class or function that was not loaded.

    Examples
    --------
    >>> Reference("shop.Order")
    <shop.Order>
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{sanitize(self.type)}>"


class Factory(Reference):
    """The default factory of a recorded ``defaultdict``, which is never loaded or called.

    Examples
    --------
    >>> import collections
    >>> collections.defaultdict(Factory("builtins.list"), a=1)
    defaultdict(<builtins.list>, {'a': 1})
    """

    __slots__ = ()

    def __call__(self) -> Any:
        """Raise KeyError, like a dict without the key."""
        raise KeyError(f"No such key; the default factory {self.type} was not loaded.")


class Undecoded:
    """A payload that was not decoded, with the reason and the stored string.

    Examples
    --------
    >>> Undecoded("not valid base64", "%%%")
    <undecoded: not valid base64>
    """

    __slots__ = ("reason", "text")

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        self.text = text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Undecoded):
            return NotImplemented
        return (self.reason, self.text) == (other.reason, other.text)

    __hash__ = None  # type: ignore[assignment] # unhashable, as its attributes are

    def __repr__(self) -> str:
        return f"<undecoded: {sanitize(self.reason, 1_000)}>"
