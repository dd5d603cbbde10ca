"""The plan: what a control call would do to each workflow, or why it would do nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dbos_notebook.control.display import TableRepr
from dbos_notebook.control.operations import VERDICTS, ItemKey, Operation, PlanItem
from dbos_notebook.text import leaf_name, plural

if TYPE_CHECKING:
    import pandas as pd

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


DISPLAYED = (
    "name",
    "workflow_id",
    "status",
    "verdict",
    "will_run",
    "effect",
    "new_workflow_id",
    "app_version",
    "queue_name",
)
"""The columns of a displayed plan: first those that decide whether to apply it."""
MAX_LISTED = 3
"""A plan that changes more workflows is summarized by kind."""
MAX_KINDS = 5
"""Kinds of workflows that a summary names."""


class Plan:
    """What a control call would do. Nothing has been written; :meth:`apply` does it.

    In a cell it is a table: each workflow with its status, whether it would be changed
    (``verdict``: ``ready``, ``unchanged``, ``refused``, ``not_found``), what would happen or why
    not (``effect``), and whether an executor is likely to run the work (``will_run``).

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> plan = db.cancel(["queued-2", "checkout-1"], plan=True)
    >>> plan.to_frame()[["workflow_id", "verdict", "effect"]]
      workflow_id    verdict                              effect
    0    queued-2      ready  will not start; leaves queue 'slow'
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
        # Why apply() would have been refused as a whole when the plan was made.
        self.problem = problem
        self.notes = list(notes)
        self._apply = apply
        # What an earlier apply() of this plan has done: it is not done twice.
        self.applied: set[ItemKey] = set()
        self._apply_lock = threading.Lock()

    @property
    def action(self) -> str:
        """The operation: "cancel", "fork", …."""
        return self.operation.action

    @property
    def counts(self) -> dict[str, int]:
        """The number of workflows per verdict."""
        counted = Counter(item.verdict for item in self.items)
        return {verdict: counted[verdict] for verdict in VERDICTS}

    @property
    def kinds(self) -> list[str]:
        """What would be changed, by start step or else by name, the most frequent first.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.fork(db.workflows(name="checkout", status="ERROR"), "failed", plan=True).kinds
        ['3 from charge']
        """
        found = Counter(
            f"from {leaf_name(item.point.step_name or item.point.label)}"
            if item.point
            else leaf_name(item.row.name or "workflow")
            for item in self.items
            if item.verdict == "ready" and item.row is not None
        )
        named = [f"{count:,} {kind}" for kind, count in found.most_common(MAX_KINDS)]
        others = found.total() - sum(count for _, count in found.most_common(MAX_KINDS))
        return [*named, f"{others:,} others"] if others else named

    @property
    def unlikely(self) -> int:
        """The number of workflows that would wait, because no live executor seems to run them."""
        return sum(
            item.will_run is not None and item.will_run.likelihood == "unlikely"
            for item in self.items
        )

    def __len__(self) -> int:
        return len(self.items)

    def apply(self, *, confirm: bool = False) -> Receipt:
        """Apply the plan, and return the receipt.

        Statuses are read again first. A workflow that has changed since, so that the plan no
        longer holds, is skipped, and the receipt says so; what was refused or not found is skipped
        too. Applying again repeats nothing that has been done.

        Parameters
        ----------
        confirm
            Deleting requires ``confirm=True`` here too.
        """
        with self._apply_lock:
            return self._apply(self, confirm)

    def to_frame(self) -> pd.DataFrame:
        """Return the plan as a DataFrame: a row per workflow, or per fork."""
        import pandas as pd

        from dbos_notebook.tables.columns import STRING_DTYPE

        rows = []
        for item in self.items:
            version, queue = self.operation.target(item)
            enqueued = self.operation.enqueues and item.verdict == "ready"
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
                    str(item.will_run) if item.will_run else None,
                )
            )
        types = dict.fromkeys(COLUMNS, STRING_DTYPE) | {"start_step": "Int64"}
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(types)

    def _table(self) -> TableRepr:
        options = ", ".join(f"{name}={value!r}" for name, value in self.operation.options().items())
        subject = self.operation.subject.removesuffix("_id").removesuffix("_name")
        workflows = plural(len(self.items), subject)
        title = f"Plan: {self.action} {workflows}{' with ' + options if options else ''}"
        notes = list(self.notes)
        if self.counts["ready"] > MAX_LISTED and self.operation.subject == "workflow_id":
            notes.append(f"{plural(self.counts['ready'], 'workflow')}: {', '.join(self.kinds)}.")
        answers = {item.will_run for item in self.items if item.will_run}
        hidden = []
        if len(answers) == 1:
            # One note instead of the same value in each row.
            notes.append(f"Will it run? {answers.pop()}.")
            hidden.append("will_run")
        if unlikely := self.unlikely:
            notes.append(f"⚠ {unlikely:,} would wait: no live executor appears able to run them.")
        if self.problem is not None:
            notes.append(f"⚠ plan.apply() would be refused. {self.problem}")
        elif self.counts["ready"]:
            notes.append("Nothing has been written. plan.apply() applies the plan.")
        return TableRepr(
            title,
            self.counts,
            notes,
            self.to_frame(),
            [name for name in DISPLAYED if name not in hidden],
            "plan.to_frame()",
            {"ready": self.operation.planned},
        )

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()
