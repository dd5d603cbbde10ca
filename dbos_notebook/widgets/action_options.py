"""The actions of the views: from what the browser's forms hold to operations, and to code."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dbos_notebook.control.forks import Fork
from dbos_notebook.control.operations import Cancel, Delete, Resume, SetAttributes, SetDelay
from dbos_notebook.control.repair import RepairFork
from dbos_notebook.control.schedules import (
    Backfill,
    DeleteSchedule,
    PauseSchedule,
    ResumeSchedule,
    TriggerSchedule,
)
from dbos_notebook.control.sending import Send
from dbos_notebook.errors import FilterError
from dbos_notebook.text import sanitize
from dbos_notebook.widgets.query_form import literal

if TYPE_CHECKING:
    from dbos_notebook.control.operations import Operation
    from dbos_notebook.store import Store

ACTION_OPTIONS = {
    "cancel": ("cancel_children",),
    "resume": ("queue_name", "force"),
    "fork": ("start_step", "application_version", "queue_name"),
    "repair": ("application_version", "queue_name"),
    "send": ("message", "topic"),
    "set_delay": ("delay",),
    "set_attributes": ("attributes", "merge"),
    "delete": ("delete_children",),
}
"""The actions on workflows, and the options of each that the browser offers."""
SCHEDULE_OPTIONS: dict[str, tuple[str, ...]] = {
    "pause_schedule": (),
    "resume_schedule": (),
    "trigger_schedule": (),
    "backfill_schedule": ("start", "end"),
    "delete_schedule": (),
}
"""The actions on schedules."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def check_action(action: str) -> None:
    """Raise FilterError for an action that does not exist."""
    actions = [*ACTION_OPTIONS, *SCHEDULE_OPTIONS]
    if action not in actions:
        raise FilterError(f"There is no action {sanitize(action)!r}. Use one of {actions}.")


def arguments(action: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are set, as arguments of the method of ``Client``.

    Examples
    --------
    >>> arguments("fork", {"start_step": "3", "queue_name": ""})
    {'start_step': 3}
    >>> arguments("send", {"message": '{"ok": true}', "format": "json"})
    {'message': {'ok': True}}
    >>> arguments("set_delay", {"delay": "10m"})
    {'delay': 600.0}
    """
    names = (ACTION_OPTIONS | SCHEDULE_OPTIONS)[action]
    given = {name: options[name] for name in names if options.get(name)}
    if "start_step" in given:
        step = str(given["start_step"])
        given["start_step"] = int(step) if step.isdecimal() else step
    if action == "send":
        text = str(options.get("message") or "")
        given["message"] = text if options.get("format") == "text" else parse_json("message", text)
    if action == "set_attributes":
        given["attributes"] = parse_json("attributes", str(options.get("attributes") or ""))
    if action == "set_delay":
        given["delay"] = parse_duration("delay", str(options.get("delay") or ""))
    return given


def parse_json(name: str, text: str) -> Any:
    """Return the value of a field that holds JSON.

    Examples
    --------
    >>> parse_json("message", "yes")
    Traceback (most recent call last):
    dbos_notebook.errors.FilterError: message='yes' is not JSON: Expecting value: ...
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FilterError(
            f"{name}={sanitize(text, 100)!r} is not JSON: {error}. Write a string in double "
            "quotes, or choose Text."
        ) from None


def parse_duration(name: str, text: str) -> float:
    """Return the seconds of a field that holds a duration."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise FilterError(
            f"{name}={sanitize(text, 100)!r} is not a duration. Write seconds, or a number with s, "
            "m, h or d, such as 10m."
        )
    return float(found[1]) * _UNIT_SECONDS[found[2]]


def make_operation(
    store: Store, action: str, options: Mapping[str, Any], ids: list[str], key: str
) -> tuple[Operation, list[str]]:
    """Return an action's operation, and the IDs that its plan is made for.

    Parameters
    ----------
    key
        The key of the click, with which the action is done once.
    """
    given = arguments(action, options)
    if action == "send":
        # A second kernel that receives the same click sends the same message.
        return dataclasses.replace(Send.create(**given), own_key=key), ids
    if action == "fork":
        return Fork.create(given.pop("start_step", "failed"), key=key, **given), ids
    if action == "repair":
        # Without waiting for children, so that the kernel keeps answering.
        return RepairFork.create(key=key, wait=False, **given), ids
    if action == "resume":
        return Resume.create(**given), ids
    if action == "set_delay":
        return SetDelay.create(given["delay"], None), ids
    if action == "set_attributes":
        merge = bool(given.get("merge"))
        dialect = store.catalog.dialect
        return SetAttributes.create(given["attributes"], merge=merge, dialect=dialect), ids
    if action == "backfill_schedule":
        (name,) = ids
        start, end = given.get("start", "1d"), given.get("end")
        return Backfill.create(store, name, start, end, force=False)
    simple: dict[str, type[Operation]] = {
        "cancel": Cancel,
        "delete": Delete,
        "pause_schedule": PauseSchedule,
        "resume_schedule": ResumeSchedule,
        "trigger_schedule": TriggerSchedule,
        "delete_schedule": DeleteSchedule,
    }
    return simple[action](**given), ids


def action_code(action: str, ids: list[str], options: Mapping[str, Any]) -> str:
    """Write the call that makes the same plan.

    Examples
    --------
    >>> action_code("fork", ["order-7"], {"start_step": "3", "application_version": "v2"})
    'db.fork("order-7", 3, application_version="v2")'
    >>> action_code("send", ["order-7"], {"message": "[1]", "topic": "approval"})
    'db.send("order-7", [1], "approval")'
    """
    named = arguments(action, options)
    positional: list[Any] = []
    if action == "fork":
        positional = [named.pop("start_step", "failed")]
    elif action == "send":
        positional = [named.pop("message"), named.pop("topic", None)]
        positional = positional[: 1 if positional[1] is None else 2]
    elif action == "set_attributes":
        positional = [named.pop("attributes")]
    elif action == "set_delay":
        positional = [named.pop("delay")]
    elif action == "backfill_schedule":
        positional = [named.pop("start", "1d")]
    # A list of one list is written as that list.
    written = [literal(ids), *(literal([value]) for value in positional)]
    written += [f"{name}={literal(value)}" for name, value in named.items()]
    return f"db.{action}({', '.join(written)})"
