"""The interactive views of a notebook: Python halves here, JavaScript halves in ``js/``.

A view reads through a ``Store`` and makes changes through a ``Controller``.
"""

from dbos_notebook.imports import WholeImports

# What its modules import, so that no Ctrl-C leaves it halfway.
with WholeImports():
    import anywidget  # noqa: F401
