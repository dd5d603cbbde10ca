"""Where things go: Graphviz's dot, of the machine or of pygraphviz's wheels, asked for positions.

Graphviz gets sizes and safe names alone, no text of a database: what its C code parses is ours.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from typing import Any

from dbos_notebook.drawing.diagram import STACK, Scene
from dbos_notebook.errors import GraphvizNotFoundError, PictureError

MOST_PARTS = 2_000
"""Nodes and edges of one picture. dot's time grows faster than their number."""
FEW_PARTS = 300
"""So few that dot is done in a moment: run in this process, where it cannot be stopped."""
MANY_PARTS = 600
"""So many that dot would polish for minutes: it is told to draw straight lines and be content."""
_CONTENT = "splines=line nslimit1=1 nslimit=1 mclimit=0.3"
PATIENCE = 60.0
"""Seconds that dot may take."""

# Graphviz keeps global state.
_ONE_AT_A_TIME = threading.Lock()
_CHILD = (
    "import sys, pygraphviz\n"
    "source = sys.stdin.buffer.read().decode()\n"
    "drawn = pygraphviz.AGraph(source).draw(format=sys.argv[1], prog='dot')\n"
    "sys.stdout.buffer.write(drawn)\n"
)


def arrange(scene: Scene, direction: str) -> tuple[float, float]:
    """Set the positions of a scene's parts; return the width and height of all.

    Raises
    ------
    PictureError
        There are too many parts to be laid out, or to be read.
    GraphvizNotFoundError
        Neither a ``dot`` nor pygraphviz is installed.
    """
    parts = len(scene.cards) + len(scene.links)
    if parts > MOST_PARTS:
        raise PictureError(
            f"{len(scene.cards):,} nodes and {len(scene.links):,} edges are more than a picture "
            f"can hold ({MOST_PARTS:,} in all). Leave fold at 'auto', or fold the graph with "
            "graphs.fold(graph, budget=…)."
        )
    laid_out = json.loads(render(_skeleton(scene, direction), "json0", parts))
    return _place(scene, laid_out)


def render(source: str, format: str, parts: int = FEW_PARTS + 1) -> bytes:  # noqa: A002 - Graphviz's word
    """Run dot on a source and return what it draws."""
    program = shutil.which("dot")
    if program:
        return _run([program, f"-T{format}"], source)
    try:
        import pygraphviz
    except ImportError as error:
        raise GraphvizNotFoundError(
            "No Graphviz was found to lay out the picture: there is no program 'dot' on the "
            "PATH and pygraphviz is not installed. Run: pip install pygraphviz"
        ) from error
    if parts > FEW_PARTS:
        return _run([sys.executable, "-c", _CHILD, format], source)
    with _ONE_AT_A_TIME:
        graph = pygraphviz.AGraph(source)
        try:
            return bytes(graph.draw(format=format, prog="dot"))
        finally:
            graph.close()


def _run(command: list[str], source: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - the program that the PATH names, or this Python
            command, input=source.encode(), capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PictureError(
            f"Graphviz was stopped after {PATIENCE:.0f} s. Draw less: leave fold at 'auto'."
        ) from error
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise PictureError(f"Graphviz failed with {done.returncode}: {said}")
    return done.stdout


def _skeleton(scene: Scene, direction: str) -> str:
    """Write the DOT that says sizes and links only."""
    many = len(scene.cards) + len(scene.links) > MANY_PARTS
    lines = [
        "digraph {",
        _CONTENT if many else "",
        f"rankdir={direction} compound=true newrank=true nodesep=0.2 ranksep=0.3",
        'node [shape=box fixedsize=true label=""]',
        "edge [arrowsize=0.6]",
    ]
    for frame in scene.frames:
        lines.append(f"subgraph cluster_{frame.id} {{ margin=12")
        # dot fills a column from below and a row from the left.
        cards = frame.cards[::-1] if direction == "LR" else frame.cards
        lines += [_size(scene, card) for card in cards]
        lines += [
            f"{joint} [width=0.02 height=0.02]"
            for joint, (owner, _, _) in scene.junctions.items()
            if owner == frame.id
        ]
        lines.append("}")
    lines += [_size(scene, card.id) for card in scene.cards.values() if card.frame is None]
    weights = {"next": 20, "first": 20, "starts": 3, "returns": 1, "message": 0, "forked_from": 1}
    links = list(enumerate(scene.links))
    for number, link in links[::-1] if direction == "LR" else links:
        attributes = [f"id={number}", f"weight={weights.get(link.kind, 1)}"]
        if link.from_frame:
            attributes.append(f"ltail=cluster_{link.from_frame}")
        if link.head in scene.junctions:
            attributes.append("arrowhead=none")
        if link.kind == "message":
            attributes.append("constraint=false")
        lines.append(f"{link.tail} -> {link.head} [{' '.join(attributes)}]")
    lines.append("}")
    return "\n".join(lines)


def _size(scene: Scene, card_id: str) -> str:
    card = scene.cards[card_id]
    more = STACK if card.kind == "group" else 0
    wide, high = (card.width + more) / 72, (card.height + more) / 72
    return f"{card_id} [width={wide:.3f} height={high:.3f}]"


def _place(scene: Scene, laid_out: dict[str, Any]) -> tuple[float, float]:
    left, bottom, right, top = (float(x) for x in laid_out["bb"].split(","))

    def point(text: str) -> tuple[float, float]:
        x, y = text.split(",")[-2:]
        return float(x) - left, top - float(y)

    frames = {f"cluster_{frame.id}": frame for frame in scene.frames}
    for thing in laid_out.get("objects", []):
        name = thing["name"]
        if name in frames:
            x0, y0, x1, y1 = (float(x) for x in thing["bb"].split(","))
            frames[name].box = (x0 - left, top - y1, x1 - x0, y1 - y0)
        elif name in scene.cards:
            card = scene.cards[name]
            card.x, card.y = point(thing["pos"])
            if card.kind == "group":
                card.x, card.y = card.x - STACK / 2, card.y - STACK / 2
        elif name in scene.junctions:
            scene.junctions[name] = (scene.junctions[name][0], *point(thing["pos"]))
    for edge in laid_out.get("edges", []):
        link = scene.links[int(edge["id"])]
        link.points, link.tip = [], None
        for each in edge["pos"].split():
            if each.startswith("e,"):
                link.tip = point(each)
            elif not each.startswith("s,"):
                link.points.append(point(each))
    return right - left, top - bottom
