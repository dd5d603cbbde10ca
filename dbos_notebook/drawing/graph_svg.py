"""Draw an execution graph: fold it, lay it out, render it as SVG."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from dbos_notebook import text
from dbos_notebook.drawing.dot import to_graphviz
from dbos_notebook.drawing.legend import Legend
from dbos_notebook.drawing.picture import Drawing, Picture, picture_id
from dbos_notebook.drawing.theme import DIFFERENCES, MARGIN, MIN_WIDTH, OPERATIONS
from dbos_notebook.errors import PictureError, nearest
from dbos_notebook.graphs.comparison import Comparison
from dbos_notebook.graphs.critical_path import critical_path_intervals
from dbos_notebook.status import STATUSES_BY_SEVERITY, status_label
from dbos_notebook.types import Theme

if TYPE_CHECKING:
    import graphviz
    import networkx as nx

    from dbos_notebook.drawing.diagram import Diagram
    from dbos_notebook.graphs.intervals import Times

DEFAULT_MAX_NODES = 80
"""About as many nodes as a reader can grasp."""
_AROUND_HEIGHT = 90.0
"""About the height of the title and the legend of a picture."""
NOTEBOOK_WIDTH = 960.0
"""The widest picture that a notebook shows without scaling it down, in pixels."""
EDGE_DASHES = {
    "first": "",
    "next": "",
    "starts": "",
    "returns": "5 3",
    "message": "1.5 3",
    "forked_from": "9 3 1.5 3",
}
"""The SVG stroke-dasharray by kind of edge."""
CHILD = {"start_child": " a child", "get_result": " a child"}
THEMES = ("auto", "light", "dark")
_DIRECTIONS = ("auto", "LR", "TB")


def draw(
    graph: nx.DiGraph[Any] | Comparison | graphviz.Digraph,
    *,
    fold: Literal["auto"] | int | None = "auto",
    open: Iterable[str] = (),  # noqa: A002 - as graphs.fold
    hide: Iterable[str] = (),
    direction: Literal["auto", "LR", "TB"] = "auto",
    theme: Theme = "auto",
    critical_path: bool = False,
) -> Picture:
    """Draw an execution graph, a comparison or a process map.

    Each workflow is a frame with a card per step, in order of time. Concurrent steps are side by
    side, and children beside the step that started them. Marks, outlines and colors show
    statuses; a red path leads from the step that failed to the root.

    Parameters
    ----------
    graph
        An execution graph from ``Client.graph``, a ``Comparison`` or its graph, a process map from
        ``graphs.process_map``, or a ``graphviz.Digraph`` such as a modified ``Picture.dot``, which
        is drawn unchanged.
    fold
        ``"auto"`` folds a graph that is too large to read; a number is the approximate number of
        nodes to draw; ``None`` never folds.
    open
        Groups to draw unfolded; see ``graphs.fold``.
    hide
        Operations to leave out, such as ``"set_event"``, or ``"system"`` for DBOS's own steps;
        see ``graphs.fold``.
    direction
        ``"LR"`` draws time from left to right, ``"TB"`` from top to bottom; ``"auto"`` from left to
        right unless the picture would be wider than a notebook and narrower from top to bottom.
    theme
        ``"light"``, ``"dark"``, or ``"auto"``: the reader's preference, and light in a PNG.
    critical_path
        Whether to mark the steps and waits that determined the end, each with its share of the
        total time.

    Returns
    -------
    Picture

    Raises
    ------
    PictureError
        The graph is too large for ``fold=None``, or an argument is invalid.
    GraphError
        ``graph`` is not such a graph, or ``hide`` contains an unknown operation.

    Examples
    --------
    >>> graph = dbos_notebook.connect(example_database).graph("checkout-1")
    >>> picture = dbos_notebook.draw(graph)
    >>> sorted(picture._repr_mimebundle_()[0])
    ['image/png', 'image/svg+xml', 'text/plain']
    """
    check_choice(theme, THEMES, "theme")
    check_choice(direction, _DIRECTIONS, "direction")
    import graphviz
    import networkx as nx

    if isinstance(graph, graphviz.Digraph):
        return _draw_dot(graph)
    if isinstance(graph, Comparison):
        graph = graph.graph
    if isinstance(graph, nx.DiGraph) and graph.graph.get("process_map"):
        from dbos_notebook.drawing.process_map_svg import draw_process_map

        return draw_process_map(graph, theme)
    folded = fold_for_drawing(graph, fold, open, hide)
    options = (direction, theme, critical_path)

    @cache
    def times() -> Times:
        from dbos_notebook.graphs.intervals import Times

        return Times(graph)

    def diagram() -> Diagram:
        from dbos_notebook.drawing.diagram import build

        critical = critical_shares(graph, folded, times()) if critical_path else {}
        return build(folded, times(), critical)

    def drawing() -> Drawing:
        return _render(graph, folded, diagram(), times(), options)

    def text() -> str:
        from dbos_notebook.drawing.text_tree import tree

        return tree(folded, times())

    def dot() -> graphviz.Digraph:
        rankdir = "TB" if direction == "TB" else "LR"
        return to_graphviz(diagram(), rankdir, "dark" if theme == "dark" else "light")

    return Picture(drawing, text, dot, folded)


def check_choice(value: object, choices: tuple[str, ...], name: str) -> None:
    """Raise PictureError unless a value is one of the choices."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise PictureError(f"{name}={value!r} is not one of {listed}.{nearest(value, choices)}")


