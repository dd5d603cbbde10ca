"""Drawings of a small graph and of a large folded graph. They have no baseline."""

from __future__ import annotations

from typing import Any

import dbos_notebook as dn
from benchmarks.measure import Measurement, Report, milliseconds, seconds
from dbos_notebook import graphs
from dbos_notebook.drawing.timeline import timeline


def measure_drawings(report: Report, url: str, root: str) -> None:
    """Draw the tree of the benchmark database, folded, and its first nodes."""
    with dn.connect(url, statement_timeout=None) as db:
        large = db.graph(root)
    folded = graphs.fold(large)
    small = large.subgraph(list(large)[:20]).copy()
    measured: list[tuple[str, Any, int, float | None]] = [
        ("A graph of 20 nodes: SVG", lambda: dn.draw(small).svg, 20, 0.1),
        ("A graph of 20 nodes: PNG", lambda: dn.draw(small).png, 20, None),
        (
            f"A graph folded to {len(folded)}: fold and SVG",
            lambda: dn.draw(large).svg,
            len(large),
            2,
        ),
        ("… of which layout and SVG", lambda: dn.draw(folded).svg, len(folded), 1),
        (
            "A folded timeline with its critical path: SVG",
            lambda: timeline(large).svg,
            len(large),
            None,
        ),
    ]
    for what, draw, nodes, bound in measured:
        took = seconds({"ours": draw}, 5)["ours"]
        report.add(
            Measurement(
                what,
                f"{nodes:,} nodes",
                milliseconds(took),
                "",
                "",
                "" if bound is None else f"≤ {milliseconds(bound)}",
                None if bound is None else took <= bound,
            )
        )
