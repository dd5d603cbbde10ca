"""The receipt: what a control call did to each workflow, read back from the database."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbos_notebook.control.display import TableRepr
from dbos_notebook.control.forks import Fork
from dbos_notebook.control.operations import Cancel, Known, Operation, PlanItem
from dbos_notebook.status import OUTCOMES, Outcome
from dbos_notebook.tables.filters import as_seconds

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.batch_runner import Batch, BatchRunner
    from dbos_notebook.control.client_pool import ClientPool


@dataclass(frozen=True)
class ReceiptLine:
    """What became of one workflow.

    Attributes
    ----------
    outcome
        ``done``; ``unchanged`` (``detail`` says why); ``not_found``; ``failed``; ``unknown``
        where the database could not be asked any more.
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

    @property
    def counts(self) -> dict[str, int]:
        """How many workflows per outcome."""
        found = Counter(line.outcome for line in self.lines)
        return {word: found[word] for word in OUTCOMES}

    @property
    def ok(self) -> bool:
        """Whether nothing failed, nothing was missing, and nothing is unknown."""
        return not any(self.counts[word] for word in ("failed", "not_found", "unknown"))

    def __len__(self) -> int:
        return len(self.lines)

    def to_frame(self) -> pd.DataFrame:
        """Return the receipt as a DataFrame: a row per workflow, or per fork."""
        import pandas as pd

        from dbos_notebook.tables.columns import TEXT

        names = [field.name for field in dataclasses.fields(ReceiptLine)]
        rows = [dataclasses.astuple(line) for line in self.lines]
        types = dict.fromkeys(names, TEXT) | {"start_step": "Int64"}
        frame = pd.DataFrame(rows, columns=names).astype(types)
        return frame.rename(columns={"workflow_id": self._subject})

    def wait(self, timeout: float | dt.timedelta | None = None) -> pd.DataFrame:
        """Watch what this call started or changed until it has finished; see ``Client.wait``.

        For forks that is the new workflows, those that had been there before included.
        """
        # Of what was deleted there is nothing to wait for.
        there = ("unchanged",) if self.action == "delete" else ("done", "unchanged")
        ids = [
            line.new_workflow_id or line.workflow_id
            for line in self.lines
            if line.new_workflow_id or (line.outcome in there and self._subject == "workflow_id")
        ]
        if self._wait is None:
            raise RuntimeError("A receipt without a client cannot wait.")
        return self._wait(list(dict.fromkeys(ids)), as_seconds(timeout, "timeout", least=0))

    def check(self) -> Receipt:
        """Read the rows again, and return a receipt in which what was unknown is settled."""
        return self if self._check is None else self._check()

    def _sheet(self) -> TableRepr:
        many = f"{len(self.lines):,} {self._subject.removesuffix('_id').removesuffix('_name')}"
        title = f"Receipt: {self.action} {many}{'' if len(self.lines) == 1 else 's'}"
        notes = list(self.notes)
        if self.counts["unknown"]:
            notes.append("Some outcomes are unknown. receipt.check() asks the database again.")
        frame = self.to_frame()
        shown = [name for name in frame.columns if name != "action"]
        return TableRepr(title, self.counts, notes, frame, shown, "receipt.to_frame()")

    def __repr__(self) -> str:
        return self._sheet().text()

    def _repr_html_(self) -> str:
        return self._sheet().html()


def describe_outcome(
    operation: Operation,
    item: PlanItem,
    attempt: tuple[Batch, BaseException | None] | None,
    known: Known | None,
    runner: BatchRunner,
    pool: ClientPool,
) -> ReceiptLine:
    """Return one line of a receipt: what the row is now, and what came of the attempt."""
    found = known.rows if known else {}
    after, new = found.get(item.workflow_id), found.get(item.new_workflow_id or "")
    outcome, detail = _outcome(operation, item, attempt, known, runner, pool)
    if outcome == "done" and item.will_run and not item.will_run.startswith("likely"):
        detail += f". Will it run? {item.will_run}"
    # A database of dbos before 2.4 does not record what was forked from what.
    there = new is not None and (
        item.verdict == "unchanged" or new.forked_from in (None, item.workflow_id)
    )
    return ReceiptLine(
        item.workflow_id,
        operation.action,
        outcome,
        item.row.status if item.row else None,
        # What a standby shows may be older than the call.
        after.status if after and not (known and known.elsewhere == "a standby") else None,
        item.new_workflow_id if outcome == "done" or there else None,
        detail,
        item.point.start_step if item.point else None,
    )


