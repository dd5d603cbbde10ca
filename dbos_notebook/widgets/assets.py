"""The browser's half of a view, put together from the ES modules in ``js/``.

A notebook host loads one module and one style sheet for each view, from no address that another
module could be imported from. So what a module imports is written before it, once.
"""

from __future__ import annotations

import re
from importlib.resources import files

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|class|const)", re.MULTILINE)


def module(name: str) -> str:
    """Return ``js/<name>.js`` with all that it imports.

    Examples
    --------
    >>> whole = module("explore")
    >>> "import " in whole, whole.count("export default")
    (False, 1)
    """
    return "\n".join(_parts(name, {}).values())


def _parts(name: str, found: dict[str, str]) -> dict[str, str]:
    text = _read(f"{name}.js")
    for imported in _IMPORT.findall(text):
        if imported not in found:
            _parts(imported, found)
    found[name] = _EXPORT.sub("", _IMPORT.sub("", text))
    return found


def style(*names: str) -> str:
    """Return the style sheets of these names as one."""
    return "\n".join(_read(f"{name}.css") for name in names)


def _read(name: str) -> str:
    return (files("dbos_notebook.widgets") / "js" / name).read_text(encoding="utf-8")
