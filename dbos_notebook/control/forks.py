"""Fork and rewind: resolve the start step, evaluate, call DBOS, verify."""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dbos_notebook.control import permissions, records
from dbos_notebook.control.dbos_client import forks_keep_version
from dbos_notebook.control.fork_points import ForkPoint, check, resolve
from dbos_notebook.control.operations import (
    ItemKey,
    Known,
    Operation,
    PlanItem,
    as_key,
    as_optional_name,
    changed,
)
from dbos_notebook.control.permissions import Privileges
from dbos_notebook.control.queue_selection import ORIGINAL, choose, read_queues
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.errors import FilterError, StepNotFoundError
from dbos_notebook.tables.filters import as_name, as_seconds

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

_NAMESPACE = uuid.UUID("6f0d1c1e-6f5b-5d3c-9a55-0d805b07eb00")
_LEGIBLE = 40


def fork_id(key: str | None, workflow_id: str, start_step: int) -> str:
    """Return the ID of a fork: always the same for a key, a workflow and a step.

    Without a key it is new each time.

    Examples
    --------
    >>> fork_id("incident 42", "order-1", 3)
    'incident-42-...'
    >>> fork_id("incident 42", "order-1", 3) == fork_id("incident 42", "order-1", 3)
    True
    >>> fork_id(None, "order-1", 3) == fork_id(None, "order-1", 3)
    False
    """
    if key is None:
        return str(uuid.uuid4())
    # The readable part may be cut or alike for two keys; the other part tells them apart.
    legible = re.sub(r"[^A-Za-z0-9_.]+", "-", key).strip("-")[:_LEGIBLE] or "fork"
    name = json.dumps([key, workflow_id, start_step], ensure_ascii=False)
    return f"{legible}-{uuid.uuid5(_NAMESPACE, name)}"


