"""The title of a picture: the run, its outcome, and the reason for a failure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos_notebook import text
from dbos_notebook.drawing import diagram
from dbos_notebook.graphs.intervals import Times
from dbos_notebook.status import TERMINAL_STATUSES, known_status, status_label

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Title:
    """The lines above a picture; ``label`` and ``description`` are read by screen readers."""

    name: str
    key: str
    status: str
    outcome: str
    facts: str
    reason: str
    label: str
    description: str

    def fitted(self, max_width: float) -> Title:
        """Return the title with its lines truncated to a width in pixels."""
        name = text.truncate_to_width(self.name, 16, max_width * 0.6, bold=True)
        key_width = max_width - text.text_width(name, 16, bold=True) - 8
        facts = text.truncate_to_width(
            self.facts, 12, max_width - 30 - text.text_width(self.outcome, 12, bold=True)
        )
        return Title(
            name,
            text.truncate_middle(self.key, 12, key_width),
            self.status,
            self.outcome,
            facts,
            text.truncate_to_width(self.reason, 12, max_width - 20),
            self.label,
            self.description,
        )


def make_title(
    graph: nx.DiGraph[Any], times: Times, kind: str, notes: list[str] | None = None
) -> Title:
    """Make the title of a picture.

    Parameters
    ----------
    graph
        The whole graph, not folded.
    times
        Its times.
    kind
        The kind of picture: "Execution graph" or "Timeline".
    notes
        Further facts, such as how many nodes are folded.
    """
    root = graph.graph.get("root")
    attributes = graph.nodes[root] if root in graph else {}
    status = known_status(attributes.get("status"))
    name = diagram.display_name(attributes) or "workflows"
    full_name = text.sanitize_svg(attributes.get("name") or "workflows", 200)
    key = text.sanitize_svg(root, 200) if root is not None else ""
    outcome = (
        status_label(status) if status else text.sanitize_svg(attributes.get("status") or "", 40)
    )
    if "root_second" in graph.graph:
        return _of_two(graph, name, key)
    duration = times.duration(root) if root in graph else ""
    if duration:
        outcome += f" {'after' if status in TERMINAL_STATUSES else 'for'} {duration}"
    run = times.workflow(root) if root in graph else None
    if root in graph and (unstarted := times.unstarted(root)):
        outcome += f", {unstarted}"
    if status == "ENQUEUED" and (waited := times.queue_wait(root)):
        outcome += f" for {waited}"
    is_started = run is not None and run.started is not None and not run.start_erased
    when = text.timestamp(attributes.get("started_at" if is_started else "created_at"))
    when = when.replace(".000", "") if times.coarse else when
    verb = "started" if is_started else "created"
    if is_started and times.ran_before(root):
        verb = "restarted"
    facts = [f"{verb} {when}" if when else "", *_counts(graph)]
    facts += notes or []
    facts += ["workflow times in whole seconds (SQLite)"] if times.coarse else []
    failure = reason(graph)
    summary = " · ".join(fact for fact in facts if fact)
    return Title(
        name,
        key,
        status,
        outcome,
        summary,
        failure,
        text.sanitize_svg(f"{kind} of {full_name} {key}"),
        text.sanitize_svg(f"{outcome} · {summary}. {failure}"),
    )


def _of_two(graph: nx.DiGraph[Any], name: str, key: str) -> Title:
    keys = f"{key} → {text.sanitize_svg(graph.graph['root_second'], 200)}"
    differences = diagram.count_differences(graph)
    title = text.sanitize_svg(f"Comparison of {name} {keys}")
    return Title(
        name,
        keys,
        "",
        "compared",
        differences,
        "",
        title,
        text.sanitize_svg(differences),
    )


def _counts(graph: nx.DiGraph[Any]) -> list[str]:
    workflows = steps = 0
    for _, attributes in graph.nodes(data=True):
        if attributes.get("kind") == "group":
            if attributes.get("of") == "workflow":
                workflows += int(attributes.get("count", 0))
            else:
                steps += int(attributes.get("count", 0))
        elif attributes.get("kind") == "workflow":
            workflows += 1
        elif "function_id" in attributes:
            steps += 1
    counts = [text.plural(workflows, "workflow")] if workflows > 1 else []
    return [*counts, text.plural(steps, "step")]


def reason(graph: nx.DiGraph[Any]) -> str:
    """Return one line that names the step that failed, its path from the root, and its error."""
    failing = [
        (key, attributes)
        for key, attributes in graph.nodes(data=True)
        if attributes.get("on_failing_path")
    ]
    steps = [
        (key, attributes)
        for key, attributes in failing
        if attributes.get("kind") == "step"
        and attributes.get("status") == "ERROR"
        and attributes.get("operation") not in ("get_result", "start_child")
    ]
    if steps:
        _, attributes = steps[-1]
        owner = attributes.get("workflow_id")
        number = f" #{attributes['function_id']}" if "function_id" in attributes else ""
        where = " › ".join([*_path(graph, owner), diagram.display_name(attributes, 80) + number])
        return f"failed in {where}{_error(attributes)}"
    workflows = [
        (key, attributes)
        for key, attributes in failing
        if attributes.get("kind") == "workflow" and attributes.get("status") == "ERROR"
    ]
    if workflows:
        key, attributes = workflows[-1]
        where = " › ".join(_path(graph, key))
        return f"failed in the code of {where}, not in a step{_error(attributes)}"
    return ""


def _path(graph: nx.DiGraph[Any], workflow: Any) -> list[str]:
    """Return the names of the workflows from the root to one."""
    names: list[str] = []
    seen = set()
    while workflow in graph and workflow not in seen:
        seen.add(workflow)
        attributes = graph.nodes[workflow]
        names.append(diagram.display_name(attributes, 60) or text.sanitize_svg(workflow, 60))
        if workflow == graph.graph.get("root"):
            break
        workflow = attributes.get("parent")
    # A workflow that started itself repeatedly is named once.
    counted = [(name, len(list(repeats))) for name, repeats in itertools.groupby(names[::-1])]
    return [name if count == 1 else f"{name} ×{count:,}" for name, count in counted]


def _error(attributes: dict[str, Any]) -> str:
    name, message = diagram.error_name(attributes), attributes.get("error_message")
    if not name or text.is_missing(message) or not message:
        return f" — {name}" if name else ""
    attempts = attributes.get("error_attempts")
    return f" — {text.describe_failure(name, text.sanitize_svg(message, 300), attempts)}"
