"""One workflow: its payloads, steps and relatives, read from the database when first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos_notebook import text
from dbos_notebook.errors import WorkflowNotFoundError
from dbos_notebook.payloads.recorded_errors import describe
from dbos_notebook.status import ACTIVE_STATUSES

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.graphs.intervals import Runs
    from dbos_notebook.store import Store
    from dbos_notebook.tables.activity import Activity

MAX_VALUE_CHARACTERS = 200


class Input(NamedTuple):
    """The arguments of a workflow.

    Attributes
    ----------
    args : tuple
        The positional arguments.
    kwargs : dict
        The keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Workflow:
    """One workflow. Get it with :meth:`Client.workflow`.

    Each attribute is read from the database when first used, and cached. Call
    :meth:`Client.workflow` again for current values. A cell shows a workflow as a card, ``print``
    as a string. The columns of :meth:`Client.workflows` are attributes too: ``status``,
    ``created_at``, ``queue_name``, …

    Attributes
    ----------
    id : str
        The workflow's ID.
    row : pandas.Series
        The workflow's row of :meth:`Client.workflows`.
    input : Input
        The arguments; another value if something else was stored.
    output : object
        The return value, ``None`` without one.
    error : RecordedError or None
        The exception that ended the workflow.
    activity : Activity or None
        What the workflow is doing now, with the evidence; ``None`` if it has ended.
    steps : pandas.DataFrame
        The steps with their outputs and errors, as :meth:`Client.steps` returns them.
    parent, original : Workflow or None
        The workflow that started this one, and the one that this is a fork of.
    children, forks : pandas.DataFrame
        The workflows started by this one, and its forks, as :meth:`Client.workflows` returns them.
    events : dict
        The latest value of each event.
    messages : pandas.DataFrame
        The messages sent to the workflow.
    streams : dict
        The values written to each stream, in order.
    timeline_rows : pandas.DataFrame
        The start, end and duration of the workflow and of its steps.

    Examples
    --------
    >>> flow = dbos_notebook.connect(example_database).workflow("checkout-5-bad")
    >>> flow.status, flow.error.type
    ('ERROR', '__main__.PaymentDeclined')
    >>> flow.input.args[0].id
    'order-5-bad'
    """

    def __init__(self, store: Store, row: pd.Series[Any]) -> None:
        self._store = store
        self.row = row

    @classmethod
    def read(cls, store: Store, workflow_id: str) -> Workflow:
        """Read a workflow by its ID; raises WorkflowNotFoundError."""
        frame = store.workflow(workflow_id, load_input=True, load_output=True, load_internals=True)
        return cls(store, frame.iloc[0])

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self.row.index:
            return self.row[name]
        raise AttributeError(f"A workflow has no attribute {name!r}. dir() lists its attributes.")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self.row.index if name != "serialization")]

    @property
    def id(self) -> str:
        """The workflow's ID."""
        return str(self.row["workflow_id"])

    @cached_property
    def input(self) -> Any:
        """The arguments as an :class:`Input`; any other value that was stored as it is."""
        stored = self.row["input"]
        for args, kwargs in (("args", "kwargs"), ("positionalArgs", "namedArgs")):
            if not isinstance(stored, dict) or args not in stored:
                continue
            positional, named = stored[args] or (), stored.get(kwargs) or {}
            if isinstance(positional, list | tuple) and isinstance(named, dict):
                return Input(tuple(positional), named)
        return stored

    @cached_property
    def activity(self) -> Activity | None:
        """What the workflow is doing now; ``None`` if it has ended."""
        return self._store.activities([self.id]).get(self.id)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The steps with their outputs and errors, as :meth:`Client.steps` returns them."""
        return self._store.steps(self.id, load_output=True)

    @cached_property
    def children(self) -> pd.DataFrame:
        """The workflows that this one started, as :meth:`Client.workflows` returns them."""
        tree = self._store.tree(self.id, depth=1)
        return tree[tree["depth"] == 1].reset_index(drop=True)

    @cached_property
    def parent(self) -> Workflow | None:
        """The workflow that started this one, if any."""
        return self._relative("parent_workflow_id")

    @cached_property
    def original(self) -> Workflow | None:
        """The workflow that this one is a fork of, if any."""
        return self._relative("forked_from")

    def _relative(self, column: str) -> Workflow | None:
        import pandas as pd

        workflow_id = self.row[column]
        return None if pd.isna(workflow_id) else Workflow.read(self._store, workflow_id)

    @cached_property
    def forks(self) -> pd.DataFrame:
        """The forks of this workflow, as :meth:`Client.workflows` returns them."""
        return self._store.workflows(forked_from=self.id, limit=None)

    @cached_property
    def events(self) -> dict[str, Any]:
        """The latest value of each event that the workflow set, by key."""
        frame = self._store.table("events", self.id)
        return dict(zip(frame["key"], frame["value"], strict=True))

    @cached_property
    def messages(self) -> pd.DataFrame:
        """The messages that were sent to the workflow."""
        return self._store.table("messages", self.id)

    @cached_property
    def streams(self) -> dict[str, list[Any]]:
        """The values that the workflow wrote to each stream, in order, by key."""
        streams: dict[str, list[Any]] = {}
        frame = self._store.table("streams", self.id)
        for key, value in zip(frame["key"], frame["value"], strict=True):
            streams.setdefault(key, []).append(value)
        return streams

    @cached_property
    def timeline_rows(self) -> pd.DataFrame:
        """The latest run and the recorded steps, including those of earlier runs or the original.

        Columns ``kind`` ("workflow" or "step"), ``name``, ``status``, ``started_at``,
        ``completed_at``, ``duration``. The times are those of the database: missing where it has
        none, and unlike those of a timeline not refined by the steps where it has whole seconds.
        """
        import pandas as pd

        from dbos_notebook.tables.timing import frame_times

        columns = ["name", "status", "started_at", "completed_at", "duration"]
        own = self.row.to_frame().T
        own["started_at"] = frame_times(own, pd.Timestamp.now("UTC"))["started_at"]
        steps = self.steps.rename(columns={"function_name": "name"})
        # As strings, because the statuses of steps and of workflows are different categories.
        parts = {"workflow": own[columns], "step": steps[columns].astype({"status": "str"})}
        rows = pd.concat(parts, names=["kind", None]).reset_index(level=0).reset_index(drop=True)
        for column in ("started_at", "completed_at"):
            rows[column] = pd.to_datetime(rows[column], utc=True).astype("datetime64[ms, UTC]")
        rows["duration"] = pd.to_timedelta(rows["duration"]).astype("timedelta64[ms]")
        return rows

    def facts(self) -> dict[str, str]:
        """Return the facts at the top of a card: when, where and who, without missing values."""
        import pandas as pd

        from dbos_notebook.tables.timing import never_ran

        names = {
            "created_at": "created",
            "dequeued_at": "dequeued",
            "completed_at": "completed",
            "delay_until": "delayed until",
            "duration": "took",
            "queue_wait": "waited",
            "queue_name": "queue",
            "app_version": "version",
            "executor_id": "executor",
            "application_name": "application",
            "authenticated_user": "user",
            "parent_workflow_id": "parent",
            "forked_from": "forked from",
            "recovery_attempts": "attempts",
        }
        facts = {}
        for column, name in names.items():
            value = self.row[column]
            if pd.isna(value) or (column == "delay_until" and self.row["status"] != "DELAYED"):
                continue
            if column == "executor_id" and never_ran(
                self.row["status"], self.row["recovery_attempts"]
            ):
                continue  # the executor that enqueued it, or ran it before it was resumed
            if isinstance(value, pd.Timestamp):
                value = text.timestamp(value, milliseconds=False)
            elif column == "duration":
                value = self._took(value)
            elif isinstance(value, pd.Timedelta):
                value = self._waited(value)
            facts[name] = text.sanitize(value)
        if self.row["status"] in ACTIVE_STATUSES and self.activity is not None:
            facts["now"] = text.sanitize(self.activity.text, MAX_VALUE_CHARACTERS)
        if failed_at := self._failed_at():
            facts["failed at"] = failed_at
        if self.row["status"] == "CANCELLED" and self.row["recovery_attempts"] == 0:
            from dbos_notebook.graphs.intervals import describe_unstarted

            if (unstarted := self._runs.unstarted(self.id)) is not None:
                facts["note"] = describe_unstarted(unstarted, facts.get("waited", ""))
        return facts

    def _failed_at(self) -> str:
        """Return where the workflow failed first; ``""`` if it did not fail."""
        import pandas as pd

        step, number, owner = (
            None if pd.isna(value) else value
            for value in self.row[["failed_step", "failed_step_id", "failed_workflow_id"]]
        )
        if owner is None:
            return ""
        return text.sanitize(text.describe_failed_step(step, number, owner, self.id))

    def _took(self, duration: pd.Timedelta) -> str:
        """Return the duration of the latest run, refined by the steps beyond whole seconds."""
        runs, run = self._runs, self._runs.run(self.id)
        if not runs.coarse or run is None or run.started is None:
            return text.duration(duration)
        lasted = (run.ended - run.started) / 1000
        return text.duration(lasted, approximate=runs.is_approximate(self.id))

    def _waited(self, wait: pd.Timedelta) -> str:
        return text.duration(wait, approximate=self._runs.coarse)

    @cached_property
    def _runs(self) -> Runs:
        from dbos_notebook.graphs import execution_graph
        from dbos_notebook.graphs.intervals import Runs

        return Runs(execution_graph(self.row.to_frame().T, self.steps, copied=self._copied()))

    def _copied(self) -> pd.DataFrame | None:
        """Return the steps that were copied from the original; ``None`` if that is unknown."""
        import pandas as pd

        if pd.isna(self.row["forked_from"]):
            return None
        try:
            steps = self._store.steps(self.row["forked_from"], load_output=False)
        except WorkflowNotFoundError:
            return None
        columns = ["function_id", "started_at", "completed_at"]
        return self.steps[["workflow_id", *columns]].merge(steps[columns].dropna(), on=columns)

    def _identity(self) -> dict[str, str]:
        return {name: text.sanitize(getattr(self, name)) for name in ("id", "name", "status")}

    def __repr__(self) -> str:
        return "<Workflow {id!r} {name} {status}>".format(**self._identity())

    def __str__(self) -> str:
        lines = ["{name} {id} {status}".format(**self._identity())]
        lines += [f"  {name}: {value}" for name, value in self.facts().items()]
        for name, value in (("input", self.input), ("output", self.output), ("error", self.error)):
            if value is not None:
                lines.append(f"  {name}: {short_repr(value)}")
        for _, step in self.steps.iterrows():
            result = step["error"] if step["status"] == "ERROR" else step["output"]
            name = text.sanitize(step["function_name"])
            lines.append(f"  {step['function_id']:>4} {name} {step['status']} {short_repr(result)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from dbos_notebook.drawing.cards import workflow_card

        return workflow_card(
            self._identity(),
            self.facts(),
            {"input": self.input, "output": self.output, "error": self.error},
            self.steps,
        )


def short_repr(value: Any) -> str:
    """Return a value's repr on one line, truncated; an error's class and message.

    Examples
    --------
    >>> len(short_repr("x" * 1000))
    200
    """
    return text.sanitize(describe(value), MAX_VALUE_CHARACTERS)