@dataclass(frozen=True)
class StepOperation(Operation):
    """An operation that starts from a step, and what fork and rewind share."""

    enqueues: ClassVar[bool] = True
    raises_if_nothing_done: ClassVar[bool] = True
    start_step: Any = None
    application_version: str | None = None
    queue_name: str | None = None
    queue_partition_key: str | None = None

    def keys(self, ids: Sequence[str]) -> list[ItemKey]:
        """Return a key for each workflow and each step that it is to start from."""
        start = self.start_step
        if isinstance(start, tuple) and len(ids) > 1:
            raise FilterError(
                f"start_step={list(start)!r} with {len(ids):,} workflows could mean each of them "
                "from each step, or each from its own. Give a mapping from workflow IDs to steps: "
                f"start_step={{{ids[0]!r}: {list(start)!r}, …}}."
            )
        keys = []
        for one in ids:
            steps = start.get(one) if isinstance(start, dict) else start
            several = steps if isinstance(steps, tuple) else (steps,)
            keys += [ItemKey(one, step) for step in several]
        return keys

    def evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        """Say what would happen to one workflow from one step."""
        return dataclasses.replace(self._evaluate(key, known, before), start_step=key.start_step)

    def _evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        raise NotImplementedError

    def _points(
        self,
        session: Session,
        queries: Queries,
        known: Known,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> None:
        """Find the steps of those that exist; those of an earlier plan stay as they were."""
        if self.queue_name is not None:
            known.queues = read_queues(session, queries)
        known.points = {key: item.point for key, item in before.items() if item.point}
        if before:
            return
        known.steps = records.steps(session, queries, list(known.rows))
        for key in self.keys(ids):
            if key.workflow_id in known.rows:
                try:
                    known.points[key] = resolve(*key, known.steps[key.workflow_id])
                except StepNotFoundError as error:
                    known.points[key] = str(error)

    def _placed(self, item: PlanItem, known: Known) -> PlanItem:
        """Say onto which queue it goes, or refuse where it would wait there for ever."""
        if item.verdict != "do" or item.row is None:
            return item
        place = choose(item.row, self.queue_name, self.queue_partition_key, known.queues)
        if place.problem:
            return dataclasses.replace(
                item, verdict="refused", effect=place.problem, new_workflow_id=None
            )
        return dataclasses.replace(
            item,
            effect=f"{item.effect}; {place.effect}" if place.effect else item.effect,
            queue_name=place.queue_name,
            queue_partition_key=place.queue_partition_key,
        )

    def _from(self, item: PlanItem, client_options: dict[str, Any]) -> dict[str, Any]:
        return client_options | {
            "application_version": self.application_version,
            "queue_name": item.queue_name,
            "queue_partition_key": item.queue_partition_key,
        }

    def options(self) -> dict[str, Any]:
        """Return the options that are not at their defaults."""
        found = super().options()
        if isinstance(self.start_step, dict):
            found["start_step"] = "a mapping"
        elif isinstance(self.start_step, tuple):
            found["start_step"] = list(self.start_step)
        return found


def check_partition_key(queue_name: Any, queue_partition_key: Any) -> None:
    """Raise where a partition key is given to workflows that keep their own."""
    if queue_name == ORIGINAL and queue_partition_key is not None:
        raise FilterError(
            f"queue_name='original' puts each workflow back with its own partition key, so "
            f"queue_partition_key={queue_partition_key!r} has no place beside it."
        )


def _as_replacements(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    name = "replacement_children"
    if not isinstance(value, Mapping):
        raise FilterError(f"{name} takes a mapping of IDs, not {value!r}.")
    return {as_name(old, name): as_name(new, name) for old, new in value.items()} or None


@dataclass(frozen=True)
class Fork(StepOperation):
    """Fork: a new workflow that copies the steps before one, and runs from there."""

    action: ClassVar[str] = "fork"
    needed: ClassVar[Privileges] = permissions.FORK
    timeout: float | None = None
    key: str | None = None
    replacement_children: Mapping[str, str] | None = None
    force: bool = False

    @classmethod
    def create(
        cls,
        start_step: Any,
        *,
        application_version: Any = None,
        queue_name: Any = None,
        queue_partition_key: Any = None,
        timeout: Any = None,
        key: Any = None,
        replacement_children: Any = None,
        force: bool = False,
    ) -> Fork:
        """Validate the arguments of ``Client.fork``."""
        check_partition_key(queue_name, queue_partition_key)
        return cls(
            check(start_step, several=True),
            as_optional_name(application_version, "application_version"),
            as_optional_name(queue_name, "queue_name"),
            as_optional_name(queue_partition_key, "queue_partition_key"),
            timeout=as_seconds(timeout, "timeout"),
            key=as_key(key),
            replacement_children=_as_replacements(replacement_children),
            force=force,
        )

    def needs(self, items: Sequence[PlanItem]) -> Privileges:
        """Return the privileges; to copy steps takes more."""
        copies = any(item.point is not None and item.point.start_step > 1 for item in items)
        return {**self.needed, **(permissions.FORK_COPYING if copies else {})}

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read the originals, their steps, and the forks that may be there already."""
        known = Known(records.workflows(session, queries, ids))
        known.records_origins = queries.catalog.has("workflow_status", "forked_from")
        self._points(session, queries, known, ids, before)
        for key, point in known.points.items():
            planned = before[key].new_workflow_id if key in before else None
            if planned:
                known.new_ids[key] = planned
            elif isinstance(point, ForkPoint):
                known.new_ids[key] = fork_id(self.key, key.workflow_id, point.start_step)
        replacements = (self.replacement_children or {}).values()
        others = [*known.new_ids.values(), *replacements]
        known.rows |= records.workflows(session, queries, others)
        return known

    def _evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        workflow_id = key.workflow_id
        row = known.rows.get(workflow_id)
        if row is None:
            return PlanItem(workflow_id, "not_found", "no workflow has this ID")
        point = known.points.get(key)
        if not isinstance(point, ForkPoint):
            return PlanItem(workflow_id, "refused", point or (before.effect if before else ""), row)
        new_id = known.new_ids[key]
        existing = known.rows.get(new_id)
        # Where origins are not recorded, the ID itself says it: it is made from the original's.
        if existing is not None and (
            existing.forked_from == workflow_id
            or (not known.records_origins and existing.name == row.name)
        ):
            effect = f"already forked as {new_id}, which is {existing.status}"
            if self.application_version not in (None, existing.app_version):
                effect += f" under version {existing.app_version or 'of any name'}"
            return PlanItem(workflow_id, "unchanged", effect, row, point, new_id)
        if existing is not None:
            effect = f"the fork's ID {new_id} is taken by a workflow that is no fork of this one"
            return PlanItem(workflow_id, "refused", effect, row, point)
        if row.active and not self.force:
            effect = (
                f"it is {row.status}: the fork would do its work a second time. Cancel it first, "
                "or force=True"
            )
            return PlanItem(workflow_id, "refused", effect, row, point)
        unknown = [
            new for new in (self.replacement_children or {}).values() if new not in known.rows
        ]
        if unknown:
            effect = f"no workflow has the ID {unknown[0]!r}, given in replacement_children"
            return PlanItem(workflow_id, "refused", effect, row, point)
        item = PlanItem(workflow_id, "do", self._effect(point, known), row, point, new_id)
        return self._placed(item, known)

    def _effect(self, point: ForkPoint, known: Known) -> str:
        effect = f"runs again from {point.label}"
        if point.repeated:
            effect += f"; repeats what had succeeded: {_listed(point.repeated)}"
        if point.awaited and point.awaited not in (self.replacement_children or {}):
            effect += (
                f"; but that step awaits {point.awaited}, whose failure is recorded, and fails "
                "again: db.repair forks both"
            )
        return effect

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Fork one by one: DBOS has no public call for many."""
        from dbos import SetWorkflowID

        for item in items:
            if item.point is None or item.new_workflow_id is None:
                raise RuntimeError(f"{item.workflow_id} was planned without a step")
            replaced = item.replaced or self.replacement_children
            options = self._from(
                item,
                {
                    "replacement_children": dict(replaced) if replaced else None,
                    "timeout_seconds": self.timeout,
                },
            )
            with SetWorkflowID(item.new_workflow_id):
                client.fork_workflow(item.workflow_id, item.point.start_step, **options)

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether the fork is there."""
        # The ID was free before; a database of dbos before 2.4 does not record origins.
        return new is not None and new.forked_from in (None, item.workflow_id)

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the version and queue of the fork."""
        own = item.row.app_version if item.row and forks_keep_version() else None
        return self.application_version or own, item.queue_name


@dataclass(frozen=True)
class Rewind(StepOperation):
    """Rewind: the same workflow, its steps from one on discarded, enqueued again."""

    action: ClassVar[str] = "rewind"
    needed: ClassVar[Privileges] = permissions.REWIND
    # Somebody else's resume changes the row as well.
    traceable: ClassVar[bool] = False

    @classmethod
    def create(
        cls,
        start_step: Any,
        *,
        application_version: Any = None,
        queue_name: Any = None,
        queue_partition_key: Any = None,
    ) -> Rewind:
        """Validate the arguments of ``Client.rewind``."""
        check_partition_key(queue_name, queue_partition_key)
        return cls(
            check(start_step),
            as_optional_name(application_version, "application_version"),
            as_optional_name(queue_name, "queue_name"),
            as_optional_name(queue_partition_key, "queue_partition_key"),
        )

    def needs(self, items: Sequence[PlanItem]) -> Privileges:
        """Return the privileges; to set the version takes one more."""
        extra = permissions.REWIND_TO_VERSION if self.application_version else {}
        return {**self.needed, **extra}

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read the workflows and their steps."""
        known = Known(records.workflows(session, queries, ids))
        self._points(session, queries, known, ids, before)
        return known

    def _evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        workflow_id = key.workflow_id
        row = known.rows.get(workflow_id)
        if row is None:
            return PlanItem(workflow_id, "not_found", "no workflow has this ID")
        point = known.points.get(key)
        if not isinstance(point, ForkPoint):
            return PlanItem(workflow_id, "refused", point or (before.effect if before else ""), row)
        if row.active:
            effect = f"it is {row.status}, and DBOS rewinds only what has ended: cancel it first"
            return PlanItem(workflow_id, "refused", effect, row, point)
        if point.start_step < 1:
            effect = "dbos for Python rewinds to step 1 at the earliest, and its steps begin at 0"
            return PlanItem(workflow_id, "refused", effect, row, point)
        effect = f"forgets {point.label} and what came after, its result and later messages"
        if point.repeated:
            effect += f"; repeats what had succeeded: {_listed(point.repeated)}"
        return self._placed(PlanItem(workflow_id, "do", effect, row, point), known)

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Rewind one by one, as DBOS does."""
        for item in items:
            if item.point is None:
                raise RuntimeError(f"{item.workflow_id} was planned without a step")
            client.rewind_workflow(
                item.workflow_id, start_step=item.point.start_step, **self._from(item, {})
            )

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether its row has changed."""
        return after is not None and changed(item.row, after)

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return its own version unless told otherwise."""
        own = item.row.app_version if item.row else None
        return self.application_version or own, item.queue_name


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
