"""The line below a picture that says what its marks mean: only of what is in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dbos_notebook.pictures import words

_ROW = 18.0


@dataclass
class Item:
    """One mark and its meaning. ``what`` chooses how the template draws ``value``."""

    what: str
    value: str
    text: str
    x: float = 0.0
    y: float = 0.0


@dataclass
class Legend:
    """The items, set in lines."""

    items: list[Item] = field(default_factory=list)
    high: float = 0.0

    def add(self, what: str, value: str, text: str) -> None:
        """Add a mark."""
        self.items.append(Item(what, value, text))

    def arrange(self, room: float) -> None:
        """Set the items in lines no longer than ``room``."""
        x = y = 0.0
        for item in self.items:
            size = words.width(item.text, 11) + (24 if item.what else 0)
            if x and x + size > room:
                x, y = 0.0, y + _ROW
            item.x, item.y = x, y
            x += size + 18
        self.high = y + _ROW + 4 if self.items else 8.0
