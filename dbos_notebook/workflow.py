"""One workflow, loaded as it is looked at, and leading on to those around it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos_notebook.errors import WorkflowNotFoundError
from dbos_notebook.payloads.recorded_errors import describe
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.graphs.intervals import Runs
    from dbos_notebook.store import Store

SHOWN_CHARACTERS = 200


class Input(NamedTuple):
    """What a workflow was called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Workflow:
    """One workflow. Get it with :meth:`Client.workflow`.

    What it has is read when it is first asked for, and then kept; ``Client.workflow`` again
    gives it fresh. In a cell it shows a card, printed it gives the same as text. The columns of
    :meth:`Client.workflows` are attributes: ``status``, ``created_at``, ``queue_name``, …

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
        """Read a workflow by its ID."""
        found = store.workflow(workflow_id, load_input=True, load_output=True, load_internals=True)
        return cls(store, found.iloc[0])

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self.row.index:
            return self.row[name]
        raise AttributeError(f"A workflow has no {name!r}. See dir() for what it has.")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self.row.index if name != "serialization")]

    @property
    def id(self) -> str:
        """Its ID."""
        return str(self.row["workflow_id"])

    @cached_property
    def input(self) -> Any:
        """Its ``args`` and ``kwargs``, as an :class:`Input`; what else was stored, as it is."""
        stored = self.row["input"]
        for args, kwargs in (("args", "kwargs"), ("positionalArgs", "namedArgs")):
            if not isinstance(stored, dict) or args not in stored:
                continue
            positional, named = stored[args] or (), stored.get(kwargs) or {}
            if isinstance(positional, list | tuple) and isinstance(named, dict):
                return Input(tuple(positional), named)
        return stored

    @cached_property
    def steps(self) -> pd.DataFrame:
        """Its steps with their results, as :meth:`Client.steps` gives them."""
        return self._store.steps(self.id, load_output=True)

    @cached_property
    def children(self) -> pd.DataFrame:
        """The workflows that it started, as :meth:`Client.workflows` gives them."""
        tree = self._store.tree(self.id, depth=1)
        return tree[tree["depth"] == 1].reset_index(drop=True)

    @cached_property
    def parent(self) -> Workflow | None:
        """The workflow that started it; ``None``: it was started from outside."""
        return self._other("parent_workflow_id")

    @cached_property
    def original(self) -> Workflow | None:
        """The workflow that it was forked from; ``None``: it is no fork."""
        return self._other("forked_from")

    def _other(self, column: str) -> Workflow | None:
        import pandas as pd

        other = self.row[column]
        return None if pd.isna(other) else Workflow.read(self._store, other)

    @cached_property
    def forks(self) -> pd.DataFrame:
        """The workflows that were forked from it."""
        return self._store.workflows(forked_from=self.id, limit=None)

    @cached_property
    def events(self) -> dict[str, Any]:
        """The events that it set: their latest values by key."""
        frame = self._store.table("events", self.id)
        return dict(zip(frame["key"], frame["value"], strict=True))

    @cached_property
    def messages(self) -> pd.DataFrame:
        """The messages that were sent to it."""
        return self._store.table("messages", self.id)

    @cached_property
    def streams(self) -> dict[str, list[Any]]:
        """What it wrote to its streams, in order, by key."""
        streams: dict[str, list[Any]] = {}
        frame = self._store.table("streams", self.id)
        for key, value in zip(frame["key"], frame["value"], strict=True):
            streams.setdefault(key, []).append(value)
        return streams

    @cached_property
    def timeline_rows(self) -> pd.DataFrame:
        """Its latest run and its recorded steps, also those of earlier runs or of the original.

        ``kind`` ("workflow" or "step"), ``name``, ``status``, ``started_at``, ``completed_at``,
        ``duration``. The times are those that the database holds: missing where it holds none,
        and not refined by the steps where it holds whole seconds, as a timeline is.
        """
        import pandas as pd

        from dbos_notebook.tables.timing import frame_times

        columns = ["name", "status", "started_at", "completed_at", "duration"]
        own = self.row.to_frame().T
        own["started_at"] = frame_times(own, pd.Timestamp.now("UTC"))["started_at"]
        steps = self.steps.rename(columns={"function_name": "name"})
        # Through text, because the statuses of steps and of workflows are different categories.
        parts = {"workflow": own[columns], "step": steps[columns].astype({"status": "str"})}
        rows = pd.concat(parts, names=["kind", None]).reset_index(level=0).reset_index(drop=True)
        for column in ("started_at", "completed_at"):
            rows[column] = pd.to_datetime(rows[column], utc=True).astype("datetime64[ms, UTC]")
        rows["duration"] = pd.to_timedelta(rows["duration"]).astype("timedelta64[ms]")
        return rows

    def facts(self) -> dict[str, str]:
        """Return what a card says first: when, where and who; what is missing is left out."""
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
        found = {}
        for column, name in names.items():
            value = self.row[column]
            if pd.isna(value) or (column == "delay_until" and self.row["status"] != "DELAYED"):
                continue
            if column == "executor_id" and never_ran(
                self.row["status"], self.row["recovery_attempts"]
            ):
                continue  # who enqueued it, or ran it before it was resumed
            if isinstance(value, pd.Timestamp):
                value = f"{value:%Y-%m-%d %H:%M:%S} UTC"
            elif column == "duration":
                value = self._took(value)
            elif isinstance(value, pd.Timedelta):
                value = self._waited(value)
            found[name] = sanitize(value)
        if self.row["status"] == "CANCELLED" and self.row["recovery_attempts"] == 0:
            from dbos_notebook.graphs.intervals import describe_unstarted

            how = self._runs.unstarted(self.id)
            note = {} if how is None else {"note": describe_unstarted(how, found.get("waited", ""))}
            found |= note
        return found

    def _took(self, duration: pd.Timedelta) -> str:
        """Say how long its latest run took; its steps know more than whole seconds do."""
        from dbos_notebook import text

        runs, span = self._runs, self._runs.span(self.id)
        if not runs.coarse or span is None or span.begun is None:
            return text.duration(duration)
        lasted = (span.ended - span.begun) / 1000
        return text.duration(lasted, approximate=runs.to_the_second(self.id))

    def _waited(self, wait: pd.Timedelta) -> str:
        from dbos_notebook import text

        return text.duration(wait, approximate=self._runs.coarse)

    @cached_property
    def _runs(self) -> Runs:
        from dbos_notebook.graphs import execution_graph
        from dbos_notebook.graphs.intervals import Runs

        return Runs(execution_graph(self.row.to_frame().T, self.steps, copied=self._copied()))

    def _copied(self) -> pd.DataFrame | None:
        """Return the steps that were copied from the original; ``None``: it is not known."""
        import pandas as pd

        if pd.isna(self.row["forked_from"]):
            return None
        try:
            theirs = self._store.steps(self.row["forked_from"], load_output=False)
        except WorkflowNotFoundError:
            return None
        same = ["function_id", "started_at", "completed_at"]
        return self.steps[["workflow_id", *same]].merge(theirs[same].dropna(), on=same)

    def _identity(self) -> dict[str, str]:
        return {name: sanitize(getattr(self, name)) for name in ("id", "name", "status")}

    def __repr__(self) -> str:
        return "<Workflow {id!r} {name} {status}>".format(**self._identity())

    def __str__(self) -> str:
        lines = ["{name} {id} {status}".format(**self._identity())]
        lines += [f"  {name}: {value}" for name, value in self.facts().items()]
        for name, value in (("input", self.input), ("output", self.output), ("error", self.error)):
            if value is not None:
                lines.append(f"  {name}: {shortened(value)}")
        for _, step in self.steps.iterrows():
            result = step["error"] if step["status"] == "ERROR" else step["output"]
            lines.append(
                f"  {step['function_id']:>4} {sanitize(step['function_name'])} {step['status']} "
                f"{shortened(result)}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from dbos_notebook.drawing.cards import workflow_card

        return workflow_card(
            self._identity(),
            self.facts(),
            {"input": self.input, "output": self.output, "error": self.error},
            self.steps,
        )


def shortened(value: Any) -> str:
    """Return a value's repr on one line, cut where it is long; of an error what it says.

    Examples
    --------
    >>> len(shortened("x" * 1000))
    200
    """
    return sanitize(describe(value), SHOWN_CHARACTERS)
