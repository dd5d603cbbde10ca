"""One process of the documents application: it runs the examples of one version, then exits.

Each line of standard output is the number of workflows finished since the previous line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from dbos import DBOS, SetWorkflowID, WorkflowHandle

from dbos_notebook.demo import documents
from dbos_notebook.demo.process import launch, serve
from dbos_notebook.demo.workload import DOCUMENTS, NIGHTLY_DOCUMENTS

APPLICATION = "demo-documents"
TIMEOUT_SECONDS = 60.0


def main(version: str) -> None:
    """Run the examples of one version, which ``history`` then ages and multiplies."""
    launch(APPLICATION, version, _executor(version))
    DBOS.register_queue(
        documents.QUEUE, global_concurrency=8, worker_concurrency=4, polling_interval_sec=0.05
    )
    examples = DOCUMENTS[version]
    nightly = [
        _start(f"nightly-{version}-{i}", documents.nightly_ingestion, NIGHTLY_DOCUMENTS)
        for i in range(examples.nightly)
    ]
    for handle in nightly:
        handle.get_result(polling_interval_sec=0.05)
    for i in range(examples.single):
        document = documents.make_document(i)
        _finish(_start(f"single-{version}-{i}", documents.PROCESSORS[document["kind"]], document))
    for i in range(examples.sync):
        _finish(_start(f"sync-{version}-{i}", documents.synchronize_contacts, 20 + 15 * i))
    for i in range(examples.agent):
        _finish(
            _start(
                f"agent-{version}-{i}", documents.research, "the market for tea", 4 if i == 1 else 9
            )
        )
    for i in range(examples.approval):
        answered = i >= examples.unanswered
        handle = _start(
            f"approval-{version}-{i}", documents.approve_payment, f"INV-{2040 + i}", 1900 + i * 75
        )
        _await_approval(handle.workflow_id)
        if answered:
            time.sleep(0.02 * (i + 1))
            DBOS.send(handle.workflow_id, {"approved": i % 3 != 2, "by": "kim"}, "approval")
            _finish(handle)
    sys.stdout.flush()
    os._exit(0)  # unanswered approvals stay PENDING, as after a crash


def _executor(version: str) -> str:
    # Always the same, so that a later process recovers the approvals that nobody has answered.
    return f"documents-{version}"


def _start(workflow_id: str, function: Callable[..., Any], *args: Any) -> WorkflowHandle[Any]:
    with SetWorkflowID(workflow_id):
        return DBOS.start_workflow(function, *args)


def _finish(handle: WorkflowHandle[Any]) -> None:
    try:
        handle.get_result(polling_interval_sec=0.02)
    except Exception:  # noqa: BLE001 - some are meant to fail; DBOS has recorded the error
        return


def _await_approval(workflow_id: str) -> None:
    """Wait until a workflow waits: a wait with a timeout is recorded as a sleep when it begins."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        steps = DBOS.list_workflow_steps(workflow_id)
        if steps and steps[-1]["function_name"] == "DBOS.sleep":
            return
        time.sleep(0.02)
    raise TimeoutError(f"{workflow_id} did not wait for approval in {TIMEOUT_SECONDS:.0f} s")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(APPLICATION, sys.argv[2], _executor(sys.argv[2]))
    main(sys.argv[1])
