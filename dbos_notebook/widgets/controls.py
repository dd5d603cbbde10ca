"""Cancel, resume, fork and repair from a view: options, plan, receipt; and the buttons alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import traitlets

from dbos_notebook import text
from dbos_notebook.control.forks import Fork
from dbos_notebook.control.operations import Cancel, Resume
from dbos_notebook.control.repair import Repair, RepairFork
from dbos_notebook.errors import ControlInterrupt, FilterError, PartialFailureError
from dbos_notebook.tables import aggregates, pages
from dbos_notebook.tables.filters import as_strings
from dbos_notebook.widgets import bundle, html_export, serialize
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.messages import (
    ActionAvailability,
    Answer,
    Handler,
    PlanMessage,
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

ACTION_OPTIONS = {
    "cancel": ("cancel_children",),
    "resume": ("queue_name",),
    "fork": ("start_step", "application_version", "queue_name"),
    "repair": ("application_version", "queue_name"),
}
"""The actions, and the options of each that the browser offers."""
MAX_CACHED_PLANS = 20
"""Plans and receipts that are kept; an older plan cannot be confirmed any more."""
MAX_PLAN_ROWS = 100
MAX_CELL_CHARACTERS = 2_000
MAX_TARGETS = 50
MAX_CONTROLS_ROWS = 50
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
        reason = self.forbidden()
        possible: dict[str, ActionAvailability] = {}
        for action in ACTION_OPTIONS:
            if reason:
                possible[action] = {"count": 0, "why": reason}
                continue
            plan = self._plan(action, ids, {}, "possible")
            count = plan.counts["ready"]
            effects = (item.effect for item in plan.items)
            why = "" if count else next(effects, "no workflow is selected")
            possible[action] = {"count": count, "why": serialize.label(why)}
        return {"possible": possible}

    def _plan(self, action: str, ids: list[str], options: Mapping[str, Any], key: str) -> Plan:
        arguments = _arguments(action, options)
        if action == "cancel":
            return self._controller.plan(Cancel(**arguments), ids)
        if action == "resume":
            return self._controller.plan(Resume.create(**arguments), ids)
        if action == "fork":
            start = arguments.pop("start_step", "failed")
            return self._controller.plan(Fork.create(start, key=key, **arguments), ids)
        # Without waiting for children, so that the kernel keeps answering.
        operation = RepairFork.create(key=key, wait=False, **arguments)
        return Repair(self._controller).plan(operation, ids)

    def _on_plan(self, message: Question) -> PlanMessage:
        """Plan an action, and keep the plan under the key of the click."""
        action, key = str(message["action"]), str(message["key"])
        if action not in ACTION_OPTIONS:
            raise FilterError(f"There is no action {action!r}. Use one of {list(ACTION_OPTIONS)}.")
        ids = _workflow_ids(message)
        options = message.get("options") or {}
        plan = self._plan(action, ids, options, key)
        _cache(self._plans, key, plan)
        frame = plan.to_frame()
        return {
            "key": key,
            "counts": plan.counts,
            "rows": _string_rows(frame[_PLAN_COLUMNS]),
            "left_out": max(0, len(frame) - MAX_PLAN_ROWS),
            "unlikely": plan.unlikely,
            "code": action_code(action, ids, options),
        }

    def _on_apply(self, message: Question) -> ReceiptMessage:
        """Apply the plan of a click; when confirmed again, return the same receipt."""
        key = str(message["key"])
        receipt = self._receipts.get(key)
        if receipt is None:
            plan = self._plans.get(key)
            if plan is None:
                raise FilterError("This plan has expired. Click the action again.")
            try:
                receipt = plan.apply()
            except (PartialFailureError, ControlInterrupt) as error:
                self.receipt = error.receipt
                raise
            _cache(self._receipts, key, receipt)
            self.receipt = receipt
        frame = receipt.to_frame()
        return {
            "key": key,
            "action": receipt.action,
            "counts": receipt.counts,
            "ok": receipt.ok,
            "rows": _string_rows(frame.drop(columns="action")),
            "left_out": max(0, len(frame) - MAX_PLAN_ROWS),
            "notes": list(map(serialize.label, receipt.notes)),
        }

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


def _arguments(action: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are set, as arguments of the method of ``Client``."""
    arguments = {name: options[name] for name in ACTION_OPTIONS[action] if options.get(name)}
    if "start_step" in arguments:
        step = str(arguments["start_step"])
        arguments["start_step"] = int(step) if step.isdecimal() else step
    return arguments


def _cache(cached: OrderedDict[str, T], key: str, value: T) -> None:
    cached[key] = value
    cached.move_to_end(key)
    while len(cached) > MAX_CACHED_PLANS:
        cached.popitem(last=False)


def _string_rows(frame: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            str(name): text.truncate(str(value), MAX_CELL_CHARACTERS)
            for name, value in record.items()
            if not pd.isna(value)
        }
        for record in frame.head(MAX_PLAN_ROWS).astype(object).to_dict("records")
    ]


def action_code(action: str, ids: list[str], options: Mapping[str, Any]) -> str:
    """Write the call that makes the same plan.

    Examples
    --------
    >>> action_code("fork", ["order-7"], {"start_step": "3", "application_version": "v2"})
    'db.fork("order-7", 3, application_version="v2")'
    """
    named = _arguments(action, options)
    arguments = [literal(ids)]
    if action == "fork":
        arguments.append(literal(named.pop("start_step", "failed")))
    arguments += [f"{name}={literal(value)}" for name, value in named.items()]
    return f"db.{action}({', '.join(arguments)})"


class Controls(View):
    """Buttons that cancel, resume, fork and repair workflows. Create it with ``Client.controls``.

    Attributes
    ----------
    frame : pandas.DataFrame
        The workflows, as they are in the database now.
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

    def __init__(self, store: Store, controller: Controller, workflows: Any) -> None:
        self._ids = as_strings(workflows, "workflows")[:MAX_SELECTED]
        controller.require_known(self._ids)
        self._actions = Actions(store, controller)
        start = {"ids": self._ids, "forbidden": self._actions.forbidden()}
        super().__init__(store, _start=start)
        self._handlers = {"rows": self._on_rows, **self._actions.handlers}

    @property
    def frame(self) -> pd.DataFrame:
        """The workflows, as they are in the database now."""
        return self._store.workflows(self._ids, limit=None)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed in this view, if any."""
        return self._actions.receipt

    @property
    def code(self) -> str:
        """Python that creates the same buttons, for a client called ``db``."""
        return f"db.controls({literal(self._ids)})"

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
        """Return the workflows as a table that needs no kernel."""
        code = text.truncate(self.code, MAX_CODE_CHARACTERS)
        return html_export.listing(self._store, self.frame, code)

    def _html_page(self) -> str:
        return html_export.listing_page(self._store, self.frame, self.code)

    def __repr__(self) -> str:
        return f"<Controls {self._store.location}: {text.plural(len(self._ids), 'workflow')}>"
