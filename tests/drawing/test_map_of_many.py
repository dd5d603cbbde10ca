"""Process maps of many runs: lines between steps, with a width by their count."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import networkx as nx
from test_drawing import parse, texts

import dbos_notebook as dn


def written(steps: int) -> nx.DiGraph[Any]:
    """Return a map of one kind of workflow with long dotted names of steps."""
    result: nx.DiGraph[Any] = nx.DiGraph(process_map=True, runs=100, left_out={})
    owner = ("workflow", "acme.pipelines.documents.workflows.process_invoice_document")
    node = {"kind": "aggregate", "workflow_name": owner[1], "workflows": 100, "status": "SUCCESS"}
    node |= {"statuses": {"SUCCESS": 100}, "count": 100, "failure_rate": 0.0}
    result.add_node(owner, of="workflow", name=owner[1], **node)
    keys: list[Any] = [owner]
    for number in range(steps):
        name = f"acme.pipelines.documents.steps.extract_text_with_layout_model_{number}"
        keys.append(("step", owner[1], name))
        result.add_node(keys[-1], of="step", name=name, operation="step", **node)
    for number, (tail, head) in enumerate(pairwise(keys)):
        kind = "next" if number else "first"
        result.add_edge(tail, head, kind=kind, count=100 - 3 * number, share=1.0)
    for number in range(1, len(keys) - 4, 2):
        result.add_edge(keys[number + 4], keys[number], kind="next", count=number, share=0.1)
    return result


def test_lines_between_steps_have_a_width_by_their_count() -> None:
    picture = dn.draw(written(12))
    assert "extract_text_with_layout_model_3" in texts(picture)
    root = parse(picture)
    lines = {}
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        title = group.find("{http://www.w3.org/2000/svg}title")
        path = group.find("{http://www.w3.org/2000/svg}path[@stroke-width]")
        if title is not None and path is not None and " times, in " in str(title.text):
            count = int(str(title.text).split("\n")[1].split(" ")[0])
            lines[count] = float(path.attrib["stroke-width"])
            # A loop leads to an earlier step, and is dashed.
            assert ("stroke-dasharray" in path.attrib) == (count < 30)
    assert len(lines) == 12 + 4
    widths = [lines[count] for count in sorted(lines)]
    assert widths == sorted(widths)
    assert widths[-1] == 3.5
    assert picture.size[0] < 1_100


def test_thirty_steps_are_shown_and_more_are_counted() -> None:
    said = texts(dn.draw(written(30)))
    assert "extract_text_with_layout_model_29" in said
    said = texts(dn.draw(written(33)))
    assert "and 3 more kinds of steps" in said
    # Of 13 loops between the steps shown, the most frequent twelve are drawn.
    assert "1 rarer transition not drawn" in "".join(said)