def fold_for_drawing(
    graph: nx.DiGraph[Any],
    fold: Literal["auto"] | int | None,
    open: Iterable[str],  # noqa: A002
    hide: Iterable[str],
) -> nx.DiGraph[Any]:
    """Fold a graph with the arguments of ``draw``; raise PictureError if it has too many nodes."""
    from dbos_notebook import graphs
    from dbos_notebook.drawing.layout import MAX_PARTS
    from dbos_notebook.graphs.validation import check_graph, is_folded, string_list

    check_graph(graph)
    opened, hidden = string_list(open, "open"), string_list(hide, "hide")
    # A graph that is already folded has the size that was requested.
    if fold is None or (fold == "auto" and is_folded(graph)):
        if len(graph) > MAX_PARTS:
            raise PictureError(
                f"{len(graph):,} nodes are too many for a picture: the limit is {MAX_PARTS:,}. "
                "Use fold='auto', and open=[…] for the groups to show in detail."
            )
        if not hidden:
            return graph
        return graphs.fold(graph, budget=max(len(graph), 1), hide=hidden, loops=False)
    if fold != "auto" and (not isinstance(fold, int) or isinstance(fold, bool) or fold < 1):
        raise PictureError(f"fold={fold!r} must be 'auto', a number of nodes above 0, or None.")
    budget = DEFAULT_MAX_NODES if fold == "auto" else int(fold)
    return graphs.fold(graph, budget=budget, open=opened, hide=hidden)


def critical_shares(
    graph: nx.DiGraph[Any], folded: nx.DiGraph[Any], times: Times
) -> dict[Any, str]:
    """Return the share of the critical path's time by drawn node on it, such as "34%"."""
    group_of = {
        member: key
        for key, attributes in folded.nodes(data=True)
        for member in attributes.get("members") or ()
    }
    shares: dict[Any, float] = {}
    total = 0.0
    for node, start, end in critical_path_intervals(graph):
        total += end - start
        drawn = node if node in folded else group_of.get(node)
        if drawn is not None:
            shares[drawn] = shares.get(drawn, 0.0) + end - start
    return {
        node: f"{share / total:.0%}" if total and share / total >= 0.005 else ""
        for node, share in shares.items()
    }


