"""Draw an execution graph: fold it, lay it out, render it as SVG."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from dbos_notebook import text
from dbos_notebook.drawing.picture import Drawing, Picture
from dbos_notebook.drawing.theme import DARK, DIFFERENCES, LIGHT, OPERATIONS, ThemeName
from dbos_notebook.errors import PictureError, nearest
from dbos_notebook.graphs.critical_path import drawn_critical_path
from dbos_notebook.status import STATUSES_BY_SEVERITY, status_label

if TYPE_CHECKING:
    import graphviz
    import networkx as nx

    from dbos_notebook.drawing.diagram import Card, CardLine, Scene
    from dbos_notebook.graphs.intervals import Times

_ROW = 18.0


@dataclass
class LegendItem:
    """One mark and its meaning. ``what`` chooses how the template draws ``value``."""

    what: str
    value: str
    text: str
    x: float = 0.0
    y: float = 0.0


@dataclass
class Legend:
    """The items, set in lines."""

    items: list[LegendItem] = field(default_factory=list)
    high: float = 0.0

    def add(self, what: str, value: str, text: str) -> None:
        """Add a mark."""
        self.items.append(LegendItem(what, value, text))

    def arrange(self, room: float) -> None:
        """Set the items in lines no longer than ``room``."""
        x = y = 0.0
        for item in self.items:
            size = text.text_width(item.text, 11) + (24 if item.what else 0)
            if x and x + size > room:
                x, y = 0.0, y + _ROW
            item.x, item.y = x, y
            x += size + 18
        self.high = y + _ROW + 4 if self.items else 8.0


_EDGES = {
    "returns": {"style": "dashed", "constraint": "true"},
    "message": {"style": "dotted", "constraint": "false"},
    "forked_from": {"style": "dashed", "arrowhead": "open"},
    "starts": {"penwidth": "1.6"},
}


def quoted(text: str) -> str:
    r"""Return text as a value that Graphviz shows letter by letter.

    The graphviz package leaves ``<…>`` alone, as an HTML-like label, and backslashes, as
    escapes; both may stand in a name.

    Examples
    --------
    >>> print(quoted("a<b>"), quoted("<b>"), quoted("\\N"), quoted("&lt;"))
    a<b> &lt;b> \\N &amp;lt;
    """
    # Quotes and markup as entities, which Graphviz reads back; an ampersand first, else a name
    # that spells an entity would change. A backslash doubled, because entities are read before
    # the escapes are.
    text = text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', "&quot;")
    return "&lt;" + text[1:] if text.startswith("<") else text


def digraph(scene: Scene, direction: str, theme: str) -> graphviz.Digraph:
    """Return the graph with everything that Graphviz can draw of it."""
    import graphviz

    palette = DARK if theme == "dark" else LIGHT
    dot = graphviz.Digraph("workflow")
    dot.attr(rankdir=direction, compound="true", bgcolor=palette.ground, fontname="Helvetica")
    dot.attr("graph", nodesep="0.22", ranksep="0.4", charset="UTF-8")
    dot.attr("node", fontname="Helvetica", fontsize="11", style="filled", shape="box")
    dot.attr("edge", color=palette.line, fontname="Helvetica", fontsize="10", arrowsize="0.6")

    def node(into: graphviz.Digraph, card: Card) -> None:
        ink = palette.statuses[card.look]
        style = ["filled", "dashed" if card.dash else ""]
        if card.shape in ("step", "workflow", "pill", "sleep"):
            style.append("rounded")
        into.node(
            card.id,
            label="\\n".join(quoted(line.text) for line in _lines(card)),
            tooltip=quoted(card.tooltip).replace("\n", "\\n"),
            shape=OPERATIONS.get(card.shape, ("box", ""))[0],
            style=",".join(each for each in style if each),
            fillcolor=ink.fill,
            color=ink.line,
            fontcolor=palette.ink,
            penwidth="2.6" if card.strong or card.critical else "1.1",
            peripheries="2" if card.kind == "group" else "1",
        )

    for frame in scene.frames:
        with dot.subgraph(name=f"cluster_{frame.id}") as cluster:
            cluster.attr(
                style="filled,rounded",
                color=palette.statuses[frame.status].line if frame.failing else palette.faint,
                fillcolor=palette.frame,
                label="",
            )
            for card_id in frame.cards:
                node(cluster, scene.cards[card_id])
    for card in scene.cards.values():
        if card.frame is None:
            node(dot, card)
    for joint in scene.junctions:
        dot.node(joint, label="", shape="point", width="0.06", color=palette.line)
    for link in scene.links:
        attributes = dict(_EDGES.get(link.kind, {}))
        if link.from_frame:
            attributes["ltail"] = f"cluster_{link.from_frame}"
        if link.failing:
            attributes.update(color=palette.statuses["ERROR"].line, penwidth="2.2")
        elif link.critical:
            attributes.update(color=palette.ink, penwidth="2.2")
        if link.tooltip:
            attributes["tooltip"] = quoted(link.tooltip)
        dot.edge(link.tail, link.head, **attributes)
    return dot


def _lines(card: Card) -> list[CardLine]:
    from dbos_notebook.drawing.diagram import CardLine

    return [*card.lines, CardLine(card.badge)] if card.badge else card.lines


BUDGET = 80
"""About how many nodes a person takes in."""
MARGIN = 16.0
NARROWEST = 620.0
NOTEBOOK = 960.0
"""What a notebook shows without making it smaller."""
LINKS = {
    "first": "",
    "next": "",
    "starts": "",
    "returns": "5 3",
    "message": "1.5 3",
    "forked_from": "9 3 1.5 3",
}
"""SVG's stroke-dasharray of a link."""
CHILD = {"start_child": " a child", "get_result": " a child"}
THEMES = ("auto", "light", "dark")
_DIRECTIONS = ("auto", "LR", "TB")