def _outcome(
    operation: Operation,
    item: PlanItem,
    attempt: tuple[Batch, BaseException | None] | None,
    known: Known | None,
    runner: BatchRunner,
    pool: ClientPool,
) -> tuple[Outcome, str]:
    if attempt is None:
        if item.verdict == "not_found":
            return "not_found", item.effect
        refused = "refused: " if item.verdict == "refused" else ""
        return "unchanged", f"{refused}{item.effect}"
    unit, error = attempt
    why = "interrupted" if runner.interrupted else str(runner.fatal or "the call ended")
    if not unit.started:
        along = isinstance(operation, Cancel) and operation.cancel_children and not item.asked
        if along and known and operation.succeeded(item, known.rows.get(item.workflow_id), None):
            # DBOS had found it below one whose call had begun.
            return "done", operation.done(item)
        return "unchanged", f"not begun: {why}"
    if unit.finished and error is None:
        return _returned(operation, item, known, runner)
    if error is not None and not pool.fatal(error):
        return _refused(operation, item, known, pool.reason(error))
    return _broken_off(operation, item, unit, known, why, runner)


def _returned(
    operation: Operation, item: PlanItem, known: Known | None, runner: BatchRunner
) -> tuple[Outcome, str]:
    """Judge a call that returned."""
    if known is None:
        return "done", f"{operation.done(item)} (its row could not be read again)"
    after = known.rows.get(item.workflow_id)
    if operation.raises_if_nothing_done or operation.succeeded(
        item, after, known.rows.get(item.new_workflow_id or "")
    ):
        return "done", operation.done(item)
    if known.elsewhere == "a standby":
        # The server that was written to has acknowledged it; a standby may not have it yet.
        return "done", (
            f"{operation.done(item)} (committed; the standby that answers now does not show it)"
        )
    if known.elsewhere:
        return "unknown", (
            "it was committed, and another server answers now, which does not show it: one that "
            "took over may have lost it"
        )
    if after is None:
        return "not_found", "it was deleted meanwhile"
    if runner.row_security and item.row is not None and after.status == item.row.status:
        return "unchanged", (
            "row-level security applies to this role, and it changed no row: a policy hides this "
            f"one from changes, or it was {after.status} when the call came"
        )
    return "unchanged", f"it was {after.status} when the call came"


def _refused(
    operation: Operation, item: PlanItem, known: Known | None, reason: str
) -> tuple[Outcome, str]:
    """Judge a call that DBOS or the database refused, for this workflow alone."""
    if known is None or known.elsewhere:
        return "failed", reason
    after = known.rows.get(item.workflow_id)
    new = known.rows.get(item.new_workflow_id or "")
    if isinstance(operation, Fork) and new is not None and operation.succeeded(item, after, new):
        # Another call with the same key, or of the same plan, was first.
        return "unchanged", f"already forked as {new.workflow_id}, which is {new.status}"
    if after is None and operation.subject == "workflow_id" and item.row is not None:
        return "not_found", "it was deleted meanwhile"
    return "failed", reason


def _broken_off(
    operation: Operation,
    item: PlanItem,
    unit: Batch,
    known: Known | None,
    why: str,
    runner: BatchRunner,
) -> tuple[Outcome, str]:
    """Judge a call that did not return, by what became of its transactions, and then by the rows.

    A row that does not show it proves nothing while a COMMIT may be under way.
    """
    attempt = unit.attempt
    doubtful = bool(attempt and attempt.in_doubt)
    after = known.rows.get(item.workflow_id) if known else None
    new = known.rows.get(item.new_workflow_id or "") if known else None
    shown = known is not None and operation.succeeded(item, after, new)
    if known is not None and known.elsewhere and after is None:
        shown = False  # a standby that lags may not have the row yet
    if attempt is None or not attempt.wrote:
        if shown and isinstance(operation, Fork) and new is not None:
            return "unchanged", f"already forked as {new.workflow_id}, which is {new.status}"
        return "failed", f"not done: {why}"
    started = operation.started_since(item, known, attempt.started_at) if known else []
    if len(started) == 1:
        return "done", f"{operation.done(item)}, as {started[0]} (though: {why})"
    if doubtful:
        if shown and operation.traceable:
            return "done", f"{operation.done(item)} (though: {why})"
        return "unknown", _doubt(operation, item, why)
    if not operation.several_transactions and [each.outcome for each in attempt.transactions] == [
        "committed"
    ]:
        # One transaction is all of the call: it did what it would have done had it returned.
        outcome, detail = _returned(operation, item, known, runner)
        return outcome, f"{detail} (though: {why})"
    if known is None or started:
        return "unknown", _doubt(operation, item, why)
    if shown:
        return "done", f"{operation.done(item)} (though: {why})"
    if known.elsewhere:
        return "unknown", f"{known.elsewhere} answers now, which does not show it ({why})"
    return "failed", f"not done: {why}"


def _doubt(operation: Operation, item: PlanItem, why: str) -> str:
    told = (
        "the database was asked to commit it, and its answer was lost: it may be done, or become "
        f"so yet. receipt.check() asks again ({why})"
    )
    if isinstance(operation, Fork) and item.new_workflow_id:
        return f"{told}. If so, the fork is {item.new_workflow_id}"
    return told