def _render(
    graph: nx.DiGraph[Any],
    folded: nx.DiGraph[Any],
    diagram: Diagram,
    times: Times,
    options: tuple[Any, ...],
) -> Drawing:
    from dbos_notebook.drawing import layout, svg
    from dbos_notebook.drawing.diagram import COMPACT_OPERATIONS
    from dbos_notebook.drawing.title import make_title

    direction, theme, _ = options
    drawing_width, drawing_height = layout.arrange(diagram, "TB" if direction == "TB" else "LR")
    if direction == "auto" and drawing_width > NOTEBOOK_WIDTH:
        horizontal_width = drawing_width
        drawing_width, drawing_height = layout.arrange(diagram, "TB")
        if drawing_width > horizontal_width:
            drawing_width, drawing_height = layout.arrange(diagram, "LR")
    width = max(drawing_width + 2 * MARGIN, MIN_WIDTH)
    available_width = width - 2 * MARGIN
    legend = _legend(diagram)
    legend.arrange(available_width)
    notes = [f"{len(graph):,} nodes folded to {len(folded):,}"] if len(folded) < len(graph) else []
    title = make_title(graph, times, "Execution graph", notes).fitted(available_width)
    top = 82.0 if title.reason else 64.0
    picture = picture_id("g", graph, list(diagram.cards), title, options)
    drawn = svg.render(
        "graph.svg.j2",
        theme,
        picture,
        diagram=diagram,
        title=title,
        legend=legend,
        width=width,
        height=top + drawing_height + 22 + legend.height,
        left=(width - drawing_width) / 2 if drawing_width < available_width else MARGIN,
        top=top,
        EDGE_DASHES=EDGE_DASHES,
        COMPACT_OPERATIONS=COMPACT_OPERATIONS,
    )
    nodes = {f"{picture}-{card.id}": card.key for card in diagram.cards.values()}
    return Drawing(drawn, nodes, title.label)


MIN_TEXT_SIZE = 10.0
"""The smallest size at which text is legible, in pixels."""


def is_legible(picture: Picture, width: float = 1000, height: float = 560) -> bool:
    """Return whether a picture fits into a view at a scale at which its text is legible.

    Examples
    --------
    >>> picture = draw(dbos_notebook.connect(example_database).graph("checkout-1"))
    >>> is_legible(picture), is_legible(picture, width=200)
    (False, False)
    """
    from dbos_notebook.drawing.diagram import TEXT_SIZE

    drawn_width, drawn_height = picture.size
    # A view shows the title and the legend elsewhere.
    scale = min(1, width / drawn_width, height / max(drawn_height - _AROUND_HEIGHT, 1))
    return scale * TEXT_SIZE >= MIN_TEXT_SIZE


def _legend(diagram: Diagram) -> Legend:
    legend = Legend()
    cards = list(diagram.cards.values())
    marks = {card.mark for card in cards if card.has_mark or card.kind == "group"}
    marks |= {status for card in cards for status, _ in card.shares}
    for status in (*STATUSES_BY_SEVERITY, ""):
        if status in marks:
            legend.add("status", status, status_label(status))
    for difference in DIFFERENCES:
        if difference in marks:
            label = f"{difference} run" if difference.startswith("only") else difference
            legend.add("status", difference, label)
    for operation, (_, label) in OPERATIONS.items():
        if label and any(card.shape == operation for card in cards):
            legend.add("shape", operation, label + CHILD.get(operation, ""))
    kinds = {edge.kind for edge in diagram.edges}
    for kind, label in (
        ("returns", "returns"),
        ("message", "message"),
        ("forked_from", "forked from"),
    ):
        if kind in kinds:
            legend.add("edge", kind, label)
    if any(edge.failing for edge in diagram.edges):
        legend.add("failing", "", "failure path")
    if any(card.critical for card in cards):
        legend.add("critical", "", "critical path, share of total time")
    return legend


def _draw_dot(dot: graphviz.Digraph) -> Picture:
    from dbos_notebook.drawing import layout

    def drawing() -> Drawing:
        svg = layout.render(dot.source, "svg").decode()
        return Drawing(svg[svg.index("<svg") :], {})

    return Picture(drawing, lambda: text.sanitize_svg(dot.source, 100_000), lambda: dot)
