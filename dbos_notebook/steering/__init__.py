"""The methods of Client that controller. Each checks its arguments and hands on to ``control``.

All take an ID, many, a Series, or a DataFrame with ``workflow_id``; an empty one changes nothing.
"""

from __future__ import annotations

from dbos_notebook.steering.repairs import Repairs
from dbos_notebook.steering.schedules import Schedules
from dbos_notebook.steering.watching import Watching
from dbos_notebook.steering.workflows import Workflows


class Steering(Workflows, Schedules, Repairs, Watching):
    """What steers workflows. :class:`Client` is one.

    Every operation returns a ``Receipt``, or with ``plan=True`` a ``Plan`` of which nothing has been
    done yet. Before anything is written, a call is refused with a ``ControlError`` for an unknown
    ID, for what would do harm (``force=True`` where that is meant), and for more than 20
    workflows without ``confirm=True``.
    """
