"""The Python half of the inspect view: graph, timeline, steps and actions of one workflow."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import traitlets

from dbos_notebook.drawing import svg
from dbos_notebook.errors import FilterError
from dbos_notebook.graphs import compare
from dbos_notebook.graphs.build import read_graph
from dbos_notebook.graphs.intervals import Times
from dbos_notebook.tables.filters import as_strings
from dbos_notebook.widgets import bundle, details, html_export, payload_text, serialize
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.controls import Actions
from dbos_notebook.widgets.messages import (
    Answer,
    ComparedNodes,
    ComparisonMessage,
    NodeKey,
    Question,
    ViewOptions,
    compact,
)
from dbos_notebook.widgets.run_data import RunData
from dbos_notebook.workflow import Workflow

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.graphs.comparison import Comparison
    from dbos_notebook.store import Store

TABS = ("graph", "timeline", "steps")
MAX_COMPARED_ROWS = 300
MAX_CACHED_RUNS = 3
"""Runs whose last reading is kept: the one that is shown, its original, its fork."""


def _style() -> str:
    """Return the style sheet of the view, with the colors of pictures in light and in dark."""
    light = svg.rules(".dn-inspect .dn-svg-view", "light")
    dark = svg.rules('.dn-inspect[data-theme="dark"] .dn-svg-view', "dark")
    return "\n".join([bundle.style("base"), light, dark, bundle.style("inspect")])


class Inspect(View):
    """One workflow with everything below it. Create it with :meth:`Client.inspect`.

    Attributes
    ----------
    workflow_id : str
        The workflow that is shown. May be set.
    live : bool
        Whether the browser refreshes while the workflow is active and visible. May be set.
    selection : str, tuple or None
        The key of the selected node, as in :meth:`Client.graph`. May be set.
    workflow : Workflow
        The workflow, as it is in the database now.
    graph : networkx.DiGraph
        The execution graph, as last read.
    code : str
        Python that returns what is selected, for a client called ``db``.
    receipt : Receipt or None
        The receipt of the last action that was confirmed in this view.

    Examples
    --------
    >>> widget = dbos_notebook.connect(example_database).inspect("checkout-5-bad")
    >>> widget.selection = ("checkout-5-bad", 3)
    >>> widget.code
    'db.steps("checkout-5-bad", load_output=True).set_index("function_id").loc[3]'
    """

    _esm = bundle.module("inspect")
    _css = _style()

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
        embedded: bool = False,
    ) -> None:
        if tab not in TABS:
            raise FilterError(f"tab={tab!r} does not exist. Use one of {TABS}.")
        self._runs: OrderedDict[str, RunData] = OrderedDict()
        self._comparison: (
            tuple[tuple[str, str], Comparison, RunData, tuple[Times, Times]] | None
        ) = None
        self._actions = Actions(store, controller)
        self._store = store
        ids = as_strings(workflow_id, "workflow_id")
        if len(ids) != 1:
            raise FilterError(f"inspect takes one workflow, not {len(ids)}. Call it for each.")
        # Read before the view is displayed, so that the cell raises an error for an unknown ID.
        self._run(ids[0])
        start = {
            "tab": tab,
            "read_only": controller.read_only,
            "forbidden": self._actions.forbidden(),
            "location": str(store.location),
        }
        super().__init__(store, embedded=embedded, workflow_id=ids[0], live=live, _start=start)
        self._handlers = {
            "show": self._on_show,
            "node": self._on_node,
            "reveal": self._on_reveal,
            "search": self._on_search,
            "list": self._on_list,
            "raw": self._on_raw,
            "compare": self._on_compare,
            "activities": self._on_activities,
            "code": self._on_code,
            "payload": lambda message: payload_text.answer(self._store, message),
            **self._actions.handlers,
        }

    def show(self, workflow_id: str) -> None:
        """Show another run.

        Parameters
        ----------
        workflow_id
            The run.

        Raises
        ------
        WorkflowNotFoundError
            No workflow has this ID. The view does not change.
        """
        self.read(workflow_id)
        self.workflow_id = workflow_id

    def read(self, workflow_id: str) -> None:
        """Read a run again, without showing it.

        Raises
        ------
        WorkflowNotFoundError
            No workflow has this ID.
        """
        self._run(workflow_id, refresh=True)

    @property
    def selection(self) -> Any:
        """The key of the selected node, as in :meth:`Client.graph`; ``None`` if there is none.

        The key of a workflow is its ID, that of a step ``(workflow_id, function_id)``. May be set.
        """
        if not self._selected:
            return None
        return serialize.from_json_key(
            self._selected[0] if len(self._selected) == 1 else self._selected
        )

    @selection.setter
    def selection(self, key: NodeKey) -> None:
        json_key = serialize.to_json_key(key)
        self._selected = json_key if isinstance(json_key, list) else [json_key] if key else []

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed in this view, if any."""
        return self._actions.receipt

    @property
    def workflow(self) -> Workflow:
        """The workflow that is shown, as it is in the database now."""
        return Workflow.read(self._store, self.workflow_id)

    @property
    def graph(self) -> nx.DiGraph[Any]:
        """The execution graph that is shown, as last read."""
        return self._run(self.workflow_id).graph

    @property
    def code(self) -> str:
        """Python that returns what is selected, for a client called ``db``."""
        return details.node_code(self._run(self.workflow_id), self.selection)

    def _run(self, workflow_id: str, *, refresh: bool = False) -> RunData:
        cached = self._runs.get(workflow_id)
        run = None if refresh else cached
        if run is None:
            run = RunData.read(self._store, workflow_id)
            # Pictures of an unchanged run stay valid, unless its bars grow while it is active.
            if cached is not None and cached.stamp == run.stamp and not run.active:
                run = cached
        self._runs[workflow_id] = run
        self._runs.move_to_end(workflow_id)
        while len(self._runs) > MAX_CACHED_RUNS:
            self._runs.popitem(last=False)
        return run

    # --- messages --------------------------------------------------------------------------------

    def _on_show(self, message: Question) -> Answer:
        started = time.perf_counter()
        run = self._run(str(message["id"]), refresh=bool(message.get("anew")))
        state: dict[str, object] = {
            "stamp": run.stamp,
            "now": round(time.time() * 1000),
            "active": run.active,
        }
        if message.get("stamp") == run.stamp:
            state["same"] = True
        else:
            view = message.get("view") or {}
            state |= {"facts": run.facts(), "picture": run.picture_message(view)}
            state["open"] = view.get("open") or []
        return {**state, "took": round((time.perf_counter() - started) * 1000)}

    def _on_reveal(self, message: Question) -> Answer:
        """Open the groups that contain a node, and draw the run."""
        run = self._run(str(message["id"]))
        view = dict(message.get("view") or {})
        view["open"] = run.groups_to_open(serialize.from_json_key(message["key"]), view)
        view["overview"] = False
        return {"picture": run.picture_message(view), "open": view["open"], "stamp": run.stamp}

    def _on_node(self, message: Question) -> Answer:
        key = serialize.from_json_key(message["key"])
        run = self._run(str(message["id"]))
        node = details.node_details(self._store, run, key, message["view"])
        return {**node, "key": message["key"]}

    def _on_search(self, message: Question) -> Answer:
        return self._run(str(message["id"])).search(str(message.get("text") or ""))

    def _on_list(self, message: Question) -> Answer:
        return self._run(str(message["id"])).node_list()

    def _on_raw(self, message: Question) -> Answer:
        key = serialize.from_json_key(message["key"])
        return {"payloads": details.stored_payloads(self._store, key)}

    def _on_compare(self, message: Question) -> Answer:
        ids = str(message["first"]), str(message["second"])
        if self._comparison is None or self._comparison[0] != ids or message.get("anew"):
            first, second = (read_graph(self._store, key, load_output=True) for key in ids)
            comparison = compare(first, second)
            # The merged graph is drawn as a run of its own.
            times = Times(first), Times(second)
            self._comparison = ids, comparison, RunData(ids[0], comparison.graph, {}, []), times
        _, comparison, merged, times = self._comparison
        return comparison_message(ids, comparison, merged, times, message.get("view") or {})

    def _on_activities(self, message: Question) -> Answer:
        return {"activities": details.activities(self._store, list(map(str, message["ids"])))}

    def _on_code(self, message: Question) -> Answer:
        key = serialize.from_json_key(message.get("key") or None)
        return {"text": details.node_code(self._run(str(message["id"])), key)}

    # --- HTML ------------------------------------------------------------------------------------

    def static_html(self) -> str:
        """Return the graph and the facts as HTML that needs no kernel."""
        return html_export.run(self._store, self._run(self.workflow_id))

    def _html_page(self) -> str:
        run = self._run(self.workflow_id, refresh=True)
        return html_export.run_page(self._store, run, Inspect._css)

    def __repr__(self) -> str:
        return f"<Inspect {self.workflow_id!r} {self._store.location}>"


