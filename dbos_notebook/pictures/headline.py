"""What a picture says in words: which run, how it ended, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos_notebook.pictures import words
from dbos_notebook.pictures.theme import SAID, known

if TYPE_CHECKING:
    import networkx as nx

_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


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
        name = words.fit(self.name, 16, room * 0.6, bold=True)
        left = room - words.width(name, 16, bold=True) - 8
        facts = words.fit(self.facts, 12, room - 20 - words.width(self.outcome, 12, bold=True))
        return Headline(
            name,
            words.fit_ends(self.key, 12, left),
            self.status,
            self.outcome,
            facts,
            words.fit(self.reason, 12, room - 20),
            self.title,
            self.desc,
        )


def headline(graph: nx.DiGraph[Any], kind: str, notes: list[str] | None = None) -> Headline:
    """Say what a graph is of.

    Parameters
    ----------
    graph
        The whole graph, not folded.
    kind
        What is drawn of it: "Execution graph" or "Timeline".
    notes
        What else to say, such as that parts are folded.
    """
    root = graph.graph.get("root")
    attributes = graph.nodes[root] if root in graph else {}
    status = known(attributes.get("status"))
    name = words.clean(attributes.get("name") or "workflows", 200)
    key = words.clean(root, 200) if root is not None else ""
    outcome = SAID[status] if status else words.clean(attributes.get("status") or "", 40)
    duration = words.took(attributes.get("duration"))
    if duration:
        outcome += f" {'after' if status in _ENDED else 'for'} {duration}"
    began = attributes.get("dequeued_at")
    began = attributes.get("created_at") if words.missing(began) else began
    facts = [f"began {words.moment(began)}" if not words.missing(began) else "", *_counts(graph)]
    why = reason(graph)
    said = "".join(f" · {fact}" for fact in [*facts, *(notes or [])] if fact)
    return Headline(
        name,
        key,
        status,
        outcome,
        said if outcome else said.removeprefix(" · "),
        why,
        words.clean(f"{kind} of {name} {key}"),
        words.clean(f"{outcome}{said}. {why}"),
    )


def _counts(graph: nx.DiGraph[Any]) -> list[str]:
    workflows = steps = 0
    for key, attributes in graph.nodes(data=True):
        if attributes.get("kind") == "group":
            if attributes.get("of") == "workflow":
                workflows += int(attributes.get("count", 0))
            else:
                steps += int(attributes.get("count", 0))
        elif attributes.get("kind") == "workflow":
            workflows += 1
        elif not (isinstance(key, tuple) and key[-1:] == ("running",)):
            steps += 1
    found = [words.count(workflows, "workflow")] if workflows > 1 else []
    return [*found, words.count(steps, "step")]


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
        key, attributes = steps[-1]
        owner = attributes.get("workflow_id")
        number = f" #{key[1]}" if isinstance(key, tuple) else ""
        where = " › ".join(
            [*_path(graph, owner), words.clean(attributes.get("name") or "", 80) + number]
        )
        return f"failed in {where}{_error(attributes)}"
    workflows = [(k, a) for k, a in failing if a.get("kind") == "workflow"]
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
        names.append(words.clean(attributes.get("name") or workflow, 60))
        if workflow == graph.graph.get("root"):
            break
        workflow = attributes.get("parent")
    return names[::-1]


def _error(attributes: dict[str, Any]) -> str:
    kind = attributes.get("error_type")
    if words.missing(kind) or not kind:
        return ""
    said = " — " + words.clean(kind, 300).rsplit(".", 1)[-1]
    message = attributes.get("error_message")
    return said if words.missing(message) or not message else f"{said}: {words.clean(message, 300)}"
