"""How plans and receipts look: a table as text, and as HTML from a template that escapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from dbos_notebook.printable import printable

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

SHOWN = 50
"""Rows that a cell shows; ``to_frame()`` has all."""
SHOWN_CHARACTERS = 500
"""Of a title and a note; a cell has fewer."""
WIDE = ("workflow_id", "new_workflow_id", "effect", "detail", "will_run")
"""Columns whose texts may be broken into lines; the others are short."""


@dataclass(frozen=True)
class Sheet:
    """A title, how many of what, notes, and a table.

    Attributes
    ----------
    counts
        How many lines per word, with the word's class in the style.
    notes
        Sentences that stand above the table.
    columns
        Which of the frame's columns are shown; those without a value go.
    """

    title: str
    counts: Mapping[str, int]
    notes: Sequence[str]
    frame: pd.DataFrame
    columns: Sequence[str]
    whole: str = ".to_frame()"

    def _table(self) -> tuple[list[str], list[list[str]], int]:
        import pandas as pd

        shown = self.frame.head(SHOWN)
        columns = [name for name in self.columns if shown[name].notna().any()]
        # A line of the table stays one line, whatever a workflow is called.
        rows = [
            ["" if pd.isna(value) else printable(value) for value in values]
            for values in shown[columns].itertuples(index=False)
        ]
        return columns, rows, len(self.frame) - len(shown)

    def text(self) -> str:
        """Return it as plain text."""
        columns, rows, more = self._table()
        counts = ", ".join(f"{count:,} {word}" for word, count in self.counts.items() if count)
        lines = [
            f"{printable(self.title, SHOWN_CHARACTERS)}: {counts or 'nothing'}",
            *(f"  {printable(note, SHOWN_CHARACTERS)}" for note in self.notes),
        ]
        widths = [
            min(60, max(len(cell) for cell in column))
            for column in zip(columns, *rows, strict=True)
        ]
        for row in [columns, *rows] if rows else []:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
        if more:
            lines.append(f"  … and {more:,} more: {self.whole}")
        return "\n".join(lines)

    def html(self) -> str:
        """Return it as HTML."""
        columns, rows, more = self._table()
        return (
            _templates()
            .get_template("sheet.html.j2")
            .render(
                title=printable(self.title, SHOWN_CHARACTERS),
                counts={word: count for word, count in self.counts.items() if count},
                notes=[printable(note, SHOWN_CHARACTERS) for note in self.notes],
                columns=[name.replace("_", " ") for name in columns],
                names=columns,
                wide=WIDE,
                rows=rows,
                more=more,
                whole=self.whole,
            )
        )


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        # The style is that of all cards, and stands in one place.
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("dbos_notebook", "control/templates"),
                jinja2.PackageLoader("dbos_notebook", "pictures/templates"),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def progress(title: str, counts: Mapping[str, Any], lines: Sequence[Sequence[str]]) -> str:
    """Return the HTML of a live table: counts, and what is still under way."""
    template = _templates().get_template("progress.html.j2")
    shown = [[printable(cell) for cell in line] for line in lines]
    return template.render(title=title, counts=counts, lines=shown)
