"""The receipt: what a control call did to each workflow, read back from the database."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbos_notebook.control.display import TableRepr
from dbos_notebook.control.operations import Operation, PlanItem, Snapshot
from dbos_notebook.status import (
    ACTIVE_STATUSES,
    OUTCOMES,
    STATUS_STYLES,
    STATUSES_BY_SEVERITY,
    Outcome,
)
from dbos_notebook.tables.filters import as_seconds
from dbos_notebook.text import plural, sanitize

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.batch_runner import Batch, BatchRunner
    from dbos_notebook.control.client_pool import ClientPool
    from dbos_notebook.control.transactions import Attempt


@dataclass(frozen=True)
class ReceiptLine:
    """The outcome for one workflow.

    Attributes
    ----------
    outcome
        ``done``; ``unchanged`` (``detail`` says why); ``not_found``; ``failed``; ``unknown``
        where the database could no longer be read.
    detail
        What was done, or why not.
    start_step
        The step that a fork or rewind starts from.
    """

    workflow_id: str
    action: str
    outcome: Outcome
    status_before: str | None = None
    status_after: str | None = None
    new_workflow_id: str | None = None
    detail: str = ""
    start_step: int | None = None


class Receipt:
    """What a control call did, one row per workflow or fork. In a cell it is a table.

    The columns: ``workflow_id``, ``action``, ``outcome`` (``done``, ``unchanged``, ``not_found``,
    ``failed``, ``unknown``), ``status_before``, ``status_after``, ``new_workflow_id``, ``detail``,
    ``start_step``.
    ``called_at`` is when the call began.

    Examples
    --------
    >>> dbos_notebook.connect(example_database).cancel([])
    Receipt: cancel 0 workflows: nothing
    """

    def __init__(
        self,
        action: str,
        lines: Sequence[ReceiptLine],
        *,
        wait: Callable[[Sequence[str], float | None], pd.DataFrame] | None = None,
        check: Callable[[], Receipt] | None = None,
        notes: Sequence[str] = (),
        subject: str = "workflow_id",
    ) -> None:
        self.action = action
        self.lines = list(lines)
        self.notes = list(notes)
        self.called_at = dt.datetime.now(dt.UTC)
        self._wait = wait
        self._check = check
        self._subject = subject
        self._ended = False

    @property
    def counts(self) -> dict[str, int]:
        """The number of workflows per outcome."""
        counted = Counter(line.outcome for line in self.lines)
        return {outcome: counted[outcome] for outcome in OUTCOMES}

    @property
    def ok(self) -> bool:
        """Whether nothing failed, nothing was missing, and nothing is unknown."""
        return not any(self.counts[outcome] for outcome in ("failed", "not_found", "unknown"))

    def __len__(self) -> int:
        return len(self.lines)

    def to_frame(self) -> pd.DataFrame:
        """Return the receipt as a DataFrame: a row per workflow, or per fork."""
        import pandas as pd

        from dbos_notebook.tables.columns import STRING_DTYPE

        names = [field.name for field in dataclasses.fields(ReceiptLine)]
        rows = [dataclasses.astuple(line) for line in self.lines]
        types = dict.fromkeys(names, STRING_DTYPE) | {"start_step": "Int64"}
        frame = pd.DataFrame(rows, columns=names).astype(types)
        return frame.rename(columns={"workflow_id": self._subject})

    def wait(self, timeout: float | dt.timedelta | None = None) -> pd.DataFrame:
        """Wait until what this call started or changed has finished; see ``Client.wait``.

        For forks that means the new workflows, including those that existed already.
        """
        if self._wait is None:
            raise RuntimeError("A receipt without a client cannot wait.")
        frame = self._wait(self.affected, as_seconds(timeout, "timeout", minimum=0))
        self._ended = not frame["status"].isin(ACTIVE_STATUSES).any()
        return frame

    @property
    def affected(self) -> list[str]:
        """The IDs of the workflows that this call started or changed, or found as it wanted them.

        For forks these are the new workflows, including those that existed already.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).cancel([]).affected
        []
        """
        # Deleted workflows do not exist any more.
        remaining = ("unchanged",) if self.action == "delete" else ("done", "unchanged")
        ids = [
            line.new_workflow_id or line.workflow_id
            for line in self.lines
            if line.new_workflow_id
            or (line.outcome in remaining and self._subject == "workflow_id")
        ]
        return list(dict.fromkeys(ids))

    def check(self) -> Receipt:
        """Read the rows again, and return a receipt with the outcomes that are known now."""
        return self if self._check is None else self._check()

    def _table(self) -> TableRepr:
        subject = self._subject.removesuffix("_id").removesuffix("_name")
        title = f"Receipt: {self.action} {plural(len(self.lines), subject)}"
        # Whether the work will run is known once it has ended.
        notes = [] if self._ended else list(self.notes)
        if self.counts["unknown"]:
            notes.append("Some outcomes are unknown. receipt.check() reads the database again.")
        frame = failures_first(self.to_frame())
        columns = [name for name in frame.columns if name != "action"]
        return TableRepr(title, self.counts, notes, frame, columns, "receipt.to_frame()")

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


def failures_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort the rows of a receipt for display: those first that were not done as asked."""
    rank = frame["outcome"].map({"failed": 0, "unknown": 1, "not_found": 2}).fillna(3)
    return frame.loc[rank.sort_values(kind="stable").index]


