"""The plan: what a control call would do to each workflow, and what it would not, and why."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dbos_notebook.control.display import TableRepr

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.operations import ItemKey, Operation, PlanItem
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.errors import NotebookError

COLUMNS = (
    "workflow_id",
    "name",
    "status",
    "action",
    "verdict",
    "effect",
    "start_step",
    "step_name",
    "new_workflow_id",
    "app_version",
    "queue_name",
    "will_run",
)


class Plan:
    """What a control call would do. Nothing has been written; :meth:`apply` does it.

    In a cell it is a table: each workflow with its status, whether it would be changed
    (``verdict``: ``do``, ``unchanged``, ``refused``, ``not_found``), what would happen or why
    not (``effect``), and whether an executor is likely to take the work (``will_run``).

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> plan = db.cancel(["queued-1", "checkout-1"], plan=True)
    >>> plan.to_frame()[["workflow_id", "verdict", "effect"]]
      workflow_id    verdict                              effect
    0    queued-1         do  will not start; leaves queue 'slow'
    1  checkout-1  unchanged            it has finished: SUCCESS
    """

    def __init__(
        self,
        operation: Operation,
        items: Sequence[PlanItem],
        apply: Callable[[Plan, bool], Receipt],
        *,
        problem: NotebookError | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.operation = operation
        self.items = list(items)
        # Why apply() would be refused as a whole, as things were when the plan was made.
        self.problem = problem
        self.notes = list(notes)
        self._apply = apply
        # What an earlier apply of this very plan has done: it is not done twice.
        self.applied: set[ItemKey] = set()
        self._one_at_a_time = threading.Lock()

    @property
    def action(self) -> str:
        """The operation: "cancel", "fork", …."""
        return self.operation.action

    @property
    def counts(self) -> dict[str, int]:
        """How many workflows per verdict."""
        found = Counter(item.verdict for item in self.items)
        return {word: found[word] for word in ("do", "unchanged", "refused", "not_found")}

    def __len__(self) -> int:
        return len(self.items)

    def apply(self, *, confirm: bool = False) -> Receipt:
        """Do what the plan says, and return the receipt.

        Statuses are read again first: what has changed since so that the plan no longer holds is
        left alone, and the receipt says so. What was refused or not found is left alone as well.
        Applying again does nothing that has been done.

        Parameters
        ----------
        confirm
            Deleting asks for ``confirm=True`` here too.
        """
        with self._one_at_a_time:
            return self._apply(self, confirm)

    def to_frame(self) -> pd.DataFrame:
        """Return the plan as a DataFrame: a row per workflow, or per fork."""
        import pandas as pd

        from dbos_notebook.tables.columns import TEXT

        rows = []
        for item in self.items:
            version, queue = self.operation.target(item)
            enqueued = self.operation.enqueues and item.verdict == "do"
            rows.append(
                (
                    item.workflow_id,
                    item.row.name if item.row else None,
                    item.row.status if item.row else None,
                    self.action,
                    item.verdict,
                    item.effect,
                    item.point.start_step if item.point else None,
                    item.point.step_name if item.point else None,
                    item.new_workflow_id,
                    version if enqueued else None,
                    queue if enqueued else None,
                    item.will_run,
                )
            )
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        texts = {name: TEXT for name in COLUMNS if name != "start_step"}
        return frame.astype(texts | {"start_step": "Int64"})

    def _sheet(self) -> TableRepr:
        options = ", ".join(f"{name}={value!r}" for name, value in self.operation.options().items())
        title = f"Plan: {self.action} {_many(self.items)}{' with ' + options if options else ''}"
        notes = list(self.notes)
        told = {item.will_run for item in self.items if item.will_run}
        hidden = ["action", "start_step", "step_name"]
        if len(told) == 1:
            # The same for all: said once.
            notes.append(f"Will it run? {told.pop()}.")
            hidden.append("will_run")
        idle = [item for item in self.items if (item.will_run or "").startswith("unlikely")]
        if idle:
            notes.append(
                f"⚠ {len(idle):,} would wait: no running executor seems able to take them."
            )
        if self.problem is not None:
            notes.append(f"⚠ plan.apply() would be refused. {self.problem}")
        elif self.counts["do"]:
            notes.append("Nothing has been written. plan.apply() does it.")
        shown = [name for name in COLUMNS if name not in hidden]
        return TableRepr(title, self.counts, notes, self.to_frame(), shown, "plan.to_frame()")

    def __repr__(self) -> str:
        return self._sheet().text()

    def _repr_html_(self) -> str:
        return self._sheet().html()


def _many(items: Sequence[Any]) -> str:
    return f"{len(items):,} workflow{'' if len(items) == 1 else 's'}"
