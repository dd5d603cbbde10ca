"""How many random examples a test tries: the same few in every run, or many new ones at night.

``make test`` and CI draw the same examples each time (hypothesis derives them from the test
itself), so that a failure is there again in the next run. With ``DBOS_NOTEBOOK_NIGHTLY=1`` each
such test tries twenty times as many, new ones each time; hypothesis prints what failed, as an
``@example`` to be copied into the test.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

NIGHTLY = bool(os.environ.get("DBOS_NOTEBOOK_NIGHTLY"))

# What a test without a budget of its own has.
settings.register_profile(
    "budget", max_examples=2000 if NIGHTLY else 100, derandomize=not NIGHTLY, deadline=None
)
settings.load_profile("budget")


def examples(usual: int, **others: Any) -> settings:
    """Return hypothesis's settings for this many examples, or twenty times as many at night."""
    return settings(max_examples=usual * 20 if NIGHTLY else usual, **others)
