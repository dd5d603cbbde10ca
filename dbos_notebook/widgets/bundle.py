"""Bundle the JavaScript and CSS of a view into one module and one style sheet.

A notebook host loads one of each for a view, without a URL from which a module could import
another. Imported modules are therefore written before the module, once, each in a scope of its own.
``status_data.js`` and ``status.css`` are not files: they are generated from ``status.py``.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from dbos_notebook.status import (
    OUTCOME_STYLES,
    STATUS_STYLES,
    STATUSES_BY_SEVERITY,
    TERMINAL_STATUSES,
)

_IMPORT = re.compile(r'^import \{([^}]*)\}\s+from "\./([a-z_]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_DEFAULT = re.compile(r"^export default (.*);\n", re.MULTILINE)
# Comments on their own lines, such as types, which only the type checker reads.
_COMMENT = re.compile(r"^[ \t]*(?:/\*\*(?:(?!\*/).)*\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)
_STATUS_STYLE = '@import "./status.css";\n'


def module(name: str) -> str:
    """Return ``js/<name>.js`` with all modules that it imports, without comments.

    Examples
    --------
    >>> script = module("explore")
    >>> "import " in script, script.count("export default")
    (False, 1)
    """
    scopes = _scopes(name, {})
    default = f"export default ${name}.default;\n" if "default:" in scopes[name] else ""
    return "\n".join(scopes.values()) + default


def _scopes(name: str, scopes: dict[str, str]) -> dict[str, str]:
    """Write a module, and before it those that it imports, as functions that return the exports."""
    text = _status_data() if name == "status_data" else _read(f"{name}.js")
    for _, imported in _IMPORT.findall(text):
        if imported not in scopes:
            _scopes(imported, scopes)
    body = _COMMENT.sub("", _IMPORT.sub(r"const {\1} = $\2;\n", text))
    exported = [f"{match[2]}," for match in _EXPORT.finditer(body)]
    exported += [f"default: {match[1]}," for match in _DEFAULT.finditer(body)]
    body = _EXPORT.sub(r"\1", _DEFAULT.sub("", body)).strip()
    scopes[name] = (
        f"const ${name} = (() => {{\n{body}\nreturn {{ {' '.join(exported)} }};\n}})();\n"
    )
    return scopes


def _status_data() -> str:
    """Write the module that ``js/status_data.d.ts`` declares."""
    statuses = [
        {
            "name": status,
            "label": status.removesuffix("_ATTEMPTS_EXCEEDED").replace("_", " "),
            "phrase": STATUS_STYLES[status].label,
            "finished": status in TERMINAL_STATUSES,
            "mark": _mark(status),
        }
        for status in STATUSES_BY_SEVERITY
    ]
    constants = {
        "STATUSES": statuses,
        "UNKNOWN_MARK": _mark(""),
        "OUTCOMES": {name: style._asdict() for name, style in OUTCOME_STYLES.items()},
    }
    return "".join(f"export const {name} = {json.dumps(constants[name])};\n" for name in constants)


def _mark(status: str) -> list[dict[str, Any]]:
    return [path._asdict() for path in STATUS_STYLES[status].mark]


def style(*names: str) -> str:
    """Return ``js/<name>.css`` of each name as one style sheet.

    Examples
    --------
    >>> "@import" in style("base", "explore")
    False
    """
    return "\n".join(_read(f"{name}.css") for name in names).replace(_STATUS_STYLE, _status_style())


def _status_style() -> str:
    """Write the colors of statuses as custom properties, and as ``--dn-status`` of an element.

    ``--dn-error`` and its like color what has no status of its own, such as the text of an error.
    """
    light = {_property(name): style.light.text for name, style in STATUS_STYLES.items()}
    dark = {_property(name): style.dark.text for name, style in STATUS_STYLES.items()}
    rules = [
        _rule(".dn-view", light),
        _rule('.dn-view[data-theme="dark"]', dark),
        _rule("[data-status]", {"--dn-status": f"var({_property('')})"}),
    ]
    rules += [
        _rule(f'[data-status="{name}"]', {"--dn-status": f"var({_property(name)})"})
        for name in STATUSES_BY_SEVERITY
    ]
    return "".join(rules)


def _property(status: str) -> str:
    return f"--dn-{status.lower().replace('_', '-') or 'unknown'}"


def _rule(selector: str, properties: dict[str, str]) -> str:
    declarations = " ".join(f"{name}: {value};" for name, value in properties.items())
    return f"{selector} {{ {declarations} }}\n"


def _read(name: str) -> str:
    return (files("dbos_notebook.widgets") / "js" / name).read_text(encoding="utf-8")
