"""One hand of ``hands``: ``python -m dbos_notebook.control.hand``, spoken to in lines of JSON.

The first line says which database, each further one which fork; each is answered by a line. It ends
with its input, so never outlives who started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from functools import partial
from typing import Any

from dbos_notebook.control.calls import Door
from dbos_notebook.control.hands import fork
from dbos_notebook.database.locate import locate

POLITENESS = 10
"""How far an application on this machine goes before it."""


def main() -> None:
    """Answer until the input ends."""
    # Answers alone go out there; whatever else prints goes where errors go.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if hasattr(os, "nice"):
        os.nice(POLITENESS)
    first = json.loads(sys.stdin.readline())
    door = Door(
        locate(first["address"]), first["schema"], first["application_name"], first["threads"]
    )
    lock = threading.Lock()

    def answer(asked: dict[str, Any]) -> None:
        told = {"number": asked["number"], **_done(door, asked)}
        with lock:
            answers.write(json.dumps(told) + "\n")
            answers.flush()

    for line in sys.stdin:
        door.submit(partial(answer, json.loads(line)))
    door.close()


def _done(door: Door, asked: dict[str, Any]) -> dict[str, str]:
    """Do what was asked; return what went wrong."""
    try:
        client = door.client()
        if "of" in asked:
            fork(client, asked["new"], asked["of"], asked["step"], asked["options"])
    except Exception as error:  # noqa: BLE001 - whatever it is, who asked tells it
        fatal = door.fatal(error)
        if fatal is not None:
            return {"fatal": type(fatal).__name__, "text": str(fatal)}
        return {"text": door.reason(error)}
    return {}


if __name__ == "__main__":
    main()
