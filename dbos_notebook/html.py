"""HTML and SVG from templates that escape everything by default, unsafe characters included.

Each package has its own ``templates`` directory; the style that all HTML shares is in
``dbos_notebook/templates``. Nothing else in the project turns a string into markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from dbos_notebook.imports import WholeImports
from dbos_notebook.status import (
    ACTIVE_STATUSES,
    OUTCOME_STYLES,
    STATUS_STYLES,
    known_status,
    status_css,
)
from dbos_notebook.text import escape_unsafe_lines

if TYPE_CHECKING:
    import jinja2


def environment(package: str) -> jinja2.Environment:
    r"""Return an environment for the templates of one package, such as ``"drawing"``.

    Examples
    --------
    >>> environment("drawing").from_string("{{ x }}").render(x="<b>")
    '&lt;b&gt;'
    >>> print(environment("drawing").from_string("{{ x }}").render(x="pay\x1b\u202e"))
    pay\x1b\u202e
    """
    with WholeImports():
        import jinja2

    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("dbos_notebook", f"{package}/templates"),
                jinja2.PackageLoader("dbos_notebook", "templates"),
            ]
        ),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(
        ACTIVE_STATUSES=ACTIVE_STATUSES,
        STATUS_STYLES=STATUS_STYLES,
        OUTCOME_STYLES=OUTCOME_STYLES,
        known_status=known_status,
        status_css=lambda selector: Markup(status_css(selector)),  # noqa: S704 - own constants
    )
    return templates


def _finalize(value: object) -> object:
    """Escape the unsafe characters of a string; what a template rendered has none."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return escape_unsafe_lines(value)
    return value
