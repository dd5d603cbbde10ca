"""Every error and warning that dbos_notebook raises on purpose, and nothing else.

The tree::

    NotebookError
    ├── LocationError            (ValueError)       the argument names no database
    ├── DatabaseConnectionError  (ConnectionError)  the server or file cannot be reached
    │   └── AuthenticationError                     it was reached, and refused the login
    ├── NotDBOSDatabaseError                        reached, but it holds no DBOS tables
    │   └── SchemaNotFoundError                     the DBOS tables are in another schema
    ├── PermissionDeniedError    (PermissionError)  the role may not read a table
    ├── QueryCancelledError                         the server ended the statement
    │   └── QueryTimeoutError    (TimeoutError)     it ran past its time
    ├── DatabaseLockedError                         another process holds the SQLite file
    ├── DatabaseChangedError                        its tables or file changed during the call
    ├── NotCopyableError         (TypeError)        a client was pickled or copied
    ├── FilterError              (ValueError)       a filter, value or column makes no sense
    ├── WorkflowNotFoundError    (LookupError)      no workflow has that ID
    ├── GraphError               (ValueError)       rows that make no graph; a wrong graph or word
    ├── PictureError                                a picture cannot be drawn or written
    │   └── GraphvizNotFoundError                   nothing is installed that lays out graphs
    ├── MissingPackageError      (ImportError)      an extra of this package is not installed
    ├── OutputError              (OSError)          a file exists already, or cannot be written
    ├── ReadOnlyError            (PermissionError)  control where nothing can be written
    └── ControlError                                a control call wrote nothing, or not all
        ├── UnsupportedRevisionError                the installed dbos cannot control this database
        ├── RefusedError         (ValueError)       it would do harm or can do nothing; ``plan``
        │   └── StepNotFoundError (LookupError)     there is no such step to start from; ``plan``
        ├── ScheduleNotFoundError (LookupError)     no schedule has that name
        ├── ConfirmationError                       many workflows, or a deletion; ``plan``
        └── PartialFailureError                          a fault ended it half way; ``receipt``

    ControlInterrupt             (KeyboardInterrupt)  Ctrl-C ended control or waiting half way
    TruncatedWarning             (UserWarning)      a listing left rows out
    TrustWarning                 (UserWarning)      payloads run code, or could not be run

Each message says what happened, the value, and what to do. None ever holds a password.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NoReturn


class NotebookError(Exception):
    """Base of every error that dbos_notebook raises on purpose."""


class LocationError(NotebookError, ValueError):
    """The argument does not say where a system database is."""


class DatabaseConnectionError(NotebookError, ConnectionError):
    """The server or the file cannot be reached."""


class AuthenticationError(DatabaseConnectionError):
    """The server was reached and refused the user or the password."""


class NotDBOSDatabaseError(NotebookError):
    """The database was reached, but it holds no DBOS tables."""


class SchemaNotFoundError(NotDBOSDatabaseError):
    """The schema asked for has no DBOS tables; others of the database have."""


class PermissionDeniedError(NotebookError, PermissionError):
    """The role that is connected may not read what was asked for."""


class QueryCancelledError(NotebookError):
    """The server ended the statement: for a lock, for a standby's sake, or because asked to."""


class QueryTimeoutError(QueryCancelledError, TimeoutError):
    """The statement ran past ``statement_timeout`` and was cancelled."""


class DatabaseLockedError(NotebookError):
    """Another process holds the SQLite file exclusively."""


class DatabaseChangedError(NotebookError):
    """The tables, or the SQLite file, changed while they were read; the same call works again."""


class NotCopyableError(NotebookError, TypeError):
    """A client was to be pickled or copied, and its connections cannot be."""


class FilterError(NotebookError, ValueError):
    """A filter, a filter's value, or a column name makes no sense."""


class WorkflowNotFoundError(NotebookError, LookupError):
    """No workflow of the database has the given ID."""


class PictureError(NotebookError):
    """A picture cannot be drawn as asked, or not be written to that file."""


class GraphvizNotFoundError(PictureError):
    """Neither the program ``dot`` nor pygraphviz is there to lay out a graph."""


class GraphError(NotebookError, ValueError):
    """The rows contradict each other, or a function over graphs got what it cannot take."""


class MissingPackageError(NotebookError, ImportError):
    """What was asked for needs a package that an extra brings."""


class OutputError(NotebookError, OSError):
    """A file that was to be written exists already, or cannot be written."""


class ReadOnlyError(NotebookError, PermissionError):
    """Control was asked of a client with ``read_only=True``, a standby, or a read-only session."""


class ControlError(NotebookError):
    """A control call wrote nothing, or not all that it should have.

    Attributes
    ----------
    plan
        What would have been done and what not (a ``Plan``), where the call was refused; where it
        broke off, ``plan.apply()`` goes on.
    receipt
        What was done (a ``Receipt``), where the call had begun.
    """

    def __init__(self, message: str, *, plan: Any = None, receipt: Any = None) -> None:
        super().__init__(message)
        self.plan = plan
        self.receipt = receipt


class UnsupportedRevisionError(ControlError):
    """The installed dbos cannot control this database, or lacks the call. Nothing was written."""


class RefusedError(ControlError, ValueError):
    """It would do harm, or can do nothing. Nothing was written; ``plan`` tells why for each."""


class StepNotFoundError(RefusedError, LookupError):
    """The workflow has no such step to start from. Nothing was written."""


class ScheduleNotFoundError(ControlError, LookupError):
    """No schedule of the database has the given name. Nothing was written."""


class ConfirmationError(ControlError):
    """The call changes many workflows, or deletes; ``confirm=True`` is asked for."""


class PartialFailureError(ControlError):
    """A fault ended the call half way. ``receipt`` tells what was done."""


class ControlInterrupt(KeyboardInterrupt):
    """Ctrl-C ended control or waiting half way.

    Attributes
    ----------
    plan
        What it was doing (a ``Plan``): ``plan.apply()`` goes on. ``None`` where it only waited.
    receipt
        What control had done (a ``Receipt``); ``None`` where it only waited.
    workflows
        What waiting had seen last (a DataFrame); ``None`` where it did not wait.
    """

    def __init__(
        self, message: str, *, plan: Any = None, receipt: Any = None, workflows: Any = None
    ) -> None:
        super().__init__(message)
        self.plan = plan
        self.receipt = receipt
        self.workflows = workflows


class TruncatedWarning(UserWarning):
    """A listing left rows out because of its ``limit``."""


class TrustWarning(UserWarning):
    """Payloads are trusted, and run what they hold; or one of them failed to."""


def raise_alone(error: NotebookError) -> NoReturn:
    """Raise an error in the place of a driver's, and let go of that one.

    ``from None`` hides the other from a traceback and keeps it at ``__context__``, where it holds
    the connection, and that the password.
    """
    try:
        raise error
    finally:
        error.__context__ = None


def nearest(value: object, known: Iterable[str]) -> str:
    """Name the known word nearest to a wrong one, as the end of an error message.

    Parameters
    ----------
    value
        What the person wrote.
    known
        The words that would have been right.

    Returns
    -------
    str
        ``" Did you mean 'ERROR'?"``, or ``""`` where nothing is near.

    Examples
    --------
    >>> nearest("EROR", ["SUCCESS", "ERROR"])
    " Did you mean 'ERROR'?"
    >>> nearest("zzz", ["SUCCESS", "ERROR"])
    ''
    """
    words = {word.casefold(): word for word in known}
    close = difflib.get_close_matches(str(value).casefold(), words, n=1, cutoff=0.6)
    return f" Did you mean {words[close[0]]!r}?" if close else ""
