"""``trust_payloads=True``: what DBOS itself would give, and only when it was asked for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOSClient, Serializer

import dbos_notebook as dn
from dbos_notebook.payloads import Opaque, RecordedError


@dataclass
class Parcel:
    """Importable here, as an application's class is in its own process."""

    weight: float

    def heavy(self) -> bool:
        return self.weight > 10


class Tagged(Serializer):
    """JSON after a tag: DBOS knows it by its name alone."""

    def serialize(self, data: Any) -> str:
        return "tag:" + json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:  # type: ignore[override]
        return json.loads(serialized_data.removeprefix("tag:"))

    def name(self) -> str:
        return "tagged"


def enqueue(path: Path, workflow_id: str, value: Any, serializer: Serializer | None) -> None:
    own = {} if serializer is None else {"serializer": serializer}
    client = DBOSClient(system_database_url=f"sqlite:///{path}", **own)  # type: ignore[arg-type]
    options = {"queue_name": "q", "workflow_name": "ship", "workflow_id": workflow_id}
    client.enqueue(options, value)  # type: ignore[arg-type]
    client.destroy()


@pytest.fixture(scope="module")
def parcels(corpus_sqlite: Callable[[str], Path]) -> Path:
    path = corpus_sqlite("3.4.0")
    enqueue(path, "pickled", Parcel(12.5), None)
    enqueue(path, "tagged", {"weight": 3}, Tagged())
    return path


def test_trusted_objects_have_their_own_classes(parcels: Path) -> None:
    with pytest.warns(dn.TrustWarning, match="runs whatever code") as told:
        db = dn.connect(parcels, trust_payloads=True)
    assert len(told) == 1
    assert told[0].filename == __file__
    value = db.workflows("pickled", load_input=True)["input"][0]
    assert value == {"args": (Parcel(12.5),), "kwargs": {}}
    assert value["args"][0].heavy()
    assert db.workflow("pickled").input.args == (Parcel(12.5),)
    chunk = next(db.iter_workflows(workflow_ids="pickled", load_input=True))
    assert chunk["input"][0] == value
    flat = db.workflows("pickled", load_input=True, normalize=True)
    assert flat["input.0.weight"].tolist() == [12.5]


def test_the_serializer_of_the_application_is_used(parcels: Path) -> None:
    with pytest.warns(dn.TrustWarning):
        db = dn.connect(parcels, trust_payloads=True, serializer=Tagged())
    frame = db.workflows(["pickled", "tagged"], load_input=True).set_index("workflow_id")
    own = DBOSClient(system_database_url=f"sqlite:///{parcels}", serializer=Tagged())
    for workflow in own.list_workflows(workflow_ids=["pickled", "tagged"]):
        assert frame.loc[workflow.workflow_id, "input"] == workflow.input
    own.destroy()


def test_payloads_that_dbos_cannot_load_are_decoded_inertly_with_one_warning(parcels: Path) -> None:
    with pytest.warns(dn.TrustWarning):
        db = dn.connect(parcels, trust_payloads=True)
    # The corpus's classes lived in another program's __main__.
    with pytest.warns(dn.TrustWarning, match=r"could not be deserialized by DBOS \("):
        failed = db.workflow("checkout-5-bad")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps = db.steps("checkout-1", load_output=True)
    assert isinstance(failed.input.args[0], Opaque)
    assert isinstance(failed.error, RecordedError)
    assert steps.loc[steps["function_name"] == "validate", "output"].notna().all()
    # The words of an error never run anything.
    assert failed.error_type == "__main__.PaymentDeclined"


def test_portable_errors_are_dbos_exceptions(parcels: Path) -> None:
    from dbos._serialization import PortableWorkflowError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dn.TrustWarning)
        db = dn.connect(parcels, trust_payloads=True)
        errors = db.workflows(status="ERROR", load_output=True).set_index("name")["error"]
    assert isinstance(errors["portable"], PortableWorkflowError)


def test_nothing_is_trusted_by_default(parcels: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        db = dn.connect(parcels)
        value = db.workflows("pickled", load_input=True)["input"][0]["args"][0]
    assert type(value) is Opaque
    assert value.weight == 12.5


def test_a_serializer_without_trust_or_without_methods_is_refused(parcels: Path) -> None:
    with pytest.raises(dn.LocationError, match="needs trust_payloads=True"):
        dn.connect(parcels, serializer=Tagged())
    with pytest.raises(dn.LocationError, match="'pickle' has no method 'serialize'"):
        dn.connect(parcels, trust_payloads=True, serializer="pickle")  # type: ignore[arg-type]
