"""The reference lists everything that is public, once."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

import dbos_notebook as dn
from dbos_notebook import errors, graphs, payloads
from dbos_notebook.tables.columns import FRAMES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def listed(page: str) -> Counter[str]:
    """Return the names in a page's autosummary tables and autodoc directives."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    tables = re.findall(r"^   ([A-Za-z_.]+)$", text, re.MULTILINE)
    directives = re.findall(r"^\.\. auto(?:class|exception|function):: (\S+)$", text, re.MULTILINE)
    return Counter(name.rpartition("dbos_notebook.")[2] for name in [*tables, *directives])


def test_each_public_member_of_client_is_listed_once() -> None:
    public = [name for name in dir(dn.Client) if not name.startswith("_")]
    assert len(public) > 40
    expected = Counter(f"Client.{name}" for name in public) + Counter(["connect", "Client"])
    assert listed("client.rst") == expected


def test_each_error_is_listed_once() -> None:
    expected = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    assert listed("errors.rst") == Counter(expected)


def test_each_public_name_of_the_package_is_listed() -> None:
    pages = [page.name for page in REFERENCE.glob("*.rst")]
    names = {name for page in pages for name in listed(page)}
    modules = {name for name in dn.__all__ if inspect.ismodule(getattr(dn, name))}
    assert modules == {"errors", "graphs", "payloads"}
    assert set(dn.__all__) - modules <= names
    assert set(graphs.__all__) == set(listed("graphs.rst"))
    # Constants have no page of their own.
    assert set(payloads.__all__) - {"FORMATS"} == set(listed("payloads.rst"))


def test_each_kind_of_row_has_a_table_of_columns() -> None:
    text = (REFERENCE / "columns.rst").read_text(encoding="utf-8")
    assert re.findall(r"^\.\. columns:: (\w+)$", text, re.MULTILINE) == list(FRAMES)
