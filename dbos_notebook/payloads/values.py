"""What stands for a value that cannot come back as itself: inert records, with legible reprs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from reprlib import recursive_repr
from typing import Any

from dbos_notebook.text import printable

# Python, numpy and notebooks look these up on any object, and obey what they find.
_ASKED_BY_MACHINES = ("__", "_repr_", "_ipython_")


class Opaque:
    """An object of a class that was not loaded: its type, and what was recorded of it.

    Nothing of the class runs. Attributes that the record holds can be read:
    ``order.total``; in a record without names, ``order.args``. Those whose names mean something
    to Python or a notebook (``__array_interface__``, ``_repr_html_``) only by ``order.state``.

    Attributes
    ----------
    type
        The dotted name of the class or function.
    args, kwargs
        What it was to be made with.
    state
        What was recorded of its attributes: a dict where there were names.
    items
        What was added to it, of a subclass of list, dict or set.

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
        type: str,  # noqa: A002 - the word for it
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
        # A slot is asked for here while it is not yet set: by a copy, or a debugger.
        if name in Opaque.__slots__ or name.startswith(_ASKED_BY_MACHINES):
            raise AttributeError(name)
        state = self.state
        if type(state) is dict and name in state:
            return state[name]
        if name in self.kwargs:
            return self.kwargs[name]
        raise AttributeError(f"no {name!r} was recorded of this {self.type}")

    def __dir__(self) -> Iterator[str]:
        yield from Opaque.__slots__
        names = [*(self.state if type(self.state) is dict else ()), *self.kwargs]
        yield from (
            name
            for name in names
            if type(name) is str
            and len(name) <= 200
            and name.isidentifier()
            and not name.startswith(_ASKED_BY_MACHINES)
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Opaque):
            return NotImplemented
        return _parts(self) == _parts(other)

    def __hash__(self) -> int:
        # It may be a key: an enum's member, a frozen dataclass.
        state = frozenset(self.state.items()) if type(self.state) is dict else ()
        return hash((self.type, tuple(self.args), state))

    @recursive_repr()
    def __repr__(self) -> str:
        shown = [repr(arg) for arg in self.args]
        if type(self.state) is dict:
            shown += [f"{_name(name)}={value!r}" for name, value in self.state.items()]
        elif self.state is not None:
            shown.append(f"state={self.state!r}")
        shown += [f"{_name(name)}={value!r}" for name, value in self.kwargs.items()]
        if self.items:
            shown.append(f"items={self.items!r}")
        return f"{self.type.rpartition('.')[2]}({', '.join(shown)})"


def _name(name: Any) -> str:
    return printable(name if type(name) is str else repr(name))


def _parts(value: Opaque) -> tuple[Any, ...]:
    return value.type, tuple(value.args), value.kwargs, value.state, value.items


class Reference(Opaque):
    """A class or function that a payload names, not loaded.

    Examples
    --------
    >>> Reference("shop.Order")
    <shop.Order>
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{self.type}>"


class Factory(Reference):
    """What makes the missing values of a recorded ``defaultdict``: not loaded, and never called.

    Examples
    --------
    >>> import collections
    >>> collections.defaultdict(Factory("builtins.list"), a=1)
    defaultdict(<builtins.list>, {'a': 1})
    """

    __slots__ = ()

    def __call__(self) -> Any:
        """Raise KeyError, as a dict without that key does."""
        raise KeyError(f"There is no such key, and {self.type} is not loaded to make its value.")


class Undecoded:
    """A payload that was not decoded: the reason, and the stored text.

    Examples
    --------
    >>> Undecoded("it is no base64", "%%%")
    <undecoded: it is no base64>
    """

    __slots__ = ("reason", "text")

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        self.text = text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Undecoded):
            return NotImplemented
        return (self.reason, self.text) == (other.reason, other.text)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<undecoded: {self.reason}>"
