"""The interactive views of a notebook: Python halves here, JavaScript halves in ``js/``.

A view reads through a ``Store`` and makes changes through a ``Controller``.
"""
