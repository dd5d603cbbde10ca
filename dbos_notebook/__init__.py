"""See and steer the durable workflows of a DBOS application from a notebook.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so that
``import dbos_notebook`` takes a tenth of the time of ``import pandas``.
"""

from typing import Any

import lazy_loader

from dbos_notebook.imports import WholeImports

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    with WholeImports():
        return _load(name)


__version__ = "0.1.0"
