"""How big and how deep a value would be if it were written out.

A pickle may use one container many times, so a short one can stand for a value without end
("billion laughs"); and a value may be nested deeper than Python can show.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, cast

from dbos_notebook.payloads.values import Opaque, RecordedError

MAX_DEPTH = 200
MAX_WRITTEN = 2_000_000
ALWAYS_WRITTEN = 10_000
MAX_GROWTH = 10
"""A value may be written out as so many items for each of its record's."""


def excess(value: Any, recorded: int) -> str | None:
    """Say what is too much about a value recorded in so many items; ``None``: nothing.

    Examples
    --------
    >>> laughs = ["ha"]
    >>> for _ in range(30):
    ...     laughs = [laughs, laughs]
    >>> excess(laughs, 60)
    'it stands for over 10,000 items'
    >>> excess([1, [2]], 3) is None
    True
    """
    allowed = min(max(ALWAYS_WRITTEN, MAX_GROWTH * recorded), MAX_WRITTEN)
    left = allowed
    # Where one is inside a container, it is not entered again: a repr shows "..." there.
    inside = {id(value)}
    way: list[tuple[Any, Iterator[Any]]] = [(value, iter(_parts(value)))]
    while way:
        container, parts = way[-1]
        for part in parts:
            left -= 1
            if left < 0:
                return f"it stands for over {allowed:,} items"
            if isinstance(part, _CONTAINERS) and id(part) not in inside:
                if len(way) >= MAX_DEPTH:
                    return f"it is nested over {MAX_DEPTH} deep"
                inside.add(id(part))
                way.append((part, iter(_parts(part))))
                break
        else:
            way.pop()
            inside.discard(id(container))
    return None


_CONTAINERS = (list, dict, tuple, set, frozenset, deque, Opaque, RecordedError)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (part for pair in value.items() for part in pair)
    if isinstance(value, Opaque):
        return (value.args, value.kwargs, value.state, value.items)
    if isinstance(value, RecordedError):
        return (value.args, value.state, value.data, value.code)
    return cast(Iterable[Any], value) if isinstance(value, _CONTAINERS) else ()
