"""Repairing failed trees, and what has become of failures."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dbos_notebook.steering.base import Base, as_key, as_optional_name
from dbos_notebook.tables.filters import MOST_SECONDS, as_seconds

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.plan import Plan
    from dbos_notebook.control.receipt import Receipt

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame


class Repairs(Base):
    """What repairs."""

    def repair(
        self,
        workflows: Texts,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        key: str | None = None,
        wait: bool = True,
        timeout: float | dt.timedelta | None = 600.0,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Repair failed workflows together with the failed children that made them fail.

        The deepest failures are forked from the step that failed. When those forks have
        succeeded, each workflow that awaited one is forked from the step that did, with the fork
        in the child's place; and so on up to those that were asked for. Steps that had succeeded
        are not run again.

        The call can be repeated: what has a fork that succeeded or still runs, whoever made it,
        is not forked again. After a timeout or Ctrl-C the same call goes on.

        Parameters
        ----------
        application_version
            The version to run under; ``None``: the latest.
        queue_name
            Where to enqueue the forks; ``None``: DBOS's own queue; ``"original"``: each onto the
            queue that it was on, with its own partition key.
        key
            Names the attempt; ``None``: the version does. Where forks failed again, another key
            makes new ones.
        wait
            Fork a parent only when its children's forks have succeeded. ``False`` forks all at
            once: parents then wait in an executor, and fail if their children fail again.
        timeout
            Seconds, or a timedelta, to wait for children in all; ``None``: as long as it takes.
        plan, confirm
            As in :meth:`cancel`.
        force
            Also what has a fork that lives or succeeded.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> plan = db.repair("parent-6-bad", application_version="v2", plan=True)
        >>> [item.effect for item in plan.items]
        ['runs again from step 3 (charge)',
         'runs again from step 2 (DBOS.getResult), once parent-6-bad-1 has been repaired']
        """
        from dbos_notebook.control.repair import Repair, RepairFork
        from dbos_notebook.tables.filters import as_texts

        waited = as_seconds(timeout, "timeout", least=0)
        operation = RepairFork(
            application_version=as_optional_name(application_version, "application_version"),
            queue_name=as_optional_name(queue_name, "queue_name"),
            key=as_key(key) or f"repair-{application_version or 'latest'}",
            force=force,
            wait=wait,
            timeout_waiting=MOST_SECONDS if waited is None else waited,
        )
        made = Repair(self._controller).plan(operation, as_texts(workflows, "workflows"))
        if plan:
            return made
        self._controller.require_writable()
        self._controller.validate_plan(made, confirm=confirm)
        return made.apply()

    def repair_status(self, workflows: Texts | None = None) -> pd.DataFrame:
        """Tell what has become of failures: repaired, in progress, failed again, or nothing.

        Parameters
        ----------
        workflows
            Which; ``None``: all that are in ERROR or ran out of recovery attempts.

        Returns
        -------
        pandas.DataFrame
            ``workflow_id``, ``name``, ``status``, ``app_version``, ``state``, ``forks`` (how many,
            forks of forks included), ``latest_fork``, ``latest_fork_status``,
            ``latest_fork_version``, ``covered_by``. The states: ``repaired`` (a fork succeeded),
            ``in progress``, ``failed again``, ``covered`` (a fork of the workflow above it
            succeeded: ``covered_by``), ``unaddressed``, ``not failed``.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.repair_status(["checkout-5-bad", "parent-6-bad"])["state"].tolist()
        ['failed again', 'unaddressed']
        """
        from dbos_notebook.control.failure_analysis import repair_status
        from dbos_notebook.tables.filters import as_texts

        ids = None if workflows is None else as_texts(workflows, "workflows")
        return self._controller.read_status(repair_status, ids)
