"""One workflow as graph, timeline and steps: the Python half. Pictures are drawn when asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import traitlets

from dbos_notebook.errors import FilterError
from dbos_notebook.tables import listings
from dbos_notebook.tables.filters import as_texts
from dbos_notebook.widgets import assets, details, plain, static
from dbos_notebook.widgets.actions import Actions
from dbos_notebook.widgets.view import View

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.client import Client
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.pictures.picture import Picture
    from dbos_notebook.workflow import Workflow

PICTURES = ("graph", "timeline", "comparison")
UNFINISHED = ("PENDING", "ENQUEUED", "DELAYED")
MOST_OPEN = 100


class Inspect(View):
    """Graph, timeline and details of one workflow, and what can be done about it.

    Make it with ``Client.inspect``.

    Attributes
    ----------
    workflow_id
        The workflow that is shown; may be set, and changes when a new run is opened in place.

    Examples
    --------
    >>> widget = dbos_notebook.connect(example_database).inspect("checkout-5-bad")
    >>> widget.workflow.error.type
    '__main__.PaymentDeclined'
    """

    _esm = assets.module("inspect")
    _css = assets.style("base", "explore", "inspect")

    workflow_id = traitlets.Unicode().tag(sync=True)
    _start = traitlets.Dict().tag(sync=True)

    def __init__(self, client: Client, workflow_id: str) -> None:
        ids = as_texts(workflow_id, "workflow_id")
        if len(ids) != 1:
            raise FilterError(f"inspect takes one workflow, not {len(ids)}. Call it for each.")
        with client._reader.session() as session:
            listings.require_known(session, client._queries, ids)
        self._actions = Actions(client)
        start = {"forbidden": self._actions.forbidden(), "location": str(client.location)}
        super().__init__(client, workflow_id=ids[0], _start=start)
        self._answers = {
            "picture": self._picture,
            "details": self._details,
            "steps": self._more_steps,
            **self._actions.answers,
        }

    @property
    def workflow(self) -> Workflow:
        """The workflow that is shown, as it is in the database now."""
        return self._client.workflow(self.workflow_id)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed here; ``None``: there was none."""
        return self._actions.receipt

    def _picture(self, message: dict[str, Any]) -> dict[str, Any]:
        """Draw the workflow, unless what would be drawn is what the browser has."""
        from dbos_notebook.pictures.draw import folded

        begun = time.perf_counter()
        workflow_id, what = str(message["id"]), str(message["what"])
        theme = "dark" if message.get("theme") == "dark" else "light"
        opened = [str(name) for name in message.get("open", ())][:MOST_OPEN]
        if what not in PICTURES:
            raise FilterError(f"There is no picture {what!r}. There are: {', '.join(PICTURES)}.")
        graph = self._client.graph(workflow_id)
        root = graph.nodes[workflow_id]
        state = {
            "status": root["status"],
            "name": root.get("name"),
            "unfinished": any(
                node.get("status") in UNFINISHED for _, node in graph.nodes(data=True)
            ),
            "now": round(time.time() * 1000),
        }
        stamp = plain.stamp({"drawn": [what, theme, opened, *_drawn(graph)]})
        if message.get("stamp") == stamp:
            return {"same": True, "stamp": stamp, **state}
        picture = self._drawn(graph, what, theme, opened)
        shown = folded(graph, "auto", opened, ())
        return {
            "svg": picture.svg,
            "nodes": {
                element: _node(key, shown.nodes[key] if key in shown else graph.nodes.get(key, {}))
                for element, key in picture.nodes.items()
            },
            "stamp": stamp,
            "took": round((time.perf_counter() - begun) * 1000),
            **state,
        }

    def _drawn(self, graph: nx.DiGraph[Any], what: str, theme: Any, opened: list[str]) -> Picture:
        from dbos_notebook.pictures.draw import draw

        if what == "timeline":
            from dbos_notebook.pictures.timeline import timeline

            return timeline(graph, theme=theme, open=opened)
        if what == "comparison":
            from dbos_notebook.graphs.compare import compare

            original = self._client.workflow(graph.graph["root"]).forked_from
            pair = (
                self._client.graph(one, load_output=True) for one in (original, graph.graph["root"])
            )
            return draw(compare(*pair).graph, theme=theme, open=opened)
        return draw(graph, theme=theme, open=opened)

    def _details(self, message: dict[str, Any]) -> dict[str, Any]:
        answer = details.of_workflow(self._client, str(message["id"]))
        answer["stamp"] = plain.stamp(answer)
        answer["now"] = round(time.time() * 1000)
        if message.get("step") is not None:
            # Only that step: it may be far behind the first ones.
            number = int(message["step"])
            answer["steps"] = details.steps(self._client, str(message["id"]), number - 1)["steps"][
                :1
            ]
        return {"same": True} if message.get("stamp") == answer["stamp"] else answer

    def _more_steps(self, message: dict[str, Any]) -> dict[str, Any]:
        return details.steps(self._client, str(message["id"]), int(message["after"]))

    def static_html(self) -> str:
        """Return the graph as HTML that needs no kernel; without inputs and results.

        An error's text is in the picture.
        """
        graph = self._client.graph(self.workflow_id)
        return static.pictures(self._client, [("Graph", self._drawn(graph, "graph", "auto", []))])

    def _page(self) -> str:
        graph = self._client.graph(self.workflow_id)
        pictures = [
            (name.capitalize(), self._drawn(graph, name, "auto", [])) for name in PICTURES[:2]
        ]
        body = static.pictures(self._client, pictures)
        frame = self._client.workflows(self.workflow_id)
        return static.page(
            self.workflow_id, [body, static.opened(self._client, frame, repr(self.code))]
        )

    @property
    def code(self) -> str:
        """The Python that gives what is shown, where the client is called ``db``."""
        from dbos_notebook.widgets.asking import literal

        return f"db.inspect({literal(self.workflow_id)})"

    def __repr__(self) -> str:
        return f"<Inspect {self._client.location}: {self.code}>"


def _drawn(graph: nx.DiGraph[Any]) -> list[Any]:
    """Return what a picture shows, without how long ago it was read."""
    nodes = [
        [repr(key), node.get("status"), str(node.get("completed_at")), node.get("error_message")]
        for key, node in graph.nodes(data=True)
    ]
    return [nodes, graph.number_of_edges()]


def _node(key: Any, attributes: Any) -> dict[str, Any]:
    """Return what the browser knows of an element: which node it is, and how it went.

    Examples
    --------
    >>> _node(("order-7", 3), {"name": "charge", "status": "ERROR"})
    {'id': 'order-7', 'step': 3, 'name': 'charge', 'status': 'ERROR'}
    >>> _node(("group", "g1"), {"name": "pack", "count": 90})
    {'group': 'g1', 'name': 'pack', 'count': 90}
    """
    found: dict[str, Any]
    if isinstance(key, str):
        found = {"id": key}
    elif isinstance(key[1], str):
        found = {"group": key[1]}
    else:
        found = {"id": key[0], "step": int(key[1])}
    for name in ("name", "status"):
        if isinstance(value := attributes.get(name), str):
            found[name] = plain.cut(value, plain.SHORT_CHARACTERS)
    if "group" in found and isinstance(attributes.get("count"), int):
        found["count"] = attributes["count"]
    return found
