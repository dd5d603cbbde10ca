"""Harmful payloads do no harm: nothing runs, and memory and time stay bounded."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from attacks import harmful
from budgets import NIGHTLY, examples
from hypothesis import given
from hypothesis import strategies as st

from dbos_notebook.payloads import Undecoded, decode

HARMFUL = harmful()
PROGRAM = Path(__file__).parent / "attacks.py"
FORMS = ("py_pickle", "portable_json", "js_superjson", "java_jackson", "something_else", None)


def test_a_hundred_thousand_inputs_under_watch() -> None:
    number, seed = (1_000_000, secrets.randbelow(10**8)) if NIGHTLY else (100_000, 20261124)
    command = [sys.executable, str(PROGRAM), str(number), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, (seed, done.stderr[-2000:])
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["events"] == [], f"imported, opened, run or compiled (seed {seed})"
    assert outcome["imported"] == []
    assert outcome["slow"] == {}
    assert sum(outcome["kinds"].values()) >= 100_000
    # Both happened, or the mutations are too wild or too tame to show anything.
    assert min(outcome["kinds"].values()) > 1_000
    assert not Path("/tmp/dbos_notebook_was_here").exists()


def test_the_watch_sees_what_it_watches(tmp_path: Path) -> None:
    # Were the decoder to unpickle, the program would tell.
    careless = tmp_path / "careless.py"
    program = PROGRAM.read_text().replace(
        'value = decode(text, "py_pickle")', "value = pickle.loads(base64.b64decode(text))"
    )
    program = program.replace("{**harmful(), **", "{'x': harmful()['open'], **")
    careless.write_text(program)
    (tmp_path / "costly.py").write_text(PROGRAM.with_name("costly.py").read_text())
    done = subprocess.run(
        [sys.executable, str(careless), "0", "1"], capture_output=True, text=True, check=False
    )
    Path("/tmp/dbos_notebook_was_here").unlink(missing_ok=True)
    assert "open" in json.loads(done.stdout.splitlines()[-1])["events"][0], done.stderr


@pytest.mark.parametrize("name", sorted(HARMFUL))
def test_a_known_attack_gives_a_value_or_a_reason(name: str) -> None:
    value = decode(base64.b64encode(HARMFUL[name]).decode(), "py_pickle")
    assert len(repr(value)) < 10_000_000
    if name.startswith(("deep", "laugh", "digits", "integer", "text8", "endless", "alike")):
        assert isinstance(value, Undecoded)
        assert value.reason


def test_names_are_fit_to_be_shown() -> None:
    shown = repr(decode(base64.b64encode(harmful()["bad name"]).decode(), "py_pickle"))
    assert "\x1b" not in shown
    assert shown.isprintable()


@examples(500)
@given(text=st.text(max_size=300), form=st.sampled_from(FORMS), error=st.booleans())
def test_any_text_gives_an_answer(text: str, form: str | None, error: bool) -> None:
    repr(decode(text, form, error=error))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@examples(500)
@given(document=_JSON, values=_JSON)
def test_any_annotations_of_superjson_give_an_answer(document: object, values: object) -> None:
    text = json.dumps({"json": document, "meta": {"values": values}})
    repr(decode(text, "js_superjson"))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 300 + "]" * 300, "9" * 10_000, "{", "\ud800"]
)
def test_documents_that_are_too_much(text: str) -> None:
    for form in FORMS[1:4]:
        assert isinstance(decode(text, form), Undecoded)


def test_a_payload_beyond_the_bound_stays_text() -> None:
    text = "gA" + "A" * (33 << 20)
    value = decode(text)
    assert isinstance(value, Undecoded)
    assert value.text == text
