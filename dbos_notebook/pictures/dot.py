r"""A scene as a graphviz.Digraph: for who wants to change it, or to draw it in another way.

Every text is escaped: none is taken for an HTML-like label, and none of Graphviz's escapes
(``\\N``, ``\\\\G``, ``\\\\l``) is left in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbos_notebook.pictures.theme import DARK, LIGHT, OPERATIONS

if TYPE_CHECKING:
    import graphviz

    from dbos_notebook.pictures.nodes import Card, Line
    from dbos_notebook.pictures.scene import Scene

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


def _lines(card: Card) -> list[Line]:
    from dbos_notebook.pictures.nodes import Line

    return [*card.lines, Line(card.badge)] if card.badge else card.lines
