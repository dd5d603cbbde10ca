"""The view of one workflow: its graph, timeline and steps, and what can be done with it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import traitlets

from dbos_notebook.drawing import svg
from dbos_notebook.errors import FilterError
from dbos_notebook.graphs.build import read_graph
from dbos_notebook.tables.filters import as_texts
from dbos_notebook.text import truncate
from dbos_notebook.widgets import bundle, html_export, node_details, serialize
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.controls import Actions
from dbos_notebook.widgets.run_data import RunData, as_key, as_plain
from dbos_notebook.workflow import Workflow

if TYPE_CHECKING:
    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.graphs.comparison import Comparison
    from dbos_notebook.store import Store

MOST_ROWS = 300


class Compared:
    """How two runs differ, with the results of both."""

    def __init__(self, ids: tuple[str, str], comparison: Comparison) -> None:
        self.ids = ids
        self._comparison = comparison
        # The merged graph is drawn as a run of its own.
        self._run = RunData(ids[0], comparison.graph, {}, [])

    @classmethod
    def read(cls, store: Store, first: str, second: str) -> Compared:
        """Read both now."""
        from dbos_notebook import graphs

        one, other = (read_graph(store, each, load_output=True) for each in (first, second))
        return cls((first, second), graphs.compare(one, other))

    def told(self, view: Mapping[str, Any]) -> dict[str, Any]:
        """Return the picture of both as one, and what is not the same."""
        frame = self._comparison.differences
        counts = self._comparison.frame["difference"].value_counts()
        return {
            "picture": self._run.drawn({**view, "picture": "graph"}),
            "first": self.ids[0],
            "second": self.ids[1],
            "counts": {str(word): int(count) for word, count in counts.items() if count},
            "rows": [_row(record) for record in frame.head(MOST_ROWS).to_dict("records")],
            "left_out": max(0, len(frame) - MOST_ROWS),
        }


def _row(record: Mapping[Any, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"difference": str(record["difference"]), "kind": record["kind"]}
    if not pd.isna(record["name"]):
        row["name"] = truncate(record["name"], serialize.SHORT_CHARACTERS)
    for side in ("first", "second"):
        key = record[f"node_{side}"]
        if key is None:
            continue
        row[side] = as_plain(key)
        for name in ("status", "error_type"):
            value = record[f"{name}_{side}"]
            if not pd.isna(value):
                row[f"{name}_{side}"] = truncate(value, serialize.SHORT_CHARACTERS)
        row[f"duration_{side}"] = serialize.milliseconds(record[f"duration_{side}"])
    return row


TABS = ("graph", "timeline", "steps")
KEPT = 3
"""Runs whose last reading is kept: the one that is seen, its original, its fork."""


def style() -> str:
    """Return the view's style, with the colours of pictures in light and in dark."""
    light = svg.rules(".dn-inspect .dn-svg-view", "light")
    dark = svg.rules('.dn-inspect[data-theme="dark"] .dn-svg-view', "dark")
    return "\n".join([bundle.style("base"), light, dark, bundle.style("inspect")])


