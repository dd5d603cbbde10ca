"""The operations: cancel, resume, fork, rewind, delete, and setting delays and attributes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dbos_notebook.errors import FilterError
from dbos_notebook.steering.base import (
    Base,
    as_key,
    as_optional_name,
    as_replacements,
    check_key,
)
from dbos_notebook.tables.filters import as_seconds

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.plan import Plan
    from dbos_notebook.control.receipt import Receipt

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame
    Time = str | dt.datetime | dt.date | dt.timedelta | pd.Timestamp | pd.Timedelta
    StepRecord = int | str | Mapping[str, int | str] | pd.Series[Any]
    Steps = StepRecord | Sequence[int | str] | Mapping[str, Sequence[int | str]]


class Workflows(Base):
    """What changes workflows."""

    def cancel(
        self,
        workflows: Texts,
        *,
        cancel_children: bool = False,
        plan: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Cancel workflows: off their queue, or stopped at their next step.

        What has finished stays as it is, and the receipt says so. DBOS clears the queue of what
        it cancels; the receipt keeps it.

        Parameters
        ----------
        cancel_children
            Also the workflows that they started, and those that these started.
        plan
            Return what would happen, and do nothing.
        confirm
            More than 20 workflows are meant.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.cancel("queued-1", plan=True).items[0].effect
        "will not start; leaves queue 'slow'"
        """
        from dbos_notebook.control.operations import Cancel

        return self._control(Cancel(cancel_children=cancel_children), workflows, plan, confirm)

    def resume(
        self,
        workflows: Texts,
        *,
        queue_name: str | None = None,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Resume cancelled workflows after their last recorded step; start waiting ones at once.

        Parameters
        ----------
        queue_name
            The queue to put them on; ``None``: DBOS's own; ``"original"``: each onto the one that
            it was on, as far as that is known. Cancelling erases it in the database: this client
            knows it of what it cancelled itself.
        plan, confirm
            As in :meth:`cancel`.
        force
            Also what is PENDING, which may run twice at once if its executor still lives.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.resume("checkout-5-bad", plan=True).items[0].effect
        'it has failed, and DBOS resumes no failed workflow: fork it'
        """
        from dbos_notebook.control.operations import Resume

        operation = Resume(as_optional_name(queue_name, "queue_name"), force)
        return self._control(operation, workflows, plan, confirm)

    def fork(
        self,
        workflows: Texts,
        start_step: Steps,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        timeout: float | dt.timedelta | None = None,
        key: str | None = None,
        replacement_children: Mapping[str, str] | None = None,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Fork workflows: new ones that copy the steps before one, and run from there.

        Parameters
        ----------
        start_step
            The first step that runs again: its ``function_id``; ``"first"`` or 0; ``"last"``;
            ``"failed"``, the last step with an error or, where none has one, the last that is
            not DBOS's own; a step's name; or a mapping from workflow IDs to those. A list makes
            a fork from each of its steps: ``db.fork("a", [2, 3])``, ``{"a": [2, 3], "b": 1}``.
        application_version
            The version to run under; ``None``: the latest.
        queue_name, queue_partition_key
            Where to enqueue; ``None``: DBOS's own queue; ``queue_name="original"``: each onto the
            queue that it was on, with its own partition key. A partitioned queue needs a key.
        timeout
            Seconds, or a timedelta, that each fork may take.
        key
            Makes the call repeatable: with the same key, a workflow is forked from a step once,
            however often and by however many the call is made.
        replacement_children
            Which child each copied step is to refer to instead of which.
        plan, confirm
            As in :meth:`cancel`.
        force
            Also what has not finished, whose work then happens twice.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> plan = db.fork("checkout-5-bad", "failed", key="incident-7", plan=True)
        >>> plan.items[0].point.label
        'step 3 (charge)'
        """
        from dbos_notebook.control import fork_points
        from dbos_notebook.control.forks import Fork

        check_key(queue_name, queue_partition_key)
        operation = Fork(
            fork_points.check(start_step, several=True),
            as_optional_name(application_version, "application_version"),
            as_optional_name(queue_name, "queue_name"),
            as_optional_name(queue_partition_key, "queue_partition_key"),
            timeout=as_seconds(timeout, "timeout"),
            key=as_key(key),
            replacement_children=as_replacements(replacement_children),
            force=force,
        )
        return self._control(operation, workflows, plan, confirm)

    def rewind(
        self,
        workflows: Texts,
        start_step: StepRecord = "first",
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        plan: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Rewind workflows that have ended: the same ones run again from a step.

        Unlike a fork's, their later steps, events, messages and results are lost. A second call
        rewinds a second time. Checkpoints in an application's own database are not rewound: only
        the application can do that (``DBOS.rewind_workflow``).

        Parameters
        ----------
        start_step, application_version, queue_name, queue_partition_key
            As in :meth:`fork`, but one step for each workflow; without a version they keep theirs.
        plan, confirm
            As in :meth:`cancel`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.rewind("checkout-1", "charge", plan=True).items[0].effect
        'forgets step 3 (charge) and what came after, ...; repeats what had succeeded: charge'
        """
        from dbos_notebook.control import fork_points
        from dbos_notebook.control.forks import Rewind

        check_key(queue_name, queue_partition_key)
        operation = Rewind(
            fork_points.check(start_step),
            as_optional_name(application_version, "application_version"),
            as_optional_name(queue_name, "queue_name"),
            as_optional_name(queue_partition_key, "queue_partition_key"),
        )
        return self._control(operation, workflows, plan, confirm)

    def delete(
        self,
        workflows: Texts,
        *,
        delete_children: bool = False,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Delete workflows and all that is recorded of them. It always asks for ``confirm=True``.

        Parameters
        ----------
        delete_children
            Also the workflows that they started, and those that these started.
        plan
            As in :meth:`cancel`; ``apply(confirm=True)`` then deletes.
        force
            Also what is PENDING.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> len(db.delete("checkout-1", delete_children=True, plan=True))
        3
        """
        from dbos_notebook.control.operations import Delete

        return self._control(Delete(delete_children, force), workflows, plan, confirm)

    def set_delay(
        self,
        workflows: Texts,
        delay: float | dt.timedelta | None = None,
        *,
        until: Time | None = None,
        plan: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Set when DELAYED workflows become ready.

        Parameters
        ----------
        delay
            Seconds from now, or a timedelta.
        until
            Or the moment itself.
        plan, confirm
            As in :meth:`cancel`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.set_delay("queued-1", 60, plan=True).items[0].effect
        'only a DELAYED workflow has a delay; it is ENQUEUED'
        """
        from dbos_notebook.control.operations import SetDelay
        from dbos_notebook.tables.filters import as_epoch_ms

        now = dt.datetime.now(dt.UTC)
        if (delay is None) == (until is None):
            raise FilterError("set_delay takes a delay or a moment (until=…), one of them.")
        if until is not None:
            moment = as_epoch_ms(until, "until", now)
            if moment < 0:
                raise FilterError(f"until={until!r} is before 1970, where DBOS's clock begins.")
        else:
            seconds = as_seconds(delay, "delay", least=0) or 0
            moment = int((now.timestamp() + seconds) * 1000)
        return self._control(SetDelay(moment), workflows, plan, confirm)

    def set_attributes(
        self,
        workflows: Texts,
        attributes: Mapping[str, Any] | None,
        *,
        merge: bool = False,
        plan: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Replace the attributes of workflows, or merge into them.

        Parameters
        ----------
        attributes
            A dict with text keys and JSON values; ``None`` clears.
        merge
            Keep the keys that are not named. DBOS does this in one statement. Only on SQLite, and
            only where a key needs an escape in JSON (``é``, a quote, a backslash), it is done by
            reading and replacing all: a change that another process makes to other keys within
            that moment is lost.
        plan, confirm
            As in :meth:`cancel`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.set_attributes("attributed", {"tier": 2}, merge=True, plan=True).items[0].effect
        'becomes {"customer": "acme", "tier": 2}'
        """
        from dbos_notebook.control.operations import SetAttributes, escaped
        from dbos_notebook.tables.filters import check_filters

        if attributes is None and merge:
            raise FilterError("attributes=None cannot be merged; without merge it clears them.")
        if attributes is not None:
            attributes = check_filters({"attributes": attributes})["attributes"]
            # As the database will have it: a tuple becomes a list, a number as a key a text.
            attributes = json.loads(json.dumps(attributes))
        sqlite = self._queries.catalog.dialect == "sqlite"
        here = merge and sqlite and escaped(attributes or {})
        return self._control(SetAttributes(attributes, merge, here), workflows, plan, confirm)
