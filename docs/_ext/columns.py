"""The directive ``columns``: a table of a DataFrame's columns, from the vocabulary in the code."""

from __future__ import annotations

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dbos_notebook.tables.columns import FRAMES


class ColumnsDirective(SphinxDirective):
    """``.. columns:: workflows`` renders name, dtype and meaning of each column."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table, parsed from reStructuredText."""
        frame = self.arguments[0]
        if frame not in FRAMES:
            raise self.error(f"{frame!r} is not one of {', '.join(FRAMES)}.")
        lines = [".. list-table::", "   :header-rows: 1", "   :class: columns", ""]
        rows = [("Column", "dtype", "Meaning")]
        rows += [(f"``{each.name}``", each.dtype, each.meaning) for each in FRAMES[frame]]
        for name, dtype, meaning in rows:
            lines += [f"   * - {name}", f"     - {dtype}", f"     - {meaning}"]
        return self.parse_text_to_nodes(StringList(lines, source=__file__))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("columns", ColumnsDirective)
    return {"parallel_read_safe": True}