def draw(
    graph: nx.DiGraph[Any] | graphviz.Digraph,
    *,
    fold: Literal["auto"] | int | None = "auto",
    open: Iterable[str] = (),  # noqa: A002 - as graphs.fold
    hide: Iterable[str] = (),
    direction: Literal["auto", "LR", "TB"] = "auto",
    theme: ThemeName = "auto",
    critical_path: bool = False,
) -> Picture:
    """Draw an execution graph.

    A frame per workflow, cards for its steps in the order of time, concurrent steps side by
    side, children beside the step that started them. Statuses show by mark, line and colour; a
    failure is led from the step that failed to the top.

    Parameters
    ----------
    graph
        Of ``Client.graph`` or ``graphs.compare(…).graph``; or a ``graphviz.Digraph``, such as
        ``Picture.dot`` that has been changed, which is drawn as it is.
    fold
        "auto" folds a graph that is too large to be read; a number says how many nodes to draw
        about; ``None`` never folds.
    open
        The groups to draw unfolded: see ``graphs.fold``.
    hide
        Operations that are not drawn, such as "set_event", or "bookkeeping" for all of DBOS's
        own: see ``graphs.fold``.
    direction
        "LR": time runs to the right; "TB": down; "auto": to the right, unless the picture would
        be wider than a notebook and be read better the other way.
    theme
        "light", "dark", or "auto": what the reader prefers. A PNG is light then.
    critical_path
        Mark the steps and waits that determined the end, with the share of time of each.

    Returns
    -------
    Picture

    Raises
    ------
    PictureError
        The graph is too large for ``fold=None``, or an argument makes no sense.
    GraphError
        It is none of these graphs, or ``hide`` names no operation.

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

    if isinstance(graph, graphviz.Digraph):
        return _draw_dot(graph)
    shown = folded(graph, fold, open, hide)
    options = (direction, theme, critical_path)

    @cache
    def times() -> Times:
        from dbos_notebook.graphs.intervals import Times

        return Times(graph)

    def scene() -> Scene:
        from dbos_notebook.drawing.diagram import build

        critical = critical_shares(graph, shown, times()) if critical_path else {}
        return build(shown, times(), critical)

    def drawing() -> Drawing:
        return _render(graph, shown, scene(), times(), options)

    def text() -> str:
        from dbos_notebook.drawing.text_tree import tree

        return tree(shown, times())

    def dot() -> graphviz.Digraph:

        run = "TB" if direction == "TB" else "LR"
        return digraph(scene(), run, "dark" if theme == "dark" else "light")

    return Picture(drawing, text, dot, shown)


def check_choice(value: object, choices: tuple[str, ...], name: str) -> None:
    """Refuse a word that is none of the choices."""
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise PictureError(f"{name}={value!r} is not one of {known}.{nearest(value, choices)}")


def folded(
    graph: nx.DiGraph[Any],
    fold: Literal["auto"] | int | None,
    open: Iterable[str],  # noqa: A002
    hide: Iterable[str],
) -> nx.DiGraph[Any]:
    """Fold a graph as ``draw`` was asked to; raise where it would be too much."""
    from dbos_notebook import graphs
    from dbos_notebook.drawing.layout import MOST_PARTS
    from dbos_notebook.graphs.validation import check_graph, is_folded, texts

    check_graph(graph)
    opened, hidden = texts(open, "open"), texts(hide, "hide")
    # One that was folded before is as small as it was asked to be.
    if fold is None or (fold == "auto" and is_folded(graph)):
        if len(graph) > MOST_PARTS:
            raise PictureError(
                f"{len(graph):,} nodes are more than a picture can hold ({MOST_PARTS:,}). "
                "Leave fold at 'auto', and open the groups to look into."
            )
        return graphs.fold(graph, budget=len(graph), hide=hidden) if hidden else graph
    if fold != "auto" and (not isinstance(fold, int) or isinstance(fold, bool) or fold < 1):
        raise PictureError(f"fold={fold!r} must be 'auto', a number of nodes from 1 on, or None.")
    budget = BUDGET if fold == "auto" else int(fold)
    if len(graph) <= budget and not hidden:
        return graph
    return graphs.fold(graph, budget=budget, open=opened, hide=hidden)


def critical_shares(graph: nx.DiGraph[Any], shown: nx.DiGraph[Any], times: Times) -> dict[Any, str]:
    """Say of each drawn node on the critical path what share of the time was its own."""
    group_of = {
        member: key
        for key, attributes in shown.nodes(data=True)
        for member in attributes.get("members") or ()
    }
    shares: dict[Any, float] = {}
    total = 0.0
    for node, start, end in drawn_critical_path(graph):
        total += end - start
        drawn = node if node in shown else group_of.get(node)
        if drawn is not None:
            shares[drawn] = shares.get(drawn, 0.0) + end - start
    return {
        node: f"{own / total:.0%}" if total and own / total >= 0.005 else ""
        for node, own in shares.items()
    }


def _render(
    graph: nx.DiGraph[Any],
    shown: nx.DiGraph[Any],
    scene: Scene,
    times: Times,
    options: tuple[Any, ...],
) -> Drawing:
    from dbos_notebook.drawing import layout, svg
    from dbos_notebook.drawing.diagram import BOOKKEEPING
    from dbos_notebook.drawing.title import headline

    direction, theme, _ = options
    wide, high = layout.arrange(scene, "TB" if direction == "TB" else "LR")
    if direction == "auto" and wide > NOTEBOOK:
        sideways = wide
        wide, high = layout.arrange(scene, "TB")
        if wide > sideways:
            wide, high = layout.arrange(scene, "LR")
    full = max(wide + 2 * MARGIN, NARROWEST)
    room = full - 2 * MARGIN
    legend = _legend(scene)
    legend.arrange(room)
    notes = [f"{len(graph):,} nodes folded to {len(shown):,}"] if len(shown) < len(graph) else []
    head = headline(graph, times, "Execution graph", notes).fitted(room)
    top = 82.0 if head.reason else 64.0
    picture = picture_id("g", graph, list(scene.cards), head, options)
    drawn = svg.render(
        "graph.svg.j2",
        theme,
        picture,
        scene=scene,
        headline=head,
        legend=legend,
        wide=full,
        high=top + high + 22 + legend.high,
        left=(full - wide) / 2 if wide < room else MARGIN,
        top=top,
        LINKS=LINKS,
        BOOKKEEPING=BOOKKEEPING,
    )
    nodes = {f"{picture}-{card.id}": card.key for card in scene.cards.values()}
    return Drawing(drawn, nodes, head.title)


def picture_id(kind: str, graph: nx.DiGraph[Any], *parts: object) -> str:
    """Name a picture by what it is of, so that no two in a page have the same ids."""
    read = [graph.graph.get(name) for name in ("database", "read_at", "root", "root_second")]
    digest = hashlib.blake2b(
        repr([*read, *parts]).encode("utf-8", "backslashreplace"), digest_size=5
    ).hexdigest()
    return f"{kind}{digest}"


def _legend(scene: Scene) -> Legend:
    legend = Legend()
    cards = list(scene.cards.values())
    marks = {card.mark for card in cards if card.marked or card.kind == "group"}
    marks |= {status for card in cards for status, _ in card.shares}
    for status in (*STATUSES_BY_SEVERITY, ""):
        if status in marks:
            legend.add("status", status, status_label(status))
    for difference in DIFFERENCES:
        if difference in marks:
            legend.add("status", difference, difference)
    for operation, (_, said) in OPERATIONS.items():
        if said and any(card.shape == operation for card in cards):
            legend.add("shape", operation, said + CHILD.get(operation, ""))
    kinds = {link.kind for link in scene.links}
    for kind, said in (
        ("returns", "returns"),
        ("message", "message"),
        ("forked_from", "forked from"),
    ):
        if kind in kinds:
            legend.add("link", kind, said)
    if any(link.failing for link in scene.links):
        legend.add("failing", "", "the way of the failure")
    if any(card.critical for card in cards):
        legend.add("critical", "", "critical path, share of the time")
    return legend


def _draw_dot(dot: graphviz.Digraph) -> Picture:
    from dbos_notebook import text
    from dbos_notebook.drawing import layout

    def drawing() -> Drawing:
        svg = layout.render(dot.source, "svg").decode()
        return Drawing(svg[svg.index("<svg") :], {})

    return Picture(drawing, lambda: text.sanitize_svg(dot.source, 100_000), lambda: dot)
