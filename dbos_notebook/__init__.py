"""See and steer the durable workflows of a DBOS application from a notebook.

This file lists the public surface. It holds no code of its own.
"""

from dbos_notebook.client import Client, connect
from dbos_notebook.control.plan import Plan
from dbos_notebook.control.receipt import Receipt
from dbos_notebook.drawing.graph_svg import draw
from dbos_notebook.drawing.picture import Picture
from dbos_notebook.errors import (
    AuthenticationError,
    ConfirmationError,
    ControlError,
    ControlInterrupt,
    DatabaseChangedError,
    DatabaseConnectionError,
    DatabaseLockedError,
    FilterError,
    GraphError,
    GraphvizNotFoundError,
    LocationError,
    MissingPackageError,
    NotCopyableError,
    NotDBOSDatabaseError,
    NotebookError,
    OutputError,
    PartialFailureError,
    PermissionDeniedError,
    PictureError,
    QueryCancelledError,
    QueryTimeoutError,
    ReadOnlyError,
    RefusedError,
    ScheduleNotFoundError,
    SchemaNotFoundError,
    StepNotFoundError,
    TruncatedWarning,
    TrustWarning,
    UnsupportedRevisionError,
    WorkflowNotFoundError,
)

__version__ = "0.1.0"

__all__ = [
    "AuthenticationError",
    "Client",
    "ConfirmationError",
    "ControlError",
    "ControlInterrupt",
    "DatabaseChangedError",
    "DatabaseConnectionError",
    "DatabaseLockedError",
    "FilterError",
    "GraphError",
    "GraphvizNotFoundError",
    "LocationError",
    "MissingPackageError",
    "NotCopyableError",
    "NotDBOSDatabaseError",
    "NotebookError",
    "OutputError",
    "PartialFailureError",
    "PermissionDeniedError",
    "Picture",
    "PictureError",
    "Plan",
    "QueryCancelledError",
    "QueryTimeoutError",
    "ReadOnlyError",
    "Receipt",
    "RefusedError",
    "ScheduleNotFoundError",
    "SchemaNotFoundError",
    "StepNotFoundError",
    "TruncatedWarning",
    "TrustWarning",
    "UnsupportedRevisionError",
    "WorkflowNotFoundError",
    "__version__",
    "connect",
    "draw",
]
