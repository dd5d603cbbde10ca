"""See and steer the durable workflows of a DBOS application from a notebook.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so that
``import dbos_notebook`` takes a tenth of the time of ``import pandas``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
