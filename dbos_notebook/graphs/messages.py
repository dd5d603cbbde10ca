"""Which send step sent the message that a recv step received, where the times leave no doubt."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Mapping
from itertools import accumulate
from typing import Any

import pandas as pd

SLACK = pd.Timedelta(milliseconds=50)
"""The database stamps a message by its clock, the application a step by its own."""
SECOND = pd.Timedelta(seconds=1)


def message_edges(
    nodes: Mapping[Hashable, Mapping[str, Any]], messages: pd.DataFrame | None
) -> list[tuple[Hashable, Hashable]]:
    """Pair send steps with the recv steps that took their message.

    DBOS does not record who sent a message. A pair is given where a single send step of these
    ran at the moment when the message was stored; where several did, none is.
    """
    if messages is None or messages.empty:
        return []
    senders = sorted(
        (
            (node["started_at"], node["completed_at"], key)
            for key, node in nodes.items()
            if node.get("operation") == "send" and "started_at" in node and "completed_at" in node
        ),
        key=lambda sender: sender[:2],
    )
    started = [start for start, _, _ in senders]
    # The latest end so far, to know when to stop looking back.
    reach = list(accumulate((end for _, end, _ in senders), max))
    pairs: list[tuple[Hashable, Hashable]] = []
    for workflow_id, function_id, stored in zip(
        messages["workflow_id"].tolist(),
        messages["consumed_by_function_id"].tolist(),
        messages["created_at"].tolist(),
        strict=True,
    ):
        receiver = (workflow_id, function_id)
        if pd.isna(stored) or nodes.get(receiver, {}).get("operation") != "recv":
            continue
        # SQLite keeps whole seconds.
        whole = stored == stored.floor("s")
        earliest = stored - SLACK
        latest = stored + (SECOND if whole else SLACK)
        found: list[Hashable] = []
        place = bisect_right(started, latest) - 1
        while place >= 0 and reach[place] >= earliest and len(found) < 2:
            if senders[place][1] >= earliest:
                found.append(senders[place][2])
            place -= 1
        if len(found) == 1:
            pairs.append((found[0], receiver))
    return pairs
