"""The receipt: what a control call did to each workflow, as the database says afterwards."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dbos_notebook.control.lengths import as_seconds
from dbos_notebook.control.sheet import Sheet

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["done", "unchanged", "not_found", "failed", "unknown"]
OUTCOMES: tuple[Outcome, ...] = ("done", "unchanged", "not_found", "failed", "unknown")


@dataclass(frozen=True)
class Line:
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
        lines: Sequence[Line],
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

        from dbos_notebook.tables.vocabulary import TEXT

        names = [field.name for field in dataclasses.fields(Line)]
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

    def _sheet(self) -> Sheet:
        many = f"{len(self.lines):,} {self._subject.removesuffix('_id').removesuffix('_name')}"
        title = f"Receipt: {self.action} {many}{'' if len(self.lines) == 1 else 's'}"
        notes = list(self.notes)
        if self.counts["unknown"]:
            notes.append("Some outcomes are unknown. receipt.check() asks the database again.")
        frame = self.to_frame()
        shown = [name for name in frame.columns if name != "action"]
        return Sheet(title, self.counts, notes, frame, shown, "receipt.to_frame()")

    def __repr__(self) -> str:
        return self._sheet().text()

    def _repr_html_(self) -> str:
        return self._sheet().html()
