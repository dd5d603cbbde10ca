"""Build, fold, analyze and compare execution graphs, as functions over ``networkx.DiGraph``.

docs/graphs.md documents the attributes of nodes and edges. ``dbos_notebook.drawing`` draws graphs.
"""

from dbos_notebook.imports import WholeImports

# What its modules import, so that no Ctrl-C leaves it halfway.
with WholeImports():
    import networkx  # noqa: F401

from dbos_notebook.graphs.build import execution_graph
from dbos_notebook.graphs.comparison import Comparison, compare
from dbos_notebook.graphs.critical_path import critical_path, self_time
from dbos_notebook.graphs.export import to_serializable
from dbos_notebook.graphs.folding import fold, members
from dbos_notebook.graphs.process_map import process_map

__all__ = [
    "Comparison",
    "compare",
    "critical_path",
    "execution_graph",
    "fold",
    "members",
    "process_map",
    "self_time",
    "to_serializable",
]
