"""What a picture says in words: which run, how it ended, and why."""

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
class Headline:
    """The words above a picture, and those that a screen reader says instead of it."""

    name: str
    key: str
    status: str
    outcome: str
    facts: str
    reason: str
    title: str
    desc: str

    def fitted(self, room: float) -> Headline:
        """Cut what is drawn to the room there is."""
        name = text.truncate_to_width(self.name, 16, room * 0.6, bold=True)
        left = room - text.text_width(name, 16, bold=True) - 8
        facts = text.truncate_to_width(
            self.facts, 12, room - 30 - text.text_width(self.outcome, 12, bold=True)
        )
        return Headline(
            name,
            text.truncate_middle(self.key, 12, left),
            self.status,
            self.outcome,
            facts,
            text.truncate_to_width(self.reason, 12, room - 20),
            self.title,
            self.desc,
        )


def headline(
    graph: nx.DiGraph[Any], times: Times, kind: str, notes: list[str] | None = None
) -> Headline:
    """Say what a graph is of.

    Parameters
    ----------
    graph
        The whole graph, not folded.
    times
        Its times.
    kind
        What is drawn of it: "Execution graph" or "Timeline".
    notes
        What else to say, such as that parts are folded.
    """
    root = graph.graph.get("root")
    attributes = graph.nodes[root] if root in graph else {}
    status = known_status(attributes.get("status"))
    name = text.sanitize_svg(attributes.get("name") or "workflows", 200)
    key = text.sanitize_svg(root, 200) if root is not None else ""
    outcome = (
        status_label(status) if status else text.sanitize_svg(attributes.get("status") or "", 40)
    )
    if "root_second" in graph.graph:
        return _of_two(graph, name, key)
    duration = times.took(root) if root in graph else ""
    if duration:
        outcome += f" {'after' if status in TERMINAL_STATUSES else 'for'} {duration}"
    run = times.workflow(root) if root in graph else None
    if root in graph and (how := times.unstarted(root)):
        outcome += f", {how}"
    if status == "ENQUEUED" and (waited := times.waited(root)):
        outcome += f" for {waited}"
    began = run is not None and run.began is not None and not run.lost
    when = text.timestamp(attributes.get("started_at" if began else "created_at"))
    when = when.replace(".000", "") if times.coarse else when
    verb = "began" if began else "created"
    if began and times.again(root):
        verb = "ran again from" if status in TERMINAL_STATUSES else "runs again since"
    facts = [f"{verb} {when}" if when else "", *_counts(graph)]
    facts += notes or []
    facts += ["workflows timed to the second (SQLite)"] if times.coarse else []
    why = reason(graph)
    said = " · ".join(fact for fact in facts if fact)
    return Headline(
        name,
        key,
        status,
        outcome,
        said,
        why,
        text.sanitize_svg(f"{kind} of {name} {key}"),
        text.sanitize_svg(f"{outcome} · {said}. {why}"),
    )


def _of_two(graph: nx.DiGraph[Any], name: str, key: str) -> Headline:
    both = f"{key} → {text.sanitize_svg(graph.graph['root_second'], 200)}"
    counted = diagram.counted(graph)
    title = text.sanitize_svg(f"Comparison of {name} {both}")
    return Headline(name, both, "", "compared", counted, "", title, text.sanitize_svg(counted))


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
    found = [text.plural(workflows, "workflow")] if workflows > 1 else []
    return [*found, text.plural(steps, "step")]


def reason(graph: nx.DiGraph[Any]) -> str:
    """Say in one line which step failed, on which path from the root, and with what."""
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
        where = " › ".join(
            [*_path(graph, owner), text.sanitize_svg(attributes.get("name") or "", 80) + number]
        )
        return f"failed in {where}{_error(attributes)}"
    workflows = [
        (key, attributes)
        for key, attributes in failing
        if attributes.get("kind") == "workflow" and attributes.get("status") == "ERROR"
    ]
    if workflows:
        key, attributes = workflows[-1]
        where = " › ".join(_path(graph, key))
        return f"no step failed: the code of {where} did{_error(attributes)}"
    return ""


def _path(graph: nx.DiGraph[Any], workflow: Any) -> list[str]:
    """Name the workflows from the root down to one."""
    names: list[str] = []
    seen = set()
    while workflow in graph and workflow not in seen:
        seen.add(workflow)
        attributes = graph.nodes[workflow]
        names.append(text.sanitize_svg(attributes.get("name") or workflow, 60))
        if workflow == graph.graph.get("root"):
            break
        workflow = attributes.get("parent")
    # A workflow that started itself again and again is named once.
    alike = [(name, len(list(same))) for name, same in itertools.groupby(names[::-1])]
    return [name if count == 1 else f"{name} ×{count:,}" for name, count in alike]


def _error(attributes: dict[str, Any]) -> str:
    kind = attributes.get("error_type")
    if text.is_missing(kind) or not kind:
        return ""
    said = " — " + text.sanitize_svg(kind, 300).rsplit(".", 1)[-1]
    message = attributes.get("error_message")
    return (
        said
        if text.is_missing(message) or not message
        else f"{said}: {text.sanitize_svg(message, 300)}"
    )
