"""Cancel, resume, fork and repair by buttons: options, plan, receipt."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import traitlets

from dbos_notebook.control.forks import Fork
from dbos_notebook.control.operations import Cancel, Resume
from dbos_notebook.control.repair import Repair, RepairFork
from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import ControlInterrupt, FilterError, PartialFailureError
from dbos_notebook.tables import aggregates
from dbos_notebook.tables.filters import as_texts
from dbos_notebook.tables.pages import choices
from dbos_notebook.text import truncate
from dbos_notebook.widgets import bundle, html_export, query_form, serialize
from dbos_notebook.widgets.base import View

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.plan import Plan
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.store import Store


NAMES = ("cancel", "resume", "fork", "repair")
SHOWN_ROWS = 100
KEPT = 20
"""Plans and receipts that are kept; a click older than these must be made again."""

_PLAN = ("workflow_id", "name", "status", "verdict", "effect", "new_workflow_id", "will_run")
_OPTIONS = {
    "cancel": ("cancel_children",),
    "resume": ("queue_name",),
    "fork": ("start_step", "application_version", "queue_name"),
    "repair": ("application_version", "queue_name"),
}


class Actions:
    """What the buttons of one view do.

    Attributes
    ----------
    receipt
        Of the last action that was confirmed.
    """

    receipt: Receipt | None = None

    def __init__(self, store: Store, controller: Controller) -> None:
        self._store = store
        self._controller = controller
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()
        self.answers = {
            "possible": self.possible,
            "plan": self.plan,
            "apply": self.apply,
            "targets": self.targets,
        }

    def forbidden(self) -> str | None:
        """Say why nothing can be controlled; ``None``: it can."""
        if self._controller.read_only:
            return "This client is read-only: connect without read_only=True to control."
        control = self._store.catalog.control
        return None if control.possible else control.reason

    def possible(self, message: dict[str, Any]) -> dict[str, Any]:
        """Count, for each action, the workflows on which DBOS would act, and say why on none."""
        ids = [str(one) for one in message["ids"]][: query_form.MOST_SELECTED]
        if reason := self.forbidden():
            return {"possible": {name: {"count": 0, "why": reason} for name in NAMES}}
        found = {}
        for name in NAMES:
            plan = self._plan(name, ids, {}, "possible")
            ready = plan.counts["do"]
            why = "" if ready else next((item.effect for item in plan.items), "nothing selected")
            found[name] = {"count": ready, "why": truncate(why, serialize.SHORT_CHARACTERS)}
        return {"possible": found}

    def _plan(self, name: str, ids: list[str], options: dict[str, Any], key: str) -> Plan:
        given = {word: options[word] for word in _OPTIONS[name] if options.get(word)}
        if name == "cancel":
            return self._controller.plan(Cancel(**given), ids)
        if name == "resume":
            return self._controller.plan(Resume.create(**given), ids)
        if name == "fork":
            start = _start_step(given.pop("start_step", "failed"))
            return self._controller.plan(Fork.create(start, key=key, **given), ids)
        # A kernel that waited for children here would answer nothing meanwhile.
        operation = RepairFork.create(key=key, wait=False, **given)
        return Repair(self._controller).plan(operation, ids)

    def plan(self, message: dict[str, Any]) -> dict[str, Any]:
        """Say what an action would do, and keep the plan under the click's key."""
        name, key = str(message["action"]), str(message["key"])
        if name not in NAMES:
            raise FilterError(f"There is no action {name!r}. There are: {', '.join(NAMES)}.")
        ids = [str(one) for one in message["ids"]][: query_form.MOST_SELECTED]
        options = message.get("options") or {}
        plan = self._plan(name, ids, options, key)
        _keep(self._plans, key, plan)
        frame = plan.to_frame()
        unlikely = frame["will_run"].str.startswith("unlikely").fillna(value=False)
        return {
            "key": key,
            "counts": plan.counts,
            "rows": _records(frame[list(_PLAN)]),
            "left_out": max(0, len(frame) - SHOWN_ROWS),
            "unlikely": int(unlikely.sum()),
            "code": _code(name, ids, options),
        }

    def apply(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what the click's plan says; a second confirmation gets the first one's receipt."""
        key = str(message["key"])
        receipt = self._receipts.get(key)
        if receipt is None:
            plan = self._plans.get(key)
            if plan is None:
                raise FilterError("This plan is not kept any more. Click the action again.")
            try:
                receipt = plan.apply()
            except (PartialFailureError, ControlInterrupt) as error:
                self.receipt = error.receipt
                raise
            _keep(self._receipts, key, receipt)
            self.receipt = receipt
        frame = receipt.to_frame()
        return {
            "key": key,
            "action": receipt.action,
            "counts": receipt.counts,
            "ok": receipt.ok,
            "rows": _records(frame.drop(columns="action")),
            "left_out": max(0, len(frame) - SHOWN_ROWS),
            "notes": [truncate(note, serialize.SHORT_CHARACTERS) for note in receipt.notes],
        }

    @repeat_if_changed
    def targets(self, _: dict[str, Any]) -> dict[str, Any]:
        """Name the versions and queues that a fork may be sent to, the likeliest first."""
        versions = self._store.table("versions")["version_name"].astype(str).tolist()[::-1]
        names = ("app_version", "queue_name")
        with self._store.session() as session:
            seen = choices(session, self._store.queries, names, 50)
        queues = self._store.read(aggregates.queues)["queue_name"].astype(str).tolist()
        return {
            "versions": list(dict.fromkeys([*versions, *seen["app_version"]]))[:50],
            "queues": list(dict.fromkeys([*queues, *seen["queue_name"]]))[:50],
        }


def _start_step(value: Any) -> int | str:
    text = str(value)
    return int(text) if text.isdecimal() else text


def _keep(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)


def _records(frame: pd.DataFrame) -> list[dict[str, str]]:
    import pandas as pd

    return [
        {
            str(name): truncate(str(value), 2_000)
            for name, value in record.items()
            if not pd.isna(value)
        }
        for record in frame.head(SHOWN_ROWS).astype(object).to_dict("records")
    ]


def _code(name: str, ids: list[str], options: dict[str, Any]) -> str:
    """Write the call that makes the same plan.

    Examples
    --------
    >>> _code("fork", ["order-7"], {"start_step": "3", "application_version": "v2"})
    'db.fork("order-7", 3, application_version="v2")'
    """
    arguments = [query_form.literal(ids)]
    given = {word: options[word] for word in _OPTIONS[name] if options.get(word)}
    if name == "fork":
        arguments.append(query_form.literal(_start_step(given.pop("start_step", "failed"))))
    arguments += [f"{word}={query_form.literal(value)}" for word, value in given.items()]
    return f"db.{name}({', '.join(arguments)})"


SHOWN = 50


class Controls(View):
    """Buttons that cancel, resume, fork and repair some workflows. See ``Client.controls``.

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
        self._ids = as_texts(workflows, "workflows")[: query_form.MOST_SELECTED]
        controller.require_known(self._ids)
        self._actions = Actions(store, controller)
        start = {"ids": self._ids, "forbidden": self._actions.forbidden()}
        super().__init__(store, _start=start)
        self._answers = {"rows": self._rows, **self._actions.answers}

    @property
    def frame(self) -> pd.DataFrame:
        """The workflows, as they are in the database now."""
        return self._store.workflows(self._ids, limit=None)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed here; ``None``: there was none."""
        return self._actions.receipt

    def _rows(self, message: dict[str, Any]) -> dict[str, Any]:
        frame = self.frame
        counts = frame["status"].value_counts()
        answer: dict[str, Any] = {
            "rows": serialize.workflow_rows(frame.head(SHOWN)),
            "counts": {str(status): int(count) for status, count in counts.items() if count},
        }
        stamp = serialize.stamp(answer)
        return {"same": True} if message.get("stamp") == stamp else {**answer, "stamp": stamp}

    @property
    def code(self) -> str:
        """The Python that gives the same workflows, where the client is called ``db``."""
        return f"db.controls({query_form.literal(self._ids)})"

    def static_html(self) -> str:
        """Return the workflows as a table that needs no kernel."""
        return html_export.listing(self._store, self.frame, truncate(self.code, 300))

    def _page(self) -> str:
        return html_export.listing_page(self._store, self.frame, self.code)

    def __repr__(self) -> str:
        many = f"{len(self._ids):,} workflow{'' if len(self._ids) == 1 else 's'}"
        return f"<Controls {self._store.location}: {many}>"