def describe_progress(statuses: Sequence[str | None], action: str = "") -> str:
    """Describe how far workflows are, given the status of each; ``None``: it was deleted.

    Parameters
    ----------
    action
        What was done to them; a cancel is not meant to make them succeed.

    Examples
    --------
    >>> describe_progress(["SUCCESS", "PENDING", "SUCCESS", "ERROR"])
    '2 of 4 succeeded, 1 failed, 1 running'
    >>> describe_progress(["ENQUEUED"])
    'enqueued'
    >>> describe_progress(["CANCELLED", "CANCELLED", "SUCCESS"], "cancel")
    '2 cancelled, 1 succeeded'
    """
    counted = Counter(statuses)
    labels = {
        status: STATUS_STYLES[status].label if status in STATUS_STYLES else sanitize(status)
        for status in counted
        if status is not None
    }
    if len(statuses) == 1:
        return labels.get(statuses[0] or "", "deleted")
    parts, order = [], [*STATUSES_BY_SEVERITY, *labels]
    if action == "cancel":
        order.insert(0, "CANCELLED")
    else:
        parts = [f"{counted.pop('SUCCESS', 0):,} of {len(statuses):,} succeeded"]
    parts += [
        f"{counted[status]:,} {labels[status]}"
        for status in dict.fromkeys(order)
        if counted[status]
    ]
    if counted[None]:
        parts.append(f"{counted[None]:,} deleted")
    return ", ".join(parts)


