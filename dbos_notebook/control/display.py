"""How plans, receipts and progress are displayed: tables as text and HTML, progress bars."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from dbos_notebook.control.interrupts import InterruptCounter
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.errors import DatabaseConnectionError
from dbos_notebook.html import environment
from dbos_notebook.imports import WholeImports
from dbos_notebook.status import OUTCOME_STYLES, STATUSES
from dbos_notebook.text import leaf_name, sanitize, shorten_id

if TYPE_CHECKING:
    import jinja2
    import pandas as pd
    from tqdm import tqdm

MAX_ROWS = 50
"""Rows that a cell displays; ``to_frame()`` has all."""
MAX_TITLE_CHARACTERS = 500
"""Characters of a title or note; ``sanitize`` limits the cells of a table to fewer."""
MAX_CELL_WIDTH = 60
"""Characters to which a column of a plain-text table is padded at most."""
WRAPPED_COLUMNS = ("effect", "detail", "will_run")
"""Columns whose cells may wrap in HTML; the others are short."""
DISPLAY_DELAY_SECONDS = 1.0
"""A call that ends sooner shows no progress."""
DISPLAY_INTERVAL_SECONDS = 0.5
MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.1, 2.0
RECONNECT_SECONDS = 30.0
"""How long waiting for workflows tries to reach a database whose connection was lost."""
MAX_WAITING_WORKFLOWS = 8
"""Workflows that the live table lists by name."""
DELETED = "deleted"

ReadWorkflows = Callable[[Sequence[str]], dict[str, WorkflowRecord]]


@dataclass(frozen=True)
class TableRepr:
    """A title, counts, notes and a table, as text and as HTML.

    Attributes
    ----------
    counts
        The number of rows by verdict or outcome.
    notes
        Sentences above the table.
    columns
        The columns of ``frame`` to display; columns without any value are left out.
    all_rows
        The expression that returns all rows, named where rows are left out.
    labels
        What is displayed for a verdict or an outcome instead of its usual label.
    """

    title: str
    counts: Mapping[str, int]
    notes: Sequence[str]
    frame: pd.DataFrame
    columns: Sequence[str]
    all_rows: str = ".to_frame()"
    labels: Mapping[str, str] = field(default_factory=dict)

    def _table(self) -> tuple[list[str], list[list[str]], int]:
        """Return the columns, the cells and the number of rows left out."""
        import pandas as pd

        frame = self.frame.head(MAX_ROWS)
        columns = [name for name in self.columns if frame[name].notna().any()]
        # A row stays one line, whatever characters a workflow's name contains.
        rows = [
            ["" if pd.isna(value) else sanitize(value) for value in values]
            for values in frame[columns].itertuples(index=False)
        ]
        return columns, rows, len(self.frame) - len(frame)

    def _counts(self) -> list[tuple[str, int]]:
        return [(name, count) for name, count in self.counts.items() if count]

    def _label(self, name: str) -> str:
        return self.labels.get(name, OUTCOME_STYLES[name].label)

    def text(self) -> str:
        """Return plain text: IDs in full, because they are copied from it."""
        columns, rows, omitted = self._table()
        for row in rows:
            for position, name in enumerate(columns):
                if name == "name":
                    row[position] = leaf_name(row[position])
        counts = ", ".join(f"{count:,} {self._label(name)}" for name, count in self._counts())
        lines = [
            f"{sanitize(self.title, MAX_TITLE_CHARACTERS)}: {counts or 'nothing'}",
            *(f"  {sanitize(note, MAX_TITLE_CHARACTERS)}" for note in self.notes),
        ]
        widths = [
            min(MAX_CELL_WIDTH, max(len(cell) for cell in column))
            for column in zip(columns, *rows, strict=True)
        ]
        for row in [columns, *rows] if rows else []:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
        if omitted:
            lines.append(f"  … and {omitted:,} more: {self.all_rows}")
        return "\n".join(lines)

    def html(self) -> str:
        """Return HTML."""
        columns, rows, omitted = self._table()
        shorten: dict[str, Callable[[str], str]] = {
            "workflow_id": shorten_id,
            "new_workflow_id": shorten_id,
            "name": leaf_name,
        }
        return (
            _templates()
            .get_template("table.html.j2")
            .render(
                title=sanitize(self.title, MAX_TITLE_CHARACTERS),
                counts=[
                    (OUTCOME_STYLES[name].status, self._label(name), count)
                    for name, count in self._counts()
                ],
                notes=[sanitize(note, MAX_TITLE_CHARACTERS) for note in self.notes],
                headers=[name.replace("_", " ") for name in columns],
                columns=columns,
                wrapped=WRAPPED_COLUMNS,
                rows=[
                    [
                        (shorten[name](cell) if name in shorten else cell, cell)
                        for name, cell in zip(columns, row, strict=True)
                    ]
                    for row in rows
                ],
                omitted=omitted,
                all_rows=self.all_rows,
            )
        )


@cache
def _templates() -> jinja2.Environment:
    return environment("control")


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this code, so that it can display HTML.

    Examples
    --------
    >>> in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def progress_bar(title: str, total: int, *, enabled: bool | None = None) -> tqdm[Any]:
    """Return a progress bar that appears after a second in a notebook or a terminal.

    Parameters
    ----------
    enabled
        ``None``: in notebooks and terminals, so that a pipe or a log file gets nothing.
    """
    with WholeImports():
        from tqdm.auto import tqdm

    if enabled is None and in_notebook():
        enabled = True
    return tqdm(
        desc=sanitize(title),
        total=total,
        disable=None if enabled is None else not enabled,
        delay=DISPLAY_DELAY_SECONDS,
        mininterval=DISPLAY_INTERVAL_SECONDS,
        miniters=0,
        leave=False,
    )


def watch(
    read: ReadWorkflows, ids: Sequence[str], timeout: float | None, title: str
) -> dict[str, WorkflowRecord]:
    """Read workflows until none is active or the time is up, and display their progress.

    A terminal gets a progress bar. A notebook gets a live table instead, because it lists the
    workflows that have not finished, and because it stays legible in a saved notebook.

    Parameters
    ----------
    read
        Reads workflows by ID; deleted workflows are missing from its result.
    timeout
        Seconds; ``None``: no limit.
    title
        Title of the progress bar or table.

    Returns
    -------
    dict
        The workflows by ID as they were last read, without deleted ones.

    Raises
    ------
    DatabaseConnectionError
        The database has been unreachable for ``RECONNECT_SECONDS``.
    KeyboardInterrupt
        Ctrl-C was pressed.
    """
    with InterruptCounter() as interrupts:
        return _watch(read, ids, timeout, title, interrupts)


def _watch(
    read: ReadWorkflows,
    ids: Sequence[str],
    timeout: float | None,
    title: str,
    interrupts: InterruptCounter,
) -> dict[str, WorkflowRecord]:
    started = time.monotonic()
    records: dict[str, WorkflowRecord] = {}
    waiting = list(ids)
    interval = MIN_POLL_SECONDS
    lost_at: float | None = None
    table = _LiveTable(title, ids)
    bar = progress_bar(title, len(ids), enabled=False if table.enabled else None)
    try:
        while True:
            found: dict[str, WorkflowRecord] | None = None
            try:
                found = interrupts.interruptible(partial(read, waiting))
            except DatabaseConnectionError:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > RECONNECT_SECONDS:
                    raise
            # A read may end as if nothing had happened, because Python discards exceptions that
            # are raised in callbacks of weak references.
            if interrupts.count:
                raise KeyboardInterrupt
            if found is not None:
                lost_at = None
                for workflow_id in waiting:
                    records.pop(workflow_id, None)
                records |= found
                waiting = [key for key in waiting if key in found and found[key].active]
            elapsed = time.monotonic() - started
            if elapsed > DISPLAY_DELAY_SECONDS:
                table.show(records, waiting)
                bar.update(len(ids) - len(waiting) - bar.n)
            remaining = None if timeout is None else timeout - elapsed
            if not waiting or (remaining is not None and remaining <= 0):
                return records
            pause = interval if remaining is None else min(interval, remaining)
            interrupts.interruptible(partial(time.sleep, pause))
            interval = min(interval * 1.5, MAX_POLL_SECONDS)
    finally:
        bar.close()
        table.close(records, waiting)


class _LiveTable:
    """A table in a notebook's cell: how many workflows have which status, and which are active."""

    def __init__(self, title: str, ids: Sequence[str]) -> None:
        self._title = title
        self._ids = ids
        self._handle: Any = None
        self._shown = ""
        self.enabled = in_notebook()

    def show(self, records: Mapping[str, WorkflowRecord], waiting: Sequence[str]) -> None:
        """Display or update the table. An unchanged table is not sent again."""
        if not self.enabled:
            return
        heading, counts, rows = _progress(self._title, self._ids, records, waiting)
        html = (
            _templates()
            .get_template("progress.html.j2")
            .render(title=heading, counts=counts, rows=rows)
        )
        if html == self._shown:
            return
        self._shown = html
        text = f"{heading} ({', '.join(f'{n:,} {status}' for status, n in counts.items())})"
        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            with WholeImports():
                from IPython.display import display

            display_data: Any = display  # IPython has no type annotations
            self._handle = display_data(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def close(self, records: Mapping[str, WorkflowRecord], waiting: Sequence[str]) -> None:
        """Leave the final state in the cell, if the table was displayed."""
        if self._handle is not None:
            self.show(records, waiting)


def _progress(
    title: str,
    ids: Sequence[str],
    records: Mapping[str, WorkflowRecord],
    waiting: Sequence[str],
) -> tuple[str, dict[str, int], list[list[str]]]:
    """Return the heading, the counts by status, and the rows of a live table."""
    totals = Counter(
        records[workflow_id].status if workflow_id in records else DELETED for workflow_id in ids
    )
    counts = {status: totals[status] for status in [*STATUSES, DELETED] if totals[status]}
    rows = [
        [
            sanitize(records[workflow_id].name or ""),
            sanitize(workflow_id),
            sanitize(records[workflow_id].status),
        ]
        for workflow_id in waiting[:MAX_WAITING_WORKFLOWS]
        if workflow_id in records
    ]
    if len(waiting) > MAX_WAITING_WORKFLOWS:
        rows.append([f"… and {len(waiting) - MAX_WAITING_WORKFLOWS:,} more", "", ""])
    return f"{title}: {len(ids) - len(waiting):,} of {len(ids):,} have finished", counts, rows
