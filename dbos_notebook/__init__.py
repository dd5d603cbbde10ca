"""See and steer the durable workflows of a DBOS application from a notebook.

This file lists the public surface. It holds no code of its own.
"""

from dbos_notebook.client import Client, connect
from dbos_notebook.errors import (
    AuthenticationError,
    DatabaseConnectionError,
    DatabaseLockedError,
    FilterError,
    LocationError,
    MissingPackageError,
    NotDBOSDatabaseError,
    NotebookError,
    PermissionDeniedError,
    QueryTimeoutError,
    ReadOnlyError,
    SchemaNotFoundError,
    TruncatedWarning,
    TrustWarning,
    WorkflowNotFoundError,
)

__version__ = "0.1.0"

__all__ = [
    "AuthenticationError",
    "Client",
    "DatabaseConnectionError",
    "DatabaseLockedError",
    "FilterError",
    "LocationError",
    "MissingPackageError",
    "NotDBOSDatabaseError",
    "NotebookError",
    "PermissionDeniedError",
    "QueryTimeoutError",
    "ReadOnlyError",
    "SchemaNotFoundError",
    "TruncatedWarning",
    "TrustWarning",
    "WorkflowNotFoundError",
    "__version__",
    "connect",
]
