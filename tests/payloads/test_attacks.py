"""Malicious payloads run nothing, and memory and time stay bounded."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attack_pickles import SLOW, harmful
from budgets import NIGHTLY, examples
from hypothesis import given
from hypothesis import strategies as st

from dbos_notebook.payloads import Undecoded, decode

HARMFUL = harmful()
PROGRAM = Path(__file__).parent / "attack_pickles.py"
FORMS = ("py_pickle", "portable_json", "js_superjson", "java_jackson", "something_else", None)


NUMBER, SEED = (1_000_000, secrets.randbelow(10**8)) if NIGHTLY else (25_000, 20261124)


@pytest.fixture(scope="module")
def outcome() -> dict[str, Any]:
    """What decoding all known attacks and many mutations led to, under an audit hook."""
    command = [sys.executable, str(PROGRAM), str(NUMBER), str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, (SEED, done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_mutated_pickles_import_open_and_run_nothing(outcome: dict[str, Any]) -> None:
    assert outcome["events"] == [], f"imported, opened, run or compiled (seed {SEED})"
    assert outcome["imported"] == []
    assert outcome["slow"] == {}
    assert sum(outcome["kinds"].values()) >= NUMBER
    # Both outcomes occur, or the mutations are too wild or too tame to prove anything.
    assert min(outcome["kinds"].values()) > NUMBER // 100
    assert not Path("/tmp/dbos_notebook_was_here").exists()


def test_the_audit_hook_reports_a_real_unpickling(tmp_path: Path) -> None:
    careless = tmp_path / "careless.py"
    program = PROGRAM.read_text().replace("in SLOW.items()", "in ()")
    program = program.replace(
        'value = decode(text, "py_pickle")', "value = pickle.loads(base64.b64decode(text))"
    )
    program = program.replace("**known,", "'x': harmful()['open'],")
    careless.write_text(program)
    (tmp_path / "costly_pickles.py").write_text(PROGRAM.with_name("costly_pickles.py").read_text())
    done = subprocess.run(
        [sys.executable, str(careless), "0", "1"], capture_output=True, text=True, check=False
    )
    Path("/tmp/dbos_notebook_was_here").unlink(missing_ok=True)
    assert "open" in json.loads(done.stdout.splitlines()[-1])["events"][0], done.stderr


@pytest.mark.parametrize("name", sorted([*HARMFUL, *SLOW]))
def test_a_known_attack_decodes_to_a_value_or_a_reason(name: str, outcome: dict[str, Any]) -> None:
    decoded = outcome["attacks"][name]
    assert decoded["length"] < 10_000_000
    if name.startswith(("deep", "laugh", "digits", "integer", "text8", "endless", "alike")):
        assert decoded["kind"] == "Undecoded"
        assert decoded["reason"]


def test_class_names_are_shown_without_control_characters() -> None:
    shown = repr(decode(base64.b64encode(harmful()["bad name"]).decode(), "py_pickle"))
    assert "\x1b" not in shown
    assert shown.isprintable()


@examples(500)
@given(text=st.text(max_size=300), form=st.sampled_from(FORMS), error=st.booleans())
def test_any_string_decodes_without_an_exception(text: str, form: str | None, error: bool) -> None:
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
def test_any_superjson_annotations_decode_without_an_exception(
    document: object, values: object
) -> None:
    text = json.dumps({"json": document, "meta": {"values": values}})
    repr(decode(text, "js_superjson"))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 300 + "]" * 300, "9" * 10_000, "{", "\ud800"]
)
def test_oversized_documents_stay_undecoded(text: str) -> None:
    for form in FORMS[1:4]:
        assert isinstance(decode(text, form), Undecoded)


def test_a_payload_over_the_size_limit_stays_a_string() -> None:
    text = "gA" + "A" * (33 << 20)
    value = decode(text)
    assert isinstance(value, Undecoded)
    assert value.text == text
