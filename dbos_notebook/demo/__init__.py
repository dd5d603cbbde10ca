"""Two real DBOS applications, which fill a database with realistic workflows.

``shop`` and ``documents`` are the applications, ``workload`` the lists of their tasks, ``worker``
and ``documents_worker`` one process of each, ``runner`` the sequence of processes, and ``executor``
a process that keeps running. ``history`` ages and multiplies the runs of ``documents``. Only the
workers import the applications, so that the process that calls :func:`run` has no DBOS state.
"""

from dbos_notebook.demo.executor import Executor, start
from dbos_notebook.demo.runner import DemoError, run

__all__ = ["DemoError", "Executor", "run", "start"]
