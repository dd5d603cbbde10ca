"""The tasks of the shop, the same list for the same number and seed, and those of the documents.

This module does not import DBOS.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "order",
    "quote",
    "newsletter",
    "reconcile",
    "unpaid",
    "cancelled",
    "preorder",
    "waiting",
]
Fate = Literal["fine", "coupon", "declined", "out_of_stock", "refused", "transfer"]
VERSIONS = ("1.0", "2.0")
MIN_WORKFLOWS = 20

NIGHTLY_DOCUMENTS = 24
MIN_HISTORY = 300
BUGGY_DOCUMENTS = "1.4.2"
SLOW_DOCUMENTS = ("1.4.2", "1.4.3")
"""The versions of the documents application that take longer to index a contract."""


@dataclass(frozen=True)
class Examples:
    """How many real runs of each kind a version of the documents application makes."""

    nightly: int
    single: int
    sync: int
    agent: int
    approval: int
    unanswered: int = 0
    """The first approvals, which stay unanswered."""


DOCUMENTS = {
    "1.4.1": Examples(nightly=2, single=16, sync=2, agent=3, approval=4),
    "1.4.2": Examples(nightly=1, single=16, sync=1, agent=2, approval=2),
    "1.4.3": Examples(nightly=1, single=16, sync=1, agent=2, approval=5, unanswered=2),
}
"""By version."""

# The number of workflows of an order: itself, fulfil, pack, ship; fewer where it fails early.
_SIZE: dict[Fate, int] = {
    "fine": 4,
    "coupon": 1,
    "declined": 1,
    "out_of_stock": 2,
    "refused": 4,
    "transfer": 4,
}
_WEIGHTS: dict[Fate, int] = {
    "fine": 66,
    "coupon": 10,
    "declined": 8,
    "out_of_stock": 6,
    "refused": 4,
    "transfer": 6,
}
# One of each in both versions, so that every status exists at any size.
_ALWAYS: tuple[Kind, ...] = ("unpaid", "cancelled", "preorder", "waiting")
_OTHERS: tuple[Kind, ...] = ("quote", "newsletter", "reconcile")
_FORK_SIZE = 4


@dataclass(frozen=True)
class Task:
    """One workflow to start, and its intended outcome."""

    workflow_id: str
    kind: Kind
    version: str
    seed: int
    fate: Fate = "fine"
    # The failed order that this task forks onto the version without the bug.
    fork_of: str | None = None

    @property
    def size(self) -> int:
        """The number of its workflows, including children."""
        if self.fork_of:
            return _FORK_SIZE
        # A version without the bug accepts a coupon.
        fate: Fate = "fine" if self.fate == "coupon" and self.version != VERSIONS[0] else self.fate
        return _SIZE[fate] if self.kind == "order" else 1


def plan(workflows: int, seed: int) -> list[Task]:
    """Return tasks for about ``workflows`` workflows, including children.

    Parameters
    ----------
    workflows
        The approximate number of rows in workflow_status; at least 20.
    seed
        The random seed. The same number and seed give the same tasks.

    Returns
    -------
    list of Task
        The tasks of the first version, then those of the second.

    Examples
    --------
    >>> tasks = plan(200, seed=0)
    >>> sum(task.size for task in tasks)
    200
    >>> tasks == plan(200, seed=0)
    True
    """
    if workflows < MIN_WORKFLOWS:
        raise ValueError(f"The demo needs at least {MIN_WORKFLOWS} workflows to show every status.")
    choose = random.Random(f"{workflows}:{seed}")
    first = _version(VERSIONS[0], workflows // 2, seed, choose, forks=[])
    failed = [task.workflow_id for task in first if task.fate == "coupon"]
    # Half of the orders that the bug broke are repaired by a fork; the rest remain failed.
    forks = failed[: (len(failed) + 1) // 2]
    left = workflows - sum(task.size for task in first)
    return first + _version(VERSIONS[1], left, seed, choose, forks)


def _version(
    version: str, share: int, seed: int, choose: random.Random, forks: list[str]
) -> list[Task]:
    tasks: list[Task] = []
    left = share

    def add(kind: Kind, fate: Fate = "fine", fork_of: str | None = None) -> None:
        nonlocal left
        name = f"fork-of-{fork_of}" if fork_of else f"{kind}-{seed}-{version}-{len(tasks) + 1:04d}"
        task = Task(name, kind, version, choose.randrange(2**31), fate, fork_of)
        tasks.append(task)
        left -= task.size

    for _ in range(min(20, max(1, share // 60))):
        for kind in _ALWAYS:
            add(kind)
    add("waiting")
    if version == VERSIONS[0]:
        add("order", "coupon")
    for fork_of in forks:
        if left >= _FORK_SIZE:
            add("order", fork_of=fork_of)
    while left > 0:
        if left < _FORK_SIZE or choose.random() < 0.25:
            add(choose.choice(_OTHERS))
        else:
            add("order", choose.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0])
    return tasks
