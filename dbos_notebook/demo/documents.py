"""The second demo application: it ingests documents, asks people for approval, and runs an agent.

Its names are dotted, as frameworks write them. Version 1.4.2 has a bug that 1.4.3 fixes, and it
makes a step slower, which 1.4.3 does not fix. Only worker processes import this module, because its
decorators register functions with DBOS.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from dbos import DBOS

from dbos_notebook.demo.workload import BUGGY_DOCUMENTS, SLOW_DOCUMENTS

QUEUE = "documents-ingestion"
KINDS = ("invoice", "contract", "receipt", "claim")
APPROVAL_SECONDS = 3 * 24 * 3600.0
POLLING_SECONDS = 0.02
AGENT_ROUNDS = 6


class UpstreamError(Exception):
    """A service did not answer; a retry may succeed."""


class SchemaError(ValueError):
    """A document does not have the fields that its kind needs."""


class BudgetExceededError(RuntimeError):
    """An agent spent more than it may."""


def _work(seed: int, longest: float = 0.012) -> None:
    """Take some milliseconds, always the same for a seed."""
    time.sleep(random.Random(seed).uniform(0.001, longest))


def _processor(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Register the workflow and the steps of one kind of document."""
    prefix = f"documents.pipelines.{kind}"

    @DBOS.step(name=f"{prefix}.fetch_from_storage")
    def fetch(document: dict[str, Any]) -> int:
        _work(document["n"])
        return 1000 + 7 * int(document["n"])

    @DBOS.step(
        name=f"{prefix}.extract_text",
        retries_allowed=True,
        max_attempts=3,
        interval_seconds=0.005,
    )
    def extract(document: dict[str, Any]) -> str:
        _work(document["n"] + 1, 0.02)
        if document["n"] % 23 == 7:
            raise UpstreamError(
                "503 Service Unavailable: https://layout.internal.example/extract?id="
                + document["id"]
            )
        return f"text of {document['id']}"

    @DBOS.step(name=f"{prefix}.validate_fields")
    def validate(document: dict[str, Any]) -> bool:
        _work(document["n"] + 2, 0.004)
        if kind == "invoice" and DBOS.application_version == BUGGY_DOCUMENTS:
            raise SchemaError(
                f"{document['id']}: total '{document['n']},00' is not a number\n"
                "  at $.totals.gross: expected number, got string"
            )
        return True

    @DBOS.step(name=f"{prefix}.index")
    def index(document: dict[str, Any]) -> dict[str, Any]:
        # Contracts are indexed sentence by sentence since 1.4.2.
        slower = kind == "contract" and DBOS.application_version in SLOW_DOCUMENTS
        _work(document["n"] + 3, 0.04 if slower else 0.012)
        return {"id": document["id"], "chunks": document["n"] % 9 + 1}

    @DBOS.workflow(name=f"documents.workflows.process_{kind}")
    def process(document: dict[str, Any]) -> dict[str, Any]:
        fetch(document)
        extract(document)
        validate(document)
        return index(document)

    return process


PROCESSORS = {kind: _processor(kind) for kind in KINDS}


def make_document(n: int) -> dict[str, Any]:
    """Return the document of a number."""
    kind = KINDS[n % len(KINDS)]
    return {"id": f"doc-{n:05d}", "n": n, "kind": kind, "title": f"{kind} № {n} – Müller & Söhne"}


@DBOS.step(name="documents.pipelines.list_documents")
def list_documents(count: int) -> list[dict[str, Any]]:
    """List what has arrived since the last night."""
    return [make_document(n) for n in range(count)]


@DBOS.step(name="documents.pipelines.write_summary")
def write_summary(counts: dict[str, int]) -> dict[str, int]:
    """Store the counts of a night."""
    return counts


@DBOS.workflow(name="documents.workflows.nightly_ingestion")
def nightly_ingestion(count: int) -> dict[str, int]:
    """Process many documents as children; some may fail."""
    counts = {"processed": 0, "failed": 0}
    handles = [
        DBOS.enqueue_workflow(QUEUE, PROCESSORS[document["kind"]], document)
        for document in list_documents(count)
    ]
    for handle in handles:
        try:
            handle.get_result(polling_interval_sec=POLLING_SECONDS)
            counts["processed"] += 1
        except Exception:  # noqa: BLE001 - the error is recorded with the child
            counts["failed"] += 1
    return write_summary(counts)


@DBOS.step(name="documents.sync.read_page")
def read_page(page: int) -> int:
    """Read one page of contacts."""
    _work(page, 0.004)
    return 50


@DBOS.step(name="documents.sync.write_page")
def write_page(page: int) -> int:
    """Store one page of contacts."""
    return page


@DBOS.workflow(name="documents.sync.synchronize_contacts")
def synchronize_contacts(pages: int) -> int:
    """Copy contacts page by page, in a loop."""
    contacts = 0
    for page in range(pages):
        contacts += read_page(page)
        write_page(page)
    return contacts


@DBOS.step(name="documents.approvals.check_limit")
def check_limit(invoice: str, amount: int) -> bool:
    """Return whether a payment needs the approval of a person."""
    return amount > 100


@DBOS.step(name="documents.approvals.pay")
def pay(invoice: str, amount: int) -> str:
    """Pay an invoice."""
    return f"payment-{invoice}"


@DBOS.workflow(name="documents.approvals.approve_payment")
def approve_payment(invoice: str, amount: int) -> str:
    """Ask a person, wait for the answer, and pay or do not."""
    if check_limit(invoice, amount):
        DBOS.set_event("status", f"waiting for approval of {amount} EUR for {invoice}")
        answer = DBOS.recv("approval", timeout_seconds=APPROVAL_SECONDS)
        if not answer or not answer.get("approved"):
            DBOS.set_event("status", "rejected")
            return "rejected"
    DBOS.set_event("status", "approved")
    return pay(invoice, amount)


@DBOS.step(name="llm_call")
def llm_call(number: int, question: str) -> dict[str, Any]:
    """Ask a model what to do next."""
    _work(number, 0.03)
    return {"role": "assistant", "content": f"Thought {number} about {question}", "tool": "search"}


@DBOS.step(name="run_tool")
def run_tool(number: int, call: dict[str, Any]) -> str:
    """Run the tool that the model chose."""
    _work(number + 50, 0.01)
    return f"{number + 3} results of {call['tool']}"


@DBOS.workflow(name="documents.agents.ResearchAgent.run")
def research(question: str, budget: int) -> str:
    """Alternate between the model and its tools until the answer is found."""
    for number in range(AGENT_ROUNDS):
        if number == budget:
            raise BudgetExceededError(f"1.93 USD of {budget * 0.3:.2f} USD after round {number}")
        run_tool(number, llm_call(number, question))
    return "42"
