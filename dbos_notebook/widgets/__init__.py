"""Views in a notebook's cell: the Python half of each here, the browser's half in ``js/``.

A view reads through a ``Store``, changes through a ``Controller``, and sends plain values.
"""
