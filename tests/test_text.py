"""Text from a database, on one line of ours."""

from __future__ import annotations

import pytest

from dbos_notebook.text import sanitize


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("order-7", "order-7"),
        ("Zürich · 東京 🙂", "Zürich · 東京 🙂"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\r\nSUCCESS\u2028b\x85c", "a\\r\\nSUCCESS\\u2028b\\x85c"),
        ("invoice\u202efdp.exe\u2066", "invoice\\u202efdp.exe\\u2066"),
        ("\ud800\udfff", "\\ud800\\udfff"),
        ("a\u200bb\ufeff\U000e0041", "a\\u200bb\\ufeff\\U000e0041"),
        (None, "None"),
        (12.5, "12.5"),
    ],
)
def test_control_and_invisible_characters_are_escaped(text: object, shown: str) -> None:
    assert sanitize(text) == shown
    sanitize(text).encode()


@pytest.mark.parametrize("length", [1, 2, 9, 10])
def test_truncated_strings_fit_the_limit(length: int) -> None:
    for text in ("x" * 10, "\x1b" * 10, "x" * 9 + "\x1b", "x" * 10_000_000):
        assert len(sanitize(text, length)) <= length
    assert sanitize("x" * 10, 10) == "x" * 10
    assert sanitize("x" * 11, 10) == "x" * 9 + "…"


def test_every_code_point_can_be_encoded() -> None:
    for start in range(0, 0x110000, 4096):
        shown = sanitize("".join(map(chr, range(start, start + 4096))), 60_000)
        assert shown.encode().decode() == shown
        assert len(shown.splitlines()) == 1