@dataclass(frozen=True)
class OutcomeAnalysis:
    """Determines the outcomes of a call, from how its batches ended and what was read afterwards.

    Attributes
    ----------
    after
        ``None`` where the database could not be read.
    """

    operation: Operation
    after: Snapshot | None
    runner: BatchRunner
    pool: ClientPool

    def line(
        self, item: PlanItem, attempted: tuple[Batch, BaseException | None] | None
    ) -> ReceiptLine:
        """Return the receipt line of an item.

        Parameters
        ----------
        attempted
            The batch that the item was in, and the error that concerns it.
        """
        after = self.after
        row = after.row(item) if after else None
        new = after.new_row(item) if after else None
        outcome, detail = self._outcome(item, attempted)
        if outcome == "done" and item.will_run and item.will_run.likelihood != "likely":
            detail += f". Will it run? {item.will_run}"
        # A database of dbos before 2.4 does not record the original of a fork.
        exists = new is not None and (
            item.verdict == "unchanged" or new.forked_from in (None, item.workflow_id)
        )
        return ReceiptLine(
            item.workflow_id,
            self.operation.action,
            outcome,
            item.row.status if item.row else None,
            # What a standby shows may be older than the call.
            row.status if row and not (after and after.other_server == "a standby") else None,
            item.new_workflow_id if outcome == "done" or exists else None,
            detail,
            item.point.start_step if item.point else None,
        )

    def _outcome(
        self, item: PlanItem, attempted: tuple[Batch, BaseException | None] | None
    ) -> tuple[Outcome, str]:
        if attempted is None:
            if item.verdict == "not_found":
                return "not_found", item.effect
            refused = "refused: " if item.verdict == "refused" else ""
            return "unchanged", f"{refused}{item.effect}"
        batch, error = attempted
        runner = self.runner
        reason = "interrupted" if runner.interrupted else str(runner.fatal or "the call ended")
        if not batch.started:
            if self.operation.cascades and not item.requested and self._shown(item):
                # DBOS had found it below a workflow whose call had begun.
                return "done", item.effect
            return "unchanged", f"not started: {reason}"
        if batch.finished and error is None:
            return self._returned(item)
        if error is not None and not self.pool.fatal(error):
            return self._refused(item, self.pool.reason(error))
        return self._not_returned(item, batch.attempt, reason)

    def _shown(self, item: PlanItem) -> bool:
        """Return whether the rows show that the item was done."""
        return self.after is not None and self.operation.succeeded(item, self.after)

    def _returned(self, item: PlanItem) -> tuple[Outcome, str]:
        """Determine the outcome of a call that returned."""
        after = self.after
        if after is None:
            return "done", f"{item.effect} (its row could not be read afterwards)"
        if self.operation.raises_if_nothing_done or self._shown(item):
            return "done", item.effect
        if after.other_server == "a standby":
            # The primary has acknowledged it; a standby may not have it yet.
            return "done", (
                f"{item.effect} (committed; the standby that answers now does not show it)"
            )
        if after.other_server:
            return "unknown", (
                "it was committed, but another server answers now, which does not show it: after a "
                "failover it may be lost"
            )
        row = after.row(item)
        if row is None:
            return "not_found", _DELETED
        if self.runner.row_security and item.row is not None and row.status == item.row.status:
            return "unchanged", (
                "row-level security applies to this role, and no row was changed: a policy hides "
                f"this one from changes, or it was {row.status} when DBOS was called"
            )
        return "unchanged", f"it was {row.status} when DBOS was called"

    def _refused(self, item: PlanItem, reason: str) -> tuple[Outcome, str]:
        """Determine the outcome where DBOS or the database refused this workflow only."""
        after = self.after
        if after is None or after.other_server:
            return "failed", reason
        if already_done := self.operation.already_done(item, after):
            return "unchanged", already_done
        if after.row(item) is None and self.operation.subject == "workflow_id" and item.row:
            return "not_found", _DELETED
        return "failed", reason

    def _not_returned(
        self, item: PlanItem, attempt: Attempt | None, reason: str
    ) -> tuple[Outcome, str]:
        """Determine the outcome of a call that did not return: by its transactions, then the rows.

        A row that does not show it proves nothing while a COMMIT may be in progress.
        """
        operation, after = self.operation, self.after
        not_returned = f" (the call did not return: {reason})"
        # A standby that lags may not have the row yet.
        lags = after is not None and after.other_server and after.row(item) is None
        shown = self._shown(item) and not lags
        if attempt is None or not attempt.wrote:
            if shown and after and (already_done := operation.already_done(item, after)):
                return "unchanged", already_done
            return "failed", f"not done: {reason}"
        started = operation.started_since(item, after, attempt.started_at) if after else []
        if len(started) == 1:
            return "done", f"{item.effect}, as {started[0]}{not_returned}"
        fork = (
            f". If so, the new workflow is {item.new_workflow_id}" if item.new_workflow_id else ""
        )
        in_doubt = (
            "COMMIT was sent, but its answer was lost: it may be done, now or later. "
            f"receipt.check() reads it again ({reason}){fork}"
        )
        if attempt.in_doubt:
            if shown and operation.traceable:
                return "done", item.effect + not_returned
            return "unknown", in_doubt
        outcomes = [transaction.outcome for transaction in attempt.transactions]
        if not operation.several_transactions and outcomes == ["committed"]:
            # One transaction is all of the call: it had the effect that it reports on returning.
            outcome, detail = self._returned(item)
            return outcome, detail + not_returned
        if after is None or started:
            return "unknown", in_doubt
        if shown:
            return "done", item.effect + not_returned
        if after.other_server:
            return "unknown", f"{after.other_server} answers now, which does not show it ({reason})"
        return "failed", f"not done: {reason}"


_DELETED = "it was deleted in the meantime"
