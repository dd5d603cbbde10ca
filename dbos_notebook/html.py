"""HTML and SVG from templates that escape everything by default.

Each package has its own ``templates`` directory; the style that all HTML shares is in
``dbos_notebook/templates``. Nothing else in the project turns a string into markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def environment(package: str) -> jinja2.Environment:
    """Return an environment for the templates of one package, such as ``"drawing"``.

    Examples
    --------
    >>> environment("drawing").from_string("{{ x }}").render(x="<b>")
    '&lt;b&gt;'
    """
    import jinja2

    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("dbos_notebook", f"{package}/templates"),
                jinja2.PackageLoader("dbos_notebook", "templates"),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
