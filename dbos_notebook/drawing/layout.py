"""Lay out a diagram with Graphviz's dot: the installed program, or the one in pygraphviz's wheels.

Graphviz receives sizes and generated names only, never strings from a database, so that its C code
does not parse untrusted input.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from typing import Any

from dbos_notebook.drawing.diagram import STACK_OFFSET, Diagram
from dbos_notebook.errors import GraphvizNotFoundError, PictureError
from dbos_notebook.imports import WholeImports

MAX_PARTS = 2_000
"""The maximum number of nodes and edges; dot's run time grows faster than their number."""
MAX_PARTS_IN_PROCESS = 300
"""Up to this size dot runs in this process, where it cannot be stopped."""
MIN_PARTS_FOR_STRAIGHT_EDGES = 600
"""From this size on dot would optimize for minutes: it draws straight edges and iterates less."""
_STRAIGHT_EDGES = "splines=line nslimit1=1 nslimit=1 mclimit=0.3"
TIMEOUT_SECONDS = 60.0
"""How long dot may take."""

# Graphviz keeps global state.
_ONE_AT_A_TIME = threading.Lock()
_CHILD = (
    "import sys, pygraphviz\n"
    "source = sys.stdin.buffer.read().decode()\n"
    "drawn = pygraphviz.AGraph(source).draw(format=sys.argv[1], prog='dot')\n"
    "sys.stdout.buffer.write(drawn)\n"
)


def arrange(diagram: Diagram, direction: str) -> tuple[float, float]:
    """Set the positions of a diagram's parts, and return the total width and height in pixels.

    Raises
    ------
    PictureError
        There are too many parts to lay out.
    GraphvizNotFoundError
        Neither a ``dot`` nor pygraphviz is installed.
    """
    parts = len(diagram.cards) + len(diagram.edges)
    if parts > MAX_PARTS:
        raise PictureError(
            f"{len(diagram.cards):,} nodes and {len(diagram.edges):,} edges are too many for a "
            f"picture: the limit is {MAX_PARTS:,} in total. Use fold='auto', or fold the graph "
            "with graphs.fold(graph, budget=…)."
        )
    laid_out = json.loads(render(_skeleton(diagram, direction), "json0", parts))
    return _place(diagram, laid_out)


def render(source: str, format: str, parts: int = MAX_PARTS_IN_PROCESS + 1) -> bytes:  # noqa: A002 - Graphviz's word
    """Run dot on a DOT source and return its output."""
    program = shutil.which("dot")
    if program:
        return _run([program, f"-T{format}"], source)
    try:
        with WholeImports():
            import pygraphviz
    except ImportError as error:
        raise GraphvizNotFoundError(
            "Graphviz, which lays out the picture, was not found: there is no program 'dot' on "
            "the PATH, and pygraphviz is not installed. Run: pip install pygraphviz"
        ) from error
    if parts > MAX_PARTS_IN_PROCESS:
        return _run([sys.executable, "-c", _CHILD, format], source)
    with _ONE_AT_A_TIME:
        graph = pygraphviz.AGraph(source)
        try:
            return bytes(graph.draw(format=format, prog="dot"))
        finally:
            graph.close()


def _run(command: list[str], source: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - the program on the PATH, or this Python
            command,
            input=source.encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PictureError(
            f"Graphviz was stopped after {TIMEOUT_SECONDS:.0f} s. Draw fewer nodes with "
            "fold='auto'."
        ) from error
    if done.returncode or not done.stdout:
        message = done.stderr.decode(errors="replace").strip()[-500:]
        raise PictureError(f"Graphviz failed with exit status {done.returncode}: {message}")
    return done.stdout


def _skeleton(diagram: Diagram, direction: str) -> str:
    """Return DOT source that contains sizes and edges only."""
    many = len(diagram.cards) + len(diagram.edges) > MIN_PARTS_FOR_STRAIGHT_EDGES
    lines = [
        "digraph {",
        _STRAIGHT_EDGES if many else "",
        f"rankdir={direction} compound=true newrank=true nodesep=0.2 ranksep=0.3",
        'node [shape=box fixedsize=true label=""]',
        "edge [arrowsize=0.6]",
    ]
    for frame in diagram.frames:
        lines.append(f"subgraph cluster_{frame.id} {{ margin=12")
        # dot fills columns from the bottom and rows from the left.
        cards = frame.cards[::-1] if direction == "LR" else frame.cards
        lines += [_size(diagram, card) for card in cards]
        lines += [
            f"{junction} [width=0.02 height=0.02]"
            for junction, (owner, _, _) in diagram.junctions.items()
            if owner == frame.id
        ]
        lines.append("}")
    lines += [_size(diagram, card.id) for card in diagram.cards.values() if card.frame is None]
    weights = {"next": 20, "first": 20, "starts": 3, "returns": 1, "message": 0, "forked_from": 1}
    edges = list(enumerate(diagram.edges))
    for number, edge in edges[::-1] if direction == "LR" else edges:
        attributes = [f"id={number}", f"weight={weights.get(edge.kind, 1)}"]
        if edge.from_frame:
            attributes.append(f"ltail=cluster_{edge.from_frame}")
        if edge.head in diagram.junctions:
            attributes.append("arrowhead=none")
        if edge.kind == "message":
            attributes.append("constraint=false")
        lines.append(f"{edge.tail} -> {edge.head} [{' '.join(attributes)}]")
    lines.append("}")
    return "\n".join(lines)


def _size(diagram: Diagram, card_id: str) -> str:
    card = diagram.cards[card_id]
    more = STACK_OFFSET if card.kind == "group" else 0
    width, height = (card.width + more) / 72, (card.height + more) / 72
    return f"{card_id} [width={width:.3f} height={height:.3f}]"


def _place(diagram: Diagram, laid_out: dict[str, Any]) -> tuple[float, float]:
    left, bottom, right, top = (float(x) for x in laid_out["bb"].split(","))

    def point(text: str) -> tuple[float, float]:
        x, y = text.split(",")[-2:]
        return float(x) - left, top - float(y)

    frames = {f"cluster_{frame.id}": frame for frame in diagram.frames}
    for item in laid_out.get("objects", []):
        name = item["name"]
        if name in frames:
            x0, y0, x1, y1 = (float(x) for x in item["bb"].split(","))
            frames[name].box = (x0 - left, top - y1, x1 - x0, y1 - y0)
        elif name in diagram.cards:
            card = diagram.cards[name]
            card.x, card.y = point(item["pos"])
            if card.kind == "group":
                card.x, card.y = card.x - STACK_OFFSET / 2, card.y - STACK_OFFSET / 2
        elif name in diagram.junctions:
            diagram.junctions[name] = (diagram.junctions[name][0], *point(item["pos"]))
    for laid_out_edge in laid_out.get("edges", []):
        edge = diagram.edges[int(laid_out_edge["id"])]
        edge.points, edge.tip = [], None
        for token in laid_out_edge["pos"].split():
            if token.startswith("e,"):
                edge.tip = point(token)
            elif not token.startswith("s,"):
                edge.points.append(point(token))
    return right - left, top - bottom
