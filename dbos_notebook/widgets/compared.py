"""Two runs side by side in the view of one workflow: the original and its fork."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook.widgets import plain
from dbos_notebook.widgets.run import Run, as_plain

if TYPE_CHECKING:
    from dbos_notebook.client import Client
    from dbos_notebook.graphs.compare import Comparison

MOST_ROWS = 300


class Compared:
    """How two runs differ, with the results of both."""

    def __init__(self, ids: tuple[str, str], comparison: Comparison) -> None:
        self.ids = ids
        self._comparison = comparison
        # The merged graph is drawn as a run of its own.
        self._run = Run(ids[0], comparison.graph, {}, [])

    @classmethod
    def read(cls, client: Client, first: str, second: str) -> Compared:
        """Read both now."""
        from dbos_notebook import graphs

        one, other = (client.graph(each, load_output=True) for each in (first, second))
        return cls((first, second), graphs.compare(one, other))

    def told(self, view: Mapping[str, Any]) -> dict[str, Any]:
        """Return the picture of both as one, and what is not the same."""
        frame = self._comparison.differences
        counts = self._comparison.frame["difference"].value_counts()
        return {
            "picture": self._run.drawn({**view, "picture": "graph"}),
            "first": self.ids[0],
            "second": self.ids[1],
            "counts": {str(word): int(count) for word, count in counts.items() if count},
            "rows": [_row(record) for record in frame.head(MOST_ROWS).to_dict("records")],
            "left_out": max(0, len(frame) - MOST_ROWS),
        }


def _row(record: Mapping[Any, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"difference": str(record["difference"]), "kind": record["kind"]}
    if not pd.isna(record["name"]):
        row["name"] = plain.cut(record["name"], plain.SHORT_CHARACTERS)
    for side in ("first", "second"):
        key = record[f"node_{side}"]
        if key is None:
            continue
        row[side] = as_plain(key)
        for name in ("status", "error_type"):
            value = record[f"{name}_{side}"]
            if not pd.isna(value):
                row[f"{name}_{side}"] = plain.cut(value, plain.SHORT_CHARACTERS)
        row[f"duration_{side}"] = plain.milliseconds(record[f"duration_{side}"])
    return row