def comparison_message(
    ids: tuple[str, str],
    comparison: Comparison,
    merged: RunData,
    times: tuple[Times, Times],
    view: ViewOptions,
) -> ComparisonMessage:
    """Return the picture of both runs in one graph, and the nodes that differ."""
    differences = comparison.differences
    counts = comparison.frame["difference"].value_counts()
    rows = differences.head(MAX_COMPARED_ROWS).to_dict("records")
    return {
        "picture": merged.picture_message({**view, "picture": "graph", "overview": False}),
        "first": ids[0],
        "second": ids[1],
        "counts": {str(difference): int(count) for difference, count in counts.items() if count},
        "rows": [_compared_nodes(row, times) for row in rows],
        "left_out": max(0, len(differences) - MAX_COMPARED_ROWS),
    }


def _compared_nodes(record: Mapping[Any, Any], times: tuple[Times, Times]) -> ComparedNodes:
    columns = ["name"]
    row: dict[str, object] = {"difference": str(record["difference"]), "kind": record["kind"]}
    for side, side_times in zip(("first", "second"), times, strict=True):
        if (key := record[f"node_{side}"]) is None:
            continue
        row[side] = serialize.to_json_key(key)
        row[f"duration_{side}"] = serialize.milliseconds(record[f"duration_{side}"])
        if record["kind"] == "workflow":
            row[f"took_{side}"] = side_times.duration(key)
        columns += [f"status_{side}", f"error_type_{side}"]
    row |= {name: serialize.label(record[name]) for name in columns if not pd.isna(record[name])}
    nodes: ComparedNodes = compact(row)
    return nodes
