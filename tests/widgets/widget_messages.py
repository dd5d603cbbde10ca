"""Call the Python half of a view as its browser half does."""

from __future__ import annotations

import json
from typing import Any

from dbos_notebook.widgets.base import View


def ask(widget: View, kind: str, **question: Any) -> dict[str, Any]:
    """Return the answer to a question, after a check that it can be sent."""
    answer = widget.answer({"kind": kind, "request": "r1", **question})
    assert answer["request"] == "r1"
    json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
    return answer
