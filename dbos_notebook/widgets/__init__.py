"""Views in a notebook's cell: the Python half of each here, the browser's half in ``js/``.

A view asks the client and sends plain values; what they mean is for the rooms below to say.
"""
