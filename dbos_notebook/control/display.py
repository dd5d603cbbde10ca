"""How plans, receipts and progress are displayed: tables as text and HTML, progress bars."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.errors import DatabaseConnectionError
from dbos_notebook.html import environment
from dbos_notebook.status import STATUSES
from dbos_notebook.text import sanitize

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
class TableRepr:
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
            ["" if pd.isna(value) else sanitize(value) for value in values]
            for values in shown[columns].itertuples(index=False)
        ]
        return columns, rows, len(self.frame) - len(shown)

    def text(self) -> str:
        """Return it as plain text."""
        columns, rows, more = self._table()
        counts = ", ".join(f"{count:,} {word}" for word, count in self.counts.items() if count)
        lines = [
            f"{sanitize(self.title, SHOWN_CHARACTERS)}: {counts or 'nothing'}",
            *(f"  {sanitize(note, SHOWN_CHARACTERS)}" for note in self.notes),
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
            .get_template("table.html.j2")
            .render(
                title=sanitize(self.title, SHOWN_CHARACTERS),
                counts={word: count for word, count in self.counts.items() if count},
                notes=[sanitize(note, SHOWN_CHARACTERS) for note in self.notes],
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
    return environment("control")


def progress(title: str, counts: Mapping[str, Any], lines: Sequence[Sequence[str]]) -> str:
    """Return the HTML of a live table: counts, and what is still under way."""
    template = _templates().get_template("progress.html.j2")
    shown = [[sanitize(cell) for cell in line] for line in lines]
    return template.render(title=title, counts=counts, lines=shown)


FIRST_AFTER_SECONDS = 1.0
"""What takes less shows nothing."""
EVERY_SECONDS = 0.5


def in_notebook() -> bool:
    """Tell whether a kernel runs this code, so that HTML can be shown.

    Examples
    --------
    >>> in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class Display:
    """One output that can be replaced, in a notebook or a terminal; none in a pipe."""

    def __init__(self) -> None:
        self._notebook = in_notebook()
        self._terminal = not self._notebook and sys.stderr.isatty()
        self._handle: Any = None
        self._width = 0
        self._last = ("", "")
        self.enabled = self._notebook or self._terminal

    def show(self, html: str, text: str) -> None:
        """Replace what is shown; what has not changed is not sent again."""
        if not self.enabled or (html, text) == self._last:
            return
        self._last = (html, text)
        if self._notebook:
            from IPython.display import display

            show: Any = display
            bundle = {"text/html": html, "text/plain": text}
            if self._handle is None:
                self._handle = show(bundle, raw=True, display_id=True)
            else:
                self._handle.update(bundle, raw=True)
        else:
            line = text.splitlines()[0][:120] if text else ""
            sys.stderr.write("\r" + line.ljust(self._width))
            sys.stderr.flush()
            self._width = len(line)

    def close(self, html: str = "", text: str = "") -> None:
        """Leave a last word, or nothing."""
        if self._handle is not None or (self.enabled and self._width):
            self.show(html, text)
        if self._terminal and self._width:
            sys.stderr.write("\n" if text else "\r")
            sys.stderr.flush()


class Progress:
    """How far a long call has come."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._begun = time.monotonic()
        self._next = self._begun + FIRST_AFTER_SECONDS
        self._display = Display()

    def __enter__(self) -> Self:
        return self

    def show(self, done: int) -> None:
        """Show it, if it is time to."""
        now = time.monotonic()
        if now < self._next or not self._display.enabled:
            return
        self._next = now + EVERY_SECONDS

        text = f"{self._title}: {done:,} of {self._total:,}"
        self._display.show(progress(text, {}, []), text)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.close()


FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.1, 2.0
PATIENCE_SECONDS = 30.0
"""How long a database may be gone before waiting for its workflows ends."""
SHOWN_WORKFLOWS = 8
GONE = "deleted"

Read = Callable[[Sequence[str]], dict[str, WorkflowRecord]]


def watch(
    read: Read, ids: Sequence[str], timeout: float | None, title: str
) -> dict[str, WorkflowRecord]:
    """Look at workflows until none is active or the time is up; return those that there are.

    Parameters
    ----------
    read
        Reads the rows of workflows, by ID; those that are gone are left out.
    ids
        Which.
    timeout
        Seconds; ``None``: as long as it takes.
    title
        What the live table is called.
    """
    begun = time.monotonic()
    seen: dict[str, WorkflowRecord] = {}
    waiting = list(ids)
    pause = FIRST_LOOK_SECONDS
    lost_at: float | None = None
    display = Display()
    try:
        while True:
            try:
                now = read(waiting)
            except DatabaseConnectionError:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > PATIENCE_SECONDS:
                    raise
            else:
                lost_at = None
                for one in waiting:
                    if one in now:
                        seen[one] = now[one]
                    else:
                        seen.pop(one, None)
                waiting = [one for one in waiting if one in now and now[one].active]
            took = time.monotonic() - begun
            if display.enabled and took > 1:
                display.show(*_table(title, ids, seen, waiting))
            left = None if timeout is None else timeout - took
            if not waiting or (left is not None and left <= 0):
                return seen
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, LAST_LOOK_SECONDS)
    finally:
        display.close(*_table(title, ids, seen, waiting))


def _table(
    title: str, ids: Sequence[str], seen: dict[str, WorkflowRecord], waiting: Sequence[str]
) -> tuple[str, str]:
    found = Counter(seen[one].status if one in seen else GONE for one in ids)
    order = [*STATUSES, GONE]
    counts = {status: found[status] for status in order if found[status]}
    lines = [[seen[one].name or "", one, seen[one].status] for one in waiting[:SHOWN_WORKFLOWS]]
    if len(waiting) > SHOWN_WORKFLOWS:
        lines.append([f"… and {len(waiting) - SHOWN_WORKFLOWS:,} more", "", ""])
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    head = f"{title}: {len(ids) - len(waiting):,} of {len(ids):,} have finished"
    return progress(head, counts, lines), f"{head} ({told})"
