"""Control from a view: possible actions, plan, receipt, progress; and the buttons alone."""

from __future__ import annotations

import datetime as dt
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import traitlets

from dbos_notebook import text
from dbos_notebook.control.forks import Fork
from dbos_notebook.control.operations import Cancel, Delete, Operation, PlanItem, Resume, SetDelay
from dbos_notebook.control.receipt import describe_progress, failures_first
from dbos_notebook.control.repair import Repair, RepairFork
from dbos_notebook.control.sending import Send, SendItem
from dbos_notebook.database import releases
from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.errors import ControlInterrupt, FilterError, PartialFailureError
from dbos_notebook.status import (
    ACTIVE_STATUSES,
    FAILED_STATUSES,
    INTERRUPTED_STATUSES,
    TERMINAL_STATUSES,
    WAITING_STATUSES,
)
from dbos_notebook.tables import aggregates, pages
from dbos_notebook.tables.cron import next_run
from dbos_notebook.tables.filters import as_strings
from dbos_notebook.widgets import bundle, html_export, serialize
from dbos_notebook.widgets.action_options import (
    ACTION_OPTIONS,
    action_code,
    check_action,
    make_operation,
)
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.messages import (
    ActionAvailability,
    Answer,
    Handler,
    PlanMessage,
    ProgressMessage,
    Question,
    ReceiptMessage,
)
from dbos_notebook.widgets.query_form import MAX_ALL, MAX_SELECTED, literal

if TYPE_CHECKING:
    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.plan import Plan
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.store import Store

T = TypeVar("T")

MAX_CACHED_PLANS = 20
"""Plans and receipts that are kept; an older plan cannot be confirmed any more."""
MAX_PLAN_ROWS = 50
MAX_PROBED = 200
"""Up to this many workflows, the buttons count those on which DBOS would act as their plans do."""
_STATUSES_OF = {
    "cancel": ACTIVE_STATUSES,
    "resume": (*WAITING_STATUSES, *INTERRUPTED_STATUSES),
    "fork": TERMINAL_STATUSES,
    "repair": FAILED_STATUSES,
    "send": (*ACTIVE_STATUSES, *INTERRUPTED_STATUSES),
    "set_delay": ("DELAYED",),
    "delete": TERMINAL_STATUSES,
}
"""For more workflows, they count those with these statuses."""
MAX_CELL_CHARACTERS = 2_000
MAX_TARGETS = 50
MAX_CONTROLS_ROWS = 50
MAX_SCHEDULES = 200
MAX_CODE_CHARACTERS = 300
_PLAN_COLUMNS = [
    "workflow_id",
    "name",
    "status",
    "verdict",
    "effect",
    "new_workflow_id",
    "will_run",
]


