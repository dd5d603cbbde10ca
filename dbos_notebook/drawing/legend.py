"""The legend of a picture."""

from __future__ import annotations

from dataclasses import dataclass, field

from dbos_notebook import text

_LEGEND_LINE_HEIGHT = 18.0


@dataclass
class LegendItem:
    """A symbol and its label; ``kind`` selects how the template draws ``value``."""

    kind: str
    value: str
    text: str
    x: float = 0.0
    y: float = 0.0


@dataclass
class Legend:
    """The legend of a picture, laid out in lines."""

    items: list[LegendItem] = field(default_factory=list)
    height: float = 0.0

    def add(self, kind: str, value: str, text: str) -> None:
        """Add an item."""
        self.items.append(LegendItem(kind, value, text))

    def arrange(self, max_width: float) -> None:
        """Lay out the items in lines at most ``max_width`` pixels wide."""
        x = y = 0.0
        for item in self.items:
            item_width = text.text_width(item.text, 11) + (24 if item.kind else 0)
            if x and x + item_width > max_width:
                x, y = 0.0, y + _LEGEND_LINE_HEIGHT
            item.x, item.y = x, y
            x += item_width + 18
        self.height = y + _LEGEND_LINE_HEIGHT + 4 if self.items else 8.0
