"""See and steer the durable workflows of a DBOS application from a notebook.

This file lists the public surface. It holds no code of its own.
"""

from dbos_notebook.client import Client, connect
from dbos_notebook.errors import (
    AuthenticationError,
    DatabaseConnectionError,
    DatabaseLockedError,
    FilterError,
    GraphError,
    GraphvizNotFoundError,
    LocationError,
    MissingPackageError,
    NotDBOSDatabaseError,
    NotebookError,
    PermissionDeniedError,
    PictureError,
    QueryTimeoutError,
    ReadOnlyError,
    SchemaNotFoundError,
    TruncatedWarning,
    TrustWarning,
    WorkflowNotFoundError,
)
from dbos_notebook.pictures.draw import draw
from dbos_notebook.pictures.picture import Picture

__version__ = "0.1.0"

__all__ = [
    "AuthenticationError",
    "Client",
    "DatabaseConnectionError",
    "DatabaseLockedError",
    "FilterError",
    "GraphError",
    "GraphvizNotFoundError",
    "LocationError",
    "MissingPackageError",
    "NotDBOSDatabaseError",
    "NotebookError",
    "PermissionDeniedError",
    "Picture",
    "PictureError",
    "QueryTimeoutError",
    "ReadOnlyError",
    "SchemaNotFoundError",
    "TruncatedWarning",
    "TrustWarning",
    "WorkflowNotFoundError",
    "__version__",
    "connect",
    "draw",
]