class Actions:
    """The handlers of the buttons of one view.

    Attributes
    ----------
    receipt
        The receipt of the last action that was confirmed.
    handlers
        The handlers by kind of message, to be merged into those of the view.
    """

    receipt: Receipt | None = None

    def __init__(self, store: Store, controller: Controller) -> None:
        self._store = store
        self._controller = controller
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()
        self.handlers: dict[str, Handler] = {
            "possible": self._on_possible,
            "plan": self._on_plan,
            "apply": self._on_apply,
            "progress": self._on_progress,
            "schedules": self._on_schedules,
            "targets": self._on_targets,
        }

    def forbidden(self) -> str | None:
        """Return the reason why nothing can be controlled, if there is one."""
        if self._controller.read_only:
            return "This client is read-only: connect without read_only=True to change workflows."
        control = self._store.catalog.control
        return None if control.possible else control.reason

    def _on_possible(self, message: Question) -> Answer:
        """Count, for each action, the workflows on which DBOS would act."""
        ids = _workflow_ids(message)
        if reason := self.forbidden():
            return {"possible": {action: {"count": 0, "why": reason} for action in ACTION_OPTIONS}}
        if len(ids) > MAX_PROBED:
            return {"possible": self._count_by_status(ids)}
        return {"possible": {action: self._probe(action, ids) for action in ACTION_OPTIONS}}

    def _probe(self, action: str, ids: list[str]) -> ActionAvailability:
        """Evaluate an action as its plan does, without estimating whether an executor runs it."""
        missing = releases.missing_feature(action, (), releases.installed_version())
        if missing:
            return {
                "count": 0,
                "why": f"{missing}, and {releases.installed_version()} is installed",
            }
        items = self._evaluate(action, ids)
        count = sum(item.verdict == "ready" for item in items)
        why = "" if count else next((item.effect for item in items), "no workflow is selected")
        found: ActionAvailability = {"count": count, "why": serialize.explanation(why)}
        if action == "send":
            waits = [
                item for item in items if isinstance(item, SendItem) and item.waits_at is not None
            ]
            topics = dict.fromkeys(topic for item in waits for topic in item.topics if topic)
            found["waits"] = len(waits)
            found["topics"] = list(map(serialize.label, topics))[:MAX_TARGETS]
        return found

    @repeat_if_changed
    def _evaluate(self, action: str, ids: list[str]) -> list[PlanItem]:
        if action == "repair":
            operation = RepairFork.create(key="possible", wait=False)
            return Repair(self._controller).plan(operation, ids).items
        probes: dict[str, Operation] = {
            "cancel": Cancel(),
            "resume": Resume(),
            "fork": Fork.create("failed", key="possible"),
            "send": Send(),
            "set_delay": SetDelay(),
            # Any workflow has attributes.
            "set_attributes": Delete(force=True),
            "delete": Delete(),
        }
        with self._controller.reader.session() as session:
            context = self._controller.context(session)
            return self._controller.evaluate(context, probes[action], ids, requested=ids)

    def _count_by_status(self, ids: list[str]) -> dict[str, ActionAvailability]:
        counted = Counter(row.status for row in self._controller.read(ids).values())
        possible: dict[str, ActionAvailability] = {}
        for action in ACTION_OPTIONS:
            statuses = _STATUSES_OF.get(action, tuple(counted))
            count = sum(counted[status] for status in statuses)
            why = "" if count else f"no selected workflow is {' or '.join(statuses)}"
            possible[action] = {"count": count, "why": why}
        return possible

    def _plan(self, action: str, ids: list[str], options: Mapping[str, Any], key: str) -> Plan:
        operation, subjects = make_operation(self._store, action, options, ids, key)
        if isinstance(operation, RepairFork):
            return Repair(self._controller).plan(operation, subjects)
        return self._controller.plan(operation, subjects)

    def _on_plan(self, question: Question) -> PlanMessage:
        """Plan an action, and keep the plan under the key of the click."""
        action, key = str(question["action"]), str(question["key"])
        check_action(action)
        ids = _workflow_ids(question)
        options = question.get("options") or {}
        plan = self._plan(action, ids, options, key)
        _cache(self._plans, key, plan)
        frame = plan.to_frame()[_PLAN_COLUMNS]
        answers = frame["will_run"].dropna().unique()
        if len(answers) == 1:
            frame = frame.drop(columns="will_run")
        message: PlanMessage = {
            "key": key,
            "counts": plan.counts,
            "rows": _string_rows(frame),
            "left_out": max(0, len(frame) - MAX_PLAN_ROWS),
            "unlikely": plan.unlikely,
            "kinds": list(map(serialize.label, plan.kinds)),
            "notes": list(map(serialize.explanation, plan.notes)),
            "confirm": plan.operation.always_confirm,
            "problem": serialize.explanation(plan.problem) if plan.problem else "",
            "code": action_code(action, ids, options),
        }
        if len(answers) == 1:
            message["will_run"] = serialize.explanation(answers[0])
        return message

    def _on_apply(self, message: Question) -> ReceiptMessage:
        """Apply the plan of a click; when confirmed again, return the same receipt."""
        key = str(message["key"])
        receipt = self._receipts.get(key)
        if receipt is None:
            plan = self._plans.get(key)
            if plan is None:
                raise FilterError("This plan has expired. Click the action again.")
            try:
                receipt = plan.apply(confirm=message.get("confirm") is True)
            except (PartialFailureError, ControlInterrupt) as error:
                self.receipt = error.receipt
                raise
            _cache(self._receipts, key, receipt)
            self.receipt = receipt
        frame = failures_first(receipt.to_frame()).rename(columns={"schedule_name": "workflow_id"})
        if receipt.notes:
            # A note says it for all.
            frame["detail"] = frame["detail"].str.partition(". Will it run? ")[0]
        return {
            "key": key,
            "action": receipt.action,
            "counts": receipt.counts,
            "ok": receipt.ok,
            "rows": _string_rows(frame.drop(columns="action")),
            "left_out": max(0, len(frame) - MAX_PLAN_ROWS),
            "notes": list(map(serialize.explanation, receipt.notes)),
            "follows": bool(receipt.affected),
        }

    def _on_progress(self, message: Question) -> ProgressMessage:
        """Return how far the workflows of a receipt are now."""
        receipt = self._receipts.get(str(message["key"]))
        if receipt is None:
            raise FilterError(
                "This receipt has expired. Refresh the view to see the workflows now."
            )
        ids = receipt.affected[:MAX_ALL]
        rows = self._controller.read(ids)
        statuses = [rows[key].status if key in rows else None for key in ids]
        shown = ids[:MAX_PLAN_ROWS]
        description = describe_progress(statuses, receipt.action)
        plan = self._plans.get(str(message["key"]))
        if plan is not None and isinstance(plan.operation, Send):
            unread = self._describe_unread(plan.operation, ids)
            description += f"; {unread}" if unread else ""
        return {
            "text": description,
            "ended": not any(status in ACTIVE_STATUSES for status in statuses),
            "statuses": {key: rows[key].status for key in shown if key in rows},
        }

    @repeat_if_changed
    def _describe_unread(self, operation: Send, ids: list[str]) -> str:
        with self._controller.reader.session() as session:
            return operation.describe_unread(self._controller.context(session), ids)

    def _on_schedules(self, message: Question) -> Answer:
        """List the schedules that are stored in the database."""
        frame = self._store.table("schedules")
        columns = ["schedule_name", "workflow_name", "schedule", "cron_timezone", "status"]
        columns += ["last_fired_at", "queue_name"]
        rows: list[dict[str, object]] = [
            {**row} for row in _string_rows(frame[columns], MAX_SCHEDULES)
        ]
        now = dt.datetime.now(dt.UTC)
        for row in rows:
            cron, zone = row.get("schedule"), row.get("cron_timezone")
            if row.get("status") == "ACTIVE" and cron is not None:
                time = next_run(str(cron), None if zone is None else str(zone), now)
                row["next"] = None if time is None else round(time.timestamp() * 1000)
        answer = {"rows": rows, "left_out": max(0, len(frame) - MAX_SCHEDULES)}
        stamp = serialize.stamp(answer)
        return {"same": True} if message.get("stamp") == stamp else {**answer, "stamp": stamp}

    def _on_targets(self, _message: Question) -> Answer:
        """Return the versions and queues that a fork may run on, the most likely first."""
        versions = self._store.table("versions")["version_name"].astype(str).tolist()[::-1]
        queues = self._store.read(aggregates.queues)["queue_name"].astype(str).tolist()
        used = self._store.read(pages.frequent_values, ("app_version", "queue_name"), MAX_TARGETS)
        return {
            "versions": list(dict.fromkeys([*versions, *used["app_version"]]))[:MAX_TARGETS],
            "queues": list(dict.fromkeys([*queues, *used["queue_name"]]))[:MAX_TARGETS],
        }


