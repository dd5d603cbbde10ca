"""Errors by their causes, and the steps that made workflows fail, on databases of a real DBOS."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

import dbos_notebook as dn

RETRIES = "dbos._error.DBOSMaxStepRetriesExceeded"
NO_STEP = (None, None)


@pytest.fixture(params=["sqlite", "postgres"])
def failures(request: pytest.FixtureRequest) -> Iterator[dn.Client]:
    """A client on a database in which every workflow of the application failed."""
    with dn.connect(request.getfixturevalue(f"failing_{request.param}")) as client:
        yield client


EXPECTED = {
    # The ID, its error, its wrapper and attempts, and the step that failed of which workflow.
    "retried": ("UpstreamError", "503 for 1", RETRIES, 3, "shop.steps.fetch", 2, "retried"),
    "attributes": ("Declined", "402: no funds", None, None, "charge", 1, "attributes"),
    "own_code": ("OrderFailed", "nothing left to try", None, None, *NO_STEP, "own_code"),
    "translated": ("OrderFailed", "could not charge", None, None, "charge", 1, "translated"),
    "concurrent": ("UpstreamError", "503 for 1", None, None, "collect", 1, "concurrent"),
    "grouped": ("UpstreamError", "503 for 1", "ExceptionGroup", None, "collect", 1, "grouped"),
    "outer": ("UpstreamError", "503 for 2", RETRIES, 3, "shop.steps.fetch", 2, "outer-2-1"),
    "tolerant": ("Declined", "402: no funds", None, None, "charge", 4, "tolerant"),
    "child_code": ("OrderFailed", "nothing left to try", None, None, *NO_STEP, "child_code-1"),
}
COLUMNS = [
    "error_type",
    "error_message",
    "error_wrapper",
    "error_attempts",
    "failed_step",
    "failed_step_id",
    "failed_workflow_id",
]


def found(frame: pd.DataFrame) -> dict[str, tuple[object, ...]]:
    """Return the columns of the test by ID, without modules, None for missing values."""
    values = frame.set_index("workflow_id")[COLUMNS].astype("object")
    rows = values.where(values.notna(), None).itertuples(name=None)
    return {key: (kind.rpartition(".")[2], *rest) for key, kind, *rest in rows}


def test_which_steps_failed_is_one_call(failures: dn.Client) -> None:
    rows = found(failures.workflows(status="ERROR"))
    assert {key: rows[key] for key in EXPECTED} == EXPECTED
    # A child that failed beside it, and was not awaited, is not the cause.
    assert rows["bystander"][4:] == ("charge", rows["bystander"][5], "bystander")


@pytest.mark.parametrize("workflow_id", EXPECTED)
def test_the_step_does_not_depend_on_what_else_is_listed(
    failures: dn.Client, workflow_id: str
) -> None:
    assert found(failures.workflows([workflow_id])) == {workflow_id: EXPECTED[workflow_id]}


def test_other_readings_have_the_same_failures(failures: dn.Client) -> None:
    rows = found(failures.workflows(status="ERROR"))
    assert found(failures.workflows(limit=None)) == rows
    streamed = pd.concat(failures.iter_workflows(chunksize=4))
    assert found(streamed.astype("object")) == rows
    tree = found(failures.tree("outer"))
    assert tree == {key: rows[key] for key in ("outer", "outer-2", "outer-2-1")}
    without = failures.workflows(status="ERROR", load_errors=False)
    assert without[COLUMNS].isna().all(axis=None)


def test_steps_have_causes_too(failures: dn.Client) -> None:
    steps = failures.steps("outer").set_index("function_id")
    awaited = steps.loc[3]
    assert awaited["function_name"] == "DBOS.getResult"
    assert awaited["error_type"] == "__main__.UpstreamError"
    assert (awaited["error_wrapper"], awaited["error_attempts"]) == (RETRIES, 3)


def test_views_of_one_workflow_show_the_cause(failures: dn.Client) -> None:
    flow = failures.workflow("outer")
    sentence = "failed after 3 attempts: UpstreamError: 503 for 2"
    assert flow.facts()["failed at"] == "step 2 fetch of child …-2-1"
    assert sentence in str(flow)
    assert sentence in flow._repr_html_()
    assert flow.error.cause.message == "503 for 2"
    assert failures.workflow("own_code").facts()["failed at"] == "its own code"
    picture = dn.draw(failures.graph("outer")).svg
    assert sentence in picture
    graph = failures.graph("outer")
    failed = {key for key in graph if graph.nodes[key].get("on_failing_path")}
    step = graph.nodes["outer"]
    assert (step["failed_workflow_id"], step["failed_step_id"]) in failed