class Inspect(View):
    """One workflow with all below it. Make it with ``Client.inspect``.

    Attributes
    ----------
    workflow_id
        The workflow that is shown; may be set.
    live
        Whether the browser asks again while the workflow is active and seen; may be set.

    Examples
    --------
    >>> widget = dbos_notebook.connect(example_database).inspect("checkout-5-bad")
    >>> widget.selection = ("checkout-5-bad", 3)
    >>> widget.code
    'db.steps("checkout-5-bad", load_output=True).set_index("function_id").loc[3]'
    """

    _esm = bundle.module("inspect")
    _css = style()

    workflow_id = traitlets.Unicode().tag(sync=True)
    live = traitlets.Bool(default_value=True).tag(sync=True)
    _selected: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _start = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        store: Store,
        controller: Controller,
        workflow_id: str,
        *,
        live: bool = True,
        tab: str = "graph",
    ) -> None:
        if tab not in TABS:
            raise FilterError(f"tab={tab!r} is none. Use one of {TABS}.")
        self._runs: OrderedDict[str, RunData] = OrderedDict()
        self._compared: Compared | None = None
        self._actions = Actions(store, controller)
        self._store = store
        ids = as_texts(workflow_id, "workflow_id")
        if len(ids) != 1:
            raise FilterError(f"inspect takes one workflow, not {len(ids)}. Call it for each.")
        # Before anything is shown, so that a wrong ID fails in the caller's cell.
        self._run(ids[0])
        start = {
            "tab": tab,
            "read_only": controller.read_only,
            "forbidden": self._actions.forbidden(),
            "location": str(store.location),
        }
        super().__init__(store, workflow_id=ids[0], live=live, _start=start)
        self._answers = {
            "show": self._show,
            "node": self._node,
            "reveal": self._reveal,
            "search": self._search,
            "list": self._list,
            "raw": self._raw,
            "compare": self._compare,
            "code": self._code,
            **self._actions.answers,
        }

    @property
    def selection(self) -> Any:
        """The key of the node that was clicked, as in ``Client.graph``; ``None``: none is.

        A workflow's is its ID, a step's ``(workflow_id, function_id)``. May be set.
        """
        if not self._selected:
            return None
        return as_key(self._selected[0] if len(self._selected) == 1 else self._selected)

    @selection.setter
    def selection(self, key: Any) -> None:
        plain_key = as_plain(key)
        self._selected = plain_key if isinstance(plain_key, list) else [plain_key] if key else []

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed here; ``None``: there was none."""
        return self._actions.receipt

    @property
    def workflow(self) -> Workflow:
        """The workflow that is shown, as it is in the database now."""
        return Workflow.read(self._store, self.workflow_id)

    @property
    def graph(self) -> Any:
        """The execution graph that is shown: a ``networkx.DiGraph``, as last read."""
        return self._run(self.workflow_id).graph

    @property
    def code(self) -> str:
        """The Python that gives what is selected, where the client is called ``db``."""
        return node_details.code(self._run(self.workflow_id), self.selection)

    def _run(self, workflow_id: str, *, anew: bool = False) -> RunData:
        found = None if anew else self._runs.get(workflow_id)
        if found is None:
            found = RunData.read(self._store, workflow_id)
            before = self._runs.get(workflow_id)
            # What was drawn of it is as good as before; of what still runs, a bar is longer now.
            if before is not None and before.stamp == found.stamp and not found.active:
                found = before
        self._runs[workflow_id] = found
        self._runs.move_to_end(workflow_id)
        while len(self._runs) > KEPT:
            self._runs.popitem(last=False)
        return found

    def _show(self, message: dict[str, Any]) -> dict[str, Any]:
        begun = time.perf_counter()
        run = self._run(_id(message), anew=bool(message.get("anew")))
        state = {"stamp": run.stamp, "now": round(time.time() * 1000), "active": run.active}
        if message.get("stamp") == run.stamp:
            return {"same": True, **state, "took": _since(begun)}
        view = message.get("view") or {}
        return {**self._shown(run, view), **state, "took": _since(begun)}

    def _shown(self, run: RunData, view: Mapping[str, Any]) -> dict[str, Any]:
        return {"facts": run.facts(), "picture": run.drawn(view), "open": view.get("open") or []}

    def _reveal(self, message: dict[str, Any]) -> dict[str, Any]:
        """Open the groups that hide a node, and draw that."""
        run = self._run(_id(message))
        view = dict(message.get("view") or {})
        view["open"] = run.opened_for(as_key(message["key"]), view)
        return {"picture": run.drawn(view), "open": view["open"], "stamp": run.stamp}

    def _node(self, message: dict[str, Any]) -> dict[str, Any]:
        run = self._run(_id(message))
        key = as_key(message["key"])
        return {
            "key": message["key"],
            **node_details.of_node(self._store, run, key, message["view"]),
        }

    def _search(self, message: dict[str, Any]) -> dict[str, Any]:
        return self._run(_id(message)).search(str(message.get("text") or ""))

    def _list(self, message: dict[str, Any]) -> dict[str, Any]:
        return self._run(_id(message)).listed()

    def _raw(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"payloads": node_details.raw(self._store, as_key(message["key"]))}

    def _compare(self, message: dict[str, Any]) -> dict[str, Any]:
        first, second = str(message["first"]), str(message["second"])
        if self._compared is None or self._compared.ids != (first, second) or message.get("anew"):
            self._compared = Compared.read(self._store, first, second)
        return self._compared.told(message.get("view") or {})

    def _code(self, message: dict[str, Any]) -> dict[str, Any]:
        key = message.get("key")
        return {"text": node_details.code(self._run(_id(message)), as_key(key) if key else None)}

    def static_html(self) -> str:
        """Return the picture and the facts as HTML that needs no kernel."""
        return html_export.fallback(self._store, self._run(self.workflow_id))

    def _page(self) -> str:
        return html_export.inspect_page(
            self._store, self._run(self.workflow_id, anew=True), self._css
        )

    def __repr__(self) -> str:
        return f"<Inspect {self.workflow_id!r} {self._store.location}>"


def _id(message: Mapping[str, Any]) -> str:
    return str(message["id"])


def _since(begun: float) -> int:
    return round((time.perf_counter() - begun) * 1000)