def _workflow_ids(message: Question) -> list[str]:
    return [str(workflow_id) for workflow_id in message["ids"]][:MAX_ALL]


def _cache(cached: OrderedDict[str, T], key: str, value: T) -> None:
    cached[key] = value
    cached.move_to_end(key)
    while len(cached) > MAX_CACHED_PLANS:
        cached.popitem(last=False)


def _string_rows(frame: pd.DataFrame, limit: int = MAX_PLAN_ROWS) -> list[dict[str, str]]:
    return [
        {
            str(name): text.truncate(str(value), MAX_CELL_CHARACTERS)
            for name, value in record.items()
            if not pd.isna(value)
        }
        for record in frame.head(limit).astype(object).to_dict("records")
    ]


class Controls(View):
    """Buttons that control workflows or schedules. Create it with ``Client.controls``.

    Attributes
    ----------
    frame : pandas.DataFrame
        The workflows or the schedules, as they are in the database now.
    code : str
        Python that creates the same buttons, for a client called ``db``.
    receipt : Receipt or None
        The receipt of the last action that was confirmed in this view.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> widget = db.controls(db.workflows(status="ERROR"))
    >>> len(widget.frame), widget.receipt
    (5, None)
    """

    _esm = bundle.module("controls")
    _css = bundle.style("base", "explore")

    _start = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        store: Store,
        controller: Controller,
        workflows: Any,
        *,
        schedules: bool = False,
        embedded: bool = False,
    ) -> None:
        if schedules == (workflows is not None):
            raise FilterError("controls takes either workflows or schedules=True.")
        self._ids = [] if schedules else as_strings(workflows, "workflows")[:MAX_SELECTED]
        self._schedules = schedules
        controller.require_known(self._ids)
        self._actions = Actions(store, controller)
        start = {
            "ids": self._ids,
            "schedules": schedules,
            "forbidden": self._actions.forbidden(),
            "read_only": controller.read_only,
        }
        super().__init__(store, embedded=embedded, _start=start)
        self._handlers = {"rows": self._on_rows, **self._actions.handlers}

    @property
    def frame(self) -> pd.DataFrame:
        """The workflows or the schedules, as they are in the database now."""
        if self._schedules:
            return self._store.table("schedules")
        return self._store.workflows(self._ids, limit=None)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed in this view, if any."""
        return self._actions.receipt

    @property
    def code(self) -> str:
        """Python that creates the same buttons, for a client called ``db``."""
        return f"db.controls({'schedules=True' if self._schedules else literal(self._ids)})"

    def _on_rows(self, message: Question) -> Answer:
        frame = self.frame
        counts = frame["status"].value_counts()
        answer = {
            "rows": serialize.workflow_rows(frame.head(MAX_CONTROLS_ROWS)),
            "counts": {str(status): int(count) for status, count in counts.items() if count},
        }
        stamp = serialize.stamp(answer)
        return {"same": True} if message.get("stamp") == stamp else {**answer, "stamp": stamp}

    def static_html(self) -> str:
        """Return the workflows as a table that needs no kernel; schedules as pandas shows them."""
        if self._schedules:
            return str(self.frame.drop(columns="context").to_html(escape=True, na_rep=""))
        code = text.truncate(self.code, MAX_CODE_CHARACTERS)
        return html_export.listing(self._store, self.frame, code)

    def _html_page(self) -> str:
        if self._schedules:
            return self.static_html()
        return html_export.listing_page(self._store, self.frame, self.code)

    def __repr__(self) -> str:
        what = "schedules" if self._schedules else text.plural(len(self._ids), "workflow")
        return f"<Controls {self._store.location}: {what}>"
