"""Large runs made by hand: a fan-out of several kinds of children, a loop, a deep chain."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import networkx as nx
from sample_rows import frames, step, workflow

from dbos_notebook.graphs import execution_graph

KINDS = ("invoice", "contract", "receipt", "bank_statement", "insurance_claim")
STEPS = (
    "fetch_document_from_object_storage",
    "extract_text_with_layout_model",
    "validate_against_schema",
    "chunk",
    "compute_embeddings",
    "upsert_into_vector_index",
)
UPSTREAM = "acme.errors.UpstreamServiceTemporarilyUnavailableError"
INVALID = "acme.errors.DocumentValidationFailedError"
MODULE = "acme.pipelines.documents"
ROOT = "8558f929-3e92-4088-b200-9c7724a3611a"


def failure_of(number: int) -> tuple[int, str] | None:
    """Return at which step a child fails and with what: 23 of 300 in two ways."""
    if number % 23 == 7:
        return 1, UPSTREAM
    return (2, INVALID) if number % 31 == 11 else None


def fan_out(children: int = 300) -> nx.DiGraph[Any]:
    """Return a parent that enqueued children of five kinds and survived the failures of some."""
    name = f"{MODULE}.workflows.nightly_ingestion_fan_out"
    workflows = [workflow(ROOT, name=name, completed=children * 20 + 1000)]
    steps = [step(ROOT, 1, 0, 4, "list_documents")]
    for number in range(children):
        kind, child, begin = KINDS[number % len(KINDS)], f"{ROOT}-{number + 2}", 10 + number * 2
        process = f"{MODULE}.workflows.process_{kind}_document"
        failed, error = failure_of(number) or (len(STEPS), "")
        wrong = {"status": "ERROR", "error_type": error, "error_message": f"503: {child}"}
        outcome = wrong if error else {}
        workflows.append(
            workflow(
                child, begin, name=process, parent_workflow_id=ROOT,
                dequeued=begin + 5, completed=begin + 105 + number % 40, **outcome,
            )
        )  # fmt: skip
        steps.append(step(ROOT, number + 2, begin, begin + 1, process, child_workflow_id=child))
        awaited = children * 3 + 200 + number
        steps.append(
            step(
                ROOT, children + 2 + number, awaited, awaited + 1, "DBOS.getResult",
                child_workflow_id=child, **outcome,
            )
        )  # fmt: skip
        for place, leaf in enumerate(STEPS[: failed + 1]):
            at = begin + 5 + place * 15
            last = outcome if place == failed else {}
            leaf = f"{MODULE}.steps.{kind}.{leaf}"
            steps.append(step(child, place + 1, at, at + 10 + number % 5, leaf, **last))
    end = children * 20
    steps.append(step(ROOT, 2 * children + 2, end, end + 12, "summarize"))
    return execution_graph(*frames(workflows, steps), root=ROOT)


def loop(rounds: int = 100) -> nx.DiGraph[Any]:
    """Return a workflow that polls and writes pages in turn, and sets an event in between."""
    names = ["open"] + ["poll_page", "write_page"] * rounds
    names.insert(len(names) // 2 // 2 * 2, "DBOS.setEvent")
    steps = [step("loop", at, at * 3, at * 3 + 2, name) for at, name in enumerate(names, start=1)]
    return execution_graph(*frames([workflow("loop", name="paginate")], steps))


def chain(depth: int = 1000) -> nx.DiGraph[Any]:
    """Return a workflow that starts itself again and again, each time after a step."""
    workflows, steps = [workflow("w-0", name="recurse")], []
    for level in range(depth):
        at, child = level * 5, f"w-{level + 1}"
        steps.append(step(f"w-{level}", 1, at, at + 1, "work"))
        steps.append(step(f"w-{level}", 2, at + 2, at + 3, "recurse", child_workflow_id=child))
        workflows.append(
            workflow(
                child, at + 2, name="recurse", parent_workflow_id=f"w-{level}", completed=depth * 6
            )
        )
    return execution_graph(*frames(workflows, steps))


def insert_children(path: Path, children: int) -> None:
    """Insert the workflow "many" with children of two steps; some of them failed at the second."""
    connection = sqlite3.connect(path)
    flow = (
        "INSERT INTO workflow_status (workflow_uuid, name, status, created_at, updated_at, "
        "completed_at, parent_workflow_id, priority, serialization) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 0, 'portable_json')"
    )
    step = (
        "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, output, error, "
        "child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms, serialization) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'portable_json')"
    )
    begin = 1_785_000_000_000
    connection.execute(flow, ("many", "batch", "SUCCESS", begin, begin, begin + 60_000, None))
    for number in range(1, children + 1):
        at, child, bad = begin + 20 * number, f"many-{number}", number % 97 == 5
        error = '{"name": "ValueError", "message": "broken"}' if bad else None
        status = "ERROR" if bad else "SUCCESS"
        connection.execute(step, ("many", number, "part", None, None, child, at, at + 5))
        connection.execute(flow, (child, "part", status, at, at, at + 3000, "many"))
        connection.execute(step, (child, 1, "load", "1", None, None, at + 10, at + 900))
        result = None if bad else "1"
        connection.execute(step, (child, 2, "parse", result, error, None, at + 1000, at + 2500))
    connection.commit()
    connection.close()
