"""Bundle the JavaScript and CSS of a view into one module and one style sheet.

A notebook host loads one of each for a view, from no address that another could be imported from.
So what a file imports is written before it, once. ``status_data.js`` and ``status.css`` are no
files: they are written here, so that statuses are described in Python alone.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files

from dbos_notebook.drawing.theme import DARK, ENDED, GRAVEST, LIGHT, SAID

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=async function|function|class|const)", re.MULTILINE)
# On lines of their own; types are for the checker alone.
_COMMENT = re.compile(r"^[ \t]*(?:/\*\*(?:(?!\*/).)*\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)
_STATUS_STYLE = '@import "./status.css";\n'

_OUTCOMES = {
    "ready": "SUCCESS",
    "done": "SUCCESS",
    "unchanged": "CANCELLED",
    "refused": "ERROR",
    "failed": "ERROR",
    "not_found": "ERROR",
    "unknown": "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
}


def module(name: str) -> str:
    """Return ``js/<name>.js`` with everything that it imports, without comments.

    Examples
    --------
    >>> whole = module("explore")
    >>> "import " in whole, whole.count("export default")
    (False, 1)
    """
    return "\n".join(_modules(name, {}).values())


def _modules(name: str, found: dict[str, str]) -> dict[str, str]:
    text = _status_data() if name == "status_data" else _read(f"{name}.js")
    for imported in _IMPORT.findall(text):
        if imported not in found:
            _modules(imported, found)
    found[name] = _EXPORT.sub("", _COMMENT.sub("", _IMPORT.sub("", text)))
    return found


def _status_data() -> str:
    """Write the module that ``js/status_data.d.ts`` declares."""
    statuses = [
        {
            "name": status,
            "label": status.removesuffix("_ATTEMPTS_EXCEEDED").replace("_", " "),
            "phrase": SAID[status],
            "finished": status in ENDED,
        }
        for status in GRAVEST
        if status
    ]
    constants = {"STATUSES": statuses, "OUTCOMES": _OUTCOMES}
    return "".join(f"export const {name} = {json.dumps(constants[name])};\n" for name in constants)


def style(*names: str) -> str:
    """Return ``js/<name>.css`` of each name as one style sheet.

    Examples
    --------
    >>> "@import" in style("base", "explore")
    False
    """
    return "\n".join(_read(f"{name}.css") for name in names).replace(_STATUS_STYLE, _status_style())


def _status_style() -> str:
    """Write the colours of the statuses as custom properties, and as ``--dn-status`` of an element.

    ``--dn-error`` and its like are for what is coloured as a status but has none, such as the text
    of an error. A page without a kernel cannot know whether its host is light or dark: its colours
    are legible on both.
    """
    light = {_property(name): ink.text for name, ink in LIGHT.statuses.items()}
    dark = {_property(name): ink.text for name, ink in DARK.statuses.items()}
    both = {_property(name): ink.line for name, ink in LIGHT.statuses.items()}
    lines = [
        _rule(".dn-view", light),
        _rule('.dn-view[data-theme="dark"]', dark),
        _rule(".dn-static", both),
        _rule("[data-status]", {"--dn-status": f"var({_property('')})"}),
    ]
    lines += [
        _rule(f'[data-status="{name}"]', {"--dn-status": f"var({_property(name)})"})
        for name in filter(None, GRAVEST)
    ]
    return "".join(lines)


def _property(status: str) -> str:
    return f"--dn-{status.lower().replace('_', '-') or 'unknown'}"


def _rule(selector: str, properties: dict[str, str]) -> str:
    written = " ".join(f"{name}: {value};" for name, value in properties.items())
    return f"{selector} {{ {written} }}\n"


def _read(name: str) -> str:
    return (files("dbos_notebook.widgets") / "js" / name).read_text(encoding="utf-8")
