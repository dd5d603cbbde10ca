"""Execution graphs as networkx graphs: making, folding, explaining and comparing them.

Plain functions over ``networkx.DiGraph``. Nothing here draws; ``pictures`` does. docs/graphs.md
says what nodes and edges mean.
"""

from dbos_notebook.graphs.build import execution_graph
from dbos_notebook.graphs.comparison import Comparison, compare
from dbos_notebook.graphs.critical_path import critical_path, self_time
from dbos_notebook.graphs.export import to_serializable
from dbos_notebook.graphs.folding import fold

__all__ = [
    "Comparison",
    "compare",
    "critical_path",
    "execution_graph",
    "fold",
    "self_time",
    "to_serializable",
]
