"""Name groups of nodes by what is in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile

from dbos_notebook.graphs.attributes import NodeAttributes
from dbos_notebook.text import leaf_name

MAX_PARTS = 3
"""A group of more kinds of nodes is named by the most frequent ones."""
MIN_COMMON = 5
"""The minimum number of characters that names have in common, for a pattern such as ``load_*``."""
MAX_NAMES = 200
"""The number of distinct names that are compared for a pattern."""
_STARTS = "starts "


def common_pattern(names: Iterable[str]) -> str | None:
    """Return the pattern of several names, such as ``process_*_document``; ``None`` if none.

    Examples
    --------
    >>> common_pattern(["app.process_invoice_document", "app.process_contract_document"])
    'process_*_document'
    >>> common_pattern(["pay", "ship"]), common_pattern(["app.pay", "lib.pay"])
    (None, 'pay')
    """
    leaves = sorted({leaf_name(name) for name in names})
    if len(leaves) <= 1:
        return leaves[0] if leaves else None
    if len(leaves) > MAX_NAMES:
        return None
    # Cut at a boundary of words: "process_in" of "invoice" and "insurance" is no common part.
    start = re.sub(r"[^\W_]*$", "", _common_prefix(leaves))
    end = _common_prefix([leaf[len(start) :][::-1] for leaf in leaves])[::-1]
    end = re.sub(r"^[^\W_]*", "", end)
    return f"{start}*{end}" if len(start) + len(end) >= MIN_COMMON else None


def _common_prefix(strings: Sequence[str]) -> str:
    pairs = zip(min(strings), max(strings), strict=False)
    return "".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def kind_names(nodes: Sequence[NodeAttributes]) -> dict[str, int]:
    """Count nodes by what they are: steps by name, steps that start children by their pattern.

    Examples
    --------
    >>> kind_names([{"kind": "step", "operation": "step", "name": "app.pay"}])
    {'pay': 1}
    """
    counts: Counter[str] = Counter()
    for operation, count in _by_operation(nodes).items():
        prefix = _STARTS if operation == "start_child" else ""
        pattern = common_pattern(count) if operation in ("start_child", "workflow") else None
        if pattern is not None:
            counts[prefix + pattern] += count.total()
        else:
            for name, number in count.items():
                counts[prefix + leaf_name(name)] += number
    return dict(counts.most_common())


def _by_operation(nodes: Sequence[NodeAttributes]) -> dict[str, Counter[str]]:
    names: dict[str, Counter[str]] = {}
    for node in nodes:
        operation = "workflow" if node["kind"] == "workflow" else node.get("operation", "step")
        names.setdefault(operation, Counter())[str(node.get("name", ""))] += 1
    return names


def group_name(nodes: Sequence[NodeAttributes], repeats: int | None) -> tuple[str, dict[str, int]]:
    """Return the name of a group, and the number of nodes of each kind if there are several.

    Examples
    --------
    >>> group_name([{"kind": "step", "name": name} for name in ("poll", "write") * 2], 2)
    ('poll → write', {})
    >>> group_name([{"kind": "step", "name": name} for name in ("poll", "write", "poll")], None)
    ('2 × poll, write', {'poll': 2, 'write': 1})
    """
    names = [str(node.get("name", "")) for node in nodes]
    if len(set(names)) == 1:
        return names[0], {}
    parts = kind_names(nodes)
    if len(parts) == 1:
        return next(iter(parts)).removeprefix(_STARTS), {}
    if repeats:
        return " → ".join(map(leaf_name, names[: len(names) // repeats])), {}
    listed = [kind if count == 1 else f"{count:,} × {kind}" for kind, count in parts.items()]
    if len(parts) > MAX_PARTS:
        left_out = sum(list(parts.values())[MAX_PARTS - 1 :])
        noun = "steps" if nodes[0]["kind"] == "step" else "workflows"
        listed = [*listed[: MAX_PARTS - 1], f"{left_out:,} other {noun}"]
    return ", ".join(listed), parts
