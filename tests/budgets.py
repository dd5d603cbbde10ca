"""How many random examples a test tries: the same few in each run, or many new ones at night.

``make test`` and CI draw the same examples in each run, because hypothesis derives them from the
test itself; a failure is thus reproducible. With ``make test NIGHTLY=1``, or
``DBOS_NOTEBOOK_NIGHTLY=1``, each such test tries twenty times as many new examples, and hypothesis
prints a failing one as an ``@example`` to be copied into the test.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

NIGHTLY = bool(os.environ.get("DBOS_NOTEBOOK_NIGHTLY"))

# The default for tests without a budget of their own.
settings.register_profile(
    "budget", max_examples=2000 if NIGHTLY else 100, derandomize=not NIGHTLY, deadline=None
)
settings.load_profile("budget")


def examples(usual: int, **others: Any) -> settings:
    """Return settings for this many examples, or twenty times as many in the nightly profile."""
    return settings(max_examples=usual * 20 if NIGHTLY else usual, **others)
