"""A diagram as a Graphviz graph, to modify and draw with Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbos_notebook.drawing.theme import DARK, LIGHT, OPERATIONS
from dbos_notebook.imports import WholeImports

if TYPE_CHECKING:
    import graphviz

    from dbos_notebook.drawing.diagram import Card, Diagram

_EDGES = {
    "returns": {"style": "dashed", "constraint": "true"},
    "message": {"style": "dotted", "constraint": "false"},
    "forked_from": {"style": "dashed", "arrowhead": "open"},
    "starts": {"penwidth": "1.6"},
}


def quote_dot(text: str) -> str:
    r"""Escape a string so that Graphviz shows it literally.

    The graphviz package passes ``<…>`` through as an HTML-like label and backslashes as escape
    sequences; names may contain both.

    Examples
    --------
    >>> print(quote_dot("a<b>"), quote_dot("<b>"), quote_dot("\\N"), quote_dot("&lt;"))
    a<b> &lt;b> \\N &amp;lt;
    """
    # Entities for quotes and markup, which Graphviz decodes; the ampersand first, so that a name
    # which contains an entity does not change. Backslashes are doubled because entities are decoded
    # before escape sequences.
    text = text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', "&quot;")
    return "&lt;" + text[1:] if text.startswith("<") else text


def to_graphviz(diagram: Diagram, direction: str, theme: str) -> graphviz.Digraph:
    """Return a diagram as a Graphviz graph, as far as Graphviz can draw it."""
    with WholeImports():
        import graphviz

    palette = DARK if theme == "dark" else LIGHT
    dot = graphviz.Digraph("workflow")
    dot.attr(rankdir=direction, compound="true", bgcolor=palette.ground, fontname="Helvetica")
    dot.attr("graph", nodesep="0.22", ranksep="0.4", charset="UTF-8")
    dot.attr("node", fontname="Helvetica", fontsize="11", style="filled", shape="box")
    dot.attr("edge", color=palette.line, fontname="Helvetica", fontsize="10", arrowsize="0.6")

    def node(into: graphviz.Digraph, card: Card) -> None:
        ink = palette.statuses[card.color_status]
        badge = [card.badge] if card.badge else []
        style = ["filled", "dashed" if card.dash else ""]
        if card.shape in ("step", "workflow", "pill", "sleep"):
            style.append("rounded")
        into.node(
            card.id,
            label="\\n".join(map(quote_dot, [*(line.text for line in card.lines), *badge])),
            tooltip=quote_dot(card.tooltip).replace("\n", "\\n"),
            shape=OPERATIONS.get(card.shape, ("box", ""))[0],
            style=",".join(name for name in style if name),
            fillcolor=ink.fill,
            color=ink.line,
            fontcolor=palette.ink,
            penwidth="2.6" if card.bold_outline or card.critical else "1.1",
            peripheries="2" if card.kind == "group" else "1",
        )

    for frame in diagram.frames:
        with dot.subgraph(name=f"cluster_{frame.id}") as cluster:
            cluster.attr(
                style="filled,rounded",
                color=palette.statuses[frame.status].line if frame.failing else palette.faint,
                fillcolor=palette.frame,
                label="",
            )
            for card_id in frame.cards:
                node(cluster, diagram.cards[card_id])
    for card in diagram.cards.values():
        if card.frame is None:
            node(dot, card)
    for junction in diagram.junctions:
        dot.node(junction, label="", shape="point", width="0.06", color=palette.line)
    for edge in diagram.edges:
        attributes = dict(_EDGES.get(edge.kind, {}))
        if edge.from_frame:
            attributes["ltail"] = f"cluster_{edge.from_frame}"
        if edge.failing:
            attributes.update(color=palette.statuses["ERROR"].line, penwidth="2.2")
        elif edge.critical:
            attributes.update(color=palette.ink, penwidth="2.2")
        if edge.tooltip:
            attributes["tooltip"] = quote_dot(edge.tooltip)
        dot.edge(edge.tail, edge.head, **attributes)
    return dot
