"""All exceptions and warnings of dbos_notebook.

The tree::

    NotebookError
    ├── LocationError            (ValueError)       the argument is not a database
    ├── DatabaseConnectionError  (ConnectionError)  the server or file cannot be reached
    │   └── AuthenticationError                     the server rejected the login
    ├── NotDBOSDatabaseError                        the database has no DBOS tables
    │   └── SchemaNotFoundError                     the DBOS tables are in another schema
    ├── PermissionDeniedError    (PermissionError)  the role lacks a privilege
    ├── QueryCancelledError                         the server cancelled the statement
    │   └── QueryTimeoutError    (TimeoutError)     statement_timeout was exceeded
    ├── DatabaseLockedError                         another process has locked the SQLite file
    ├── DatabaseChangedError                        tables or file changed during the call
    ├── NotCopyableError         (TypeError)        a client was pickled or copied
    ├── FilterError              (ValueError)       invalid filter, filter value or column
    ├── WorkflowNotFoundError    (LookupError)      no workflow has that ID
    ├── GraphError               (ValueError)       inconsistent rows, or an invalid argument
    ├── PictureError                                a picture cannot be drawn or saved
    │   └── GraphvizNotFoundError                   no Graphviz is installed
    ├── MissingPackageError      (ImportError)      an optional dependency is not installed
    ├── OutputError              (OSError)          an output file exists or cannot be written
    ├── ReadOnlyError            (PermissionError)  control calls are not possible here
    └── ControlError                                a control call did nothing or not everything
        ├── UnsupportedRevisionError                the installed dbos cannot control this database
        ├── RefusedError         (ValueError)       the call is harmful or impossible; ``plan``
        │   └── StepNotFoundError (LookupError)     the start step does not exist; ``plan``
        ├── ScheduleNotFoundError (LookupError)     the schedule does not exist
        ├── ConfirmationError                       ``confirm=True`` is required; ``plan``
        └── PartialFailureError                     the call failed part-way; ``receipt``

    ControlInterrupt             (KeyboardInterrupt)  Ctrl-C stopped a control call or a wait
    TruncatedWarning             (UserWarning)      a result was cut at its limit
    TrustWarning                 (UserWarning)      payloads run code, or could not be deserialized

Each message states what happened, the value, and what to do. No message contains a password.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NoReturn


class NotebookError(Exception):
    """Base class of all errors that dbos_notebook raises."""


class LocationError(NotebookError, ValueError):
    """The argument does not identify a system database."""


class DatabaseConnectionError(NotebookError, ConnectionError):
    """The server or the file cannot be reached."""


class AuthenticationError(DatabaseConnectionError):
    """The server rejected the user or the password."""


class NotDBOSDatabaseError(NotebookError):
    """The database has no DBOS tables."""


class SchemaNotFoundError(NotDBOSDatabaseError):
    """The requested schema has no DBOS tables, but another schema of the database does."""


class PermissionDeniedError(NotebookError, PermissionError):
    """The connected role lacks a privilege, for example to read or write a table."""


class QueryCancelledError(NotebookError):
    """The server cancelled the statement: lock timeout, standby conflict, or a cancel request."""


class QueryTimeoutError(QueryCancelledError, TimeoutError):
    """The statement exceeded ``statement_timeout`` and was cancelled."""


class DatabaseLockedError(NotebookError):
    """Another process has an exclusive lock on the SQLite file."""


class DatabaseChangedError(NotebookError):
    """The tables or the SQLite file changed while they were read. Repeat the call."""


class NotCopyableError(NotebookError, TypeError):
    """A client was pickled or copied, which its connections do not support."""


class FilterError(NotebookError, ValueError):
    """A filter, a filter value, or a column name is invalid."""


class WorkflowNotFoundError(NotebookError, LookupError):
    """The database has no workflow with the given ID."""


class PictureError(NotebookError):
    """A picture cannot be drawn or saved as requested."""


class GraphvizNotFoundError(PictureError):
    """Neither the program ``dot`` nor pygraphviz is installed to lay out a graph."""


class GraphError(NotebookError, ValueError):
    """The rows are inconsistent, or a graph function got an invalid argument."""


class MissingPackageError(NotebookError, ImportError):
    """The call needs a package that belongs to an optional extra."""


class OutputError(NotebookError, OSError):
    """The output file already exists or cannot be written."""


class ReadOnlyError(NotebookError, PermissionError):
    """Control is not possible: ``read_only=True``, a standby, or a read-only session."""


class ControlError(NotebookError):
    """A control call changed nothing, or not everything that it should have.

    Attributes
    ----------
    plan
        The ``Plan`` of a refused call, with the reason for each workflow. After a partial failure,
        ``plan.apply()`` continues.
    receipt
        The ``Receipt`` of a call that had started.
    """

    def __init__(self, message: str, *, plan: Any = None, receipt: Any = None) -> None:
        super().__init__(message)
        self.plan = plan
        self.receipt = receipt


class UnsupportedRevisionError(ControlError):
    """The installed dbos cannot control this database or lacks the call. Nothing was written."""


class RefusedError(ControlError, ValueError):
    """The call would do harm or have no effect. Nothing was written; see ``plan`` for reasons."""


class StepNotFoundError(RefusedError, LookupError):
    """The workflow has no such step to start from. Nothing was written."""


class ScheduleNotFoundError(ControlError, LookupError):
    """The database has no schedule with the given name. Nothing was written."""


class ConfirmationError(ControlError):
    """The call changes many workflows, or deletes, and needs ``confirm=True``."""


class PartialFailureError(ControlError):
    """The call failed part-way. ``receipt`` lists what was done."""


class ControlInterrupt(KeyboardInterrupt):
    """Ctrl-C stopped a control call or a wait.

    Attributes
    ----------
    plan
        The ``Plan`` of the control call; ``plan.apply()`` continues. ``None`` for a wait.
    receipt
        The ``Receipt`` of what the control call had done; ``None`` for a wait.
    workflows
        The last DataFrame that the wait had read; ``None`` for a control call.
    """

    def __init__(
        self, message: str, *, plan: Any = None, receipt: Any = None, workflows: Any = None
    ) -> None:
        super().__init__(message)
        self.plan = plan
        self.receipt = receipt
        self.workflows = workflows


class TruncatedWarning(UserWarning):
    """A listing was truncated at its ``limit``."""


class TrustWarning(UserWarning):
    """Payloads are trusted and can run code, or one of them could not be deserialized."""


def raise_without_context(error: NotebookError) -> NoReturn:
    """Raise an error instead of the driver's, without a reference to it.

    ``from None`` hides the driver's error in the traceback but keeps it as ``__context__``, and
    through it the connection and its password.
    """
    try:
        raise error
    finally:
        error.__context__ = None


def nearest(value: object, known: Iterable[str]) -> str:
    """Return a suggestion for a misspelled name, to append to an error message.

    Parameters
    ----------
    value
        The invalid name.
    known
        The valid names.

    Returns
    -------
    str
        ``" Did you mean 'ERROR'?"``, or ``""`` if no valid name is similar.

    Examples
    --------
    >>> nearest("EROR", ["SUCCESS", "ERROR"])
    " Did you mean 'ERROR'?"
    >>> nearest("zzz", ["SUCCESS", "ERROR"])
    ''
    """
    names = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(str(value).casefold(), names, n=1, cutoff=0.6)
    return f" Did you mean {names[close[0]]!r}?" if close else ""
