"""Workflow statuses and control outcomes: groups, order, labels, marks and colors, defined once.

Python imports from here; templates get it through ``html.environment``, JavaScript and CSS through
``widgets/bundle.py``. The colors are Okabe and Ito's, which color-blind readers can tell apart,
darkened or lightened until they are legible. Color is never the only signal: every status also has
a mark of its own shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

STATUSES = (
    "DELAYED",
    "ENQUEUED",
    "PENDING",
    "SUCCESS",
    "ERROR",
    "CANCELLED",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
)
"""DBOS's seven workflow statuses, in the order of a workflow's life."""

STATUSES_BY_SEVERITY = (
    "ERROR",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
    "CANCELLED",
    "PENDING",
    "ENQUEUED",
    "DELAYED",
    "SUCCESS",
)
"""The same, with what needs attention first: the order of legends, filters and charts."""

WAITING_STATUSES = ("DELAYED", "ENQUEUED")
ACTIVE_STATUSES = (*WAITING_STATUSES, "PENDING")
"""Running or waiting to run; DBOS's ``list_queued_workflows`` returns these."""

ERROR_STATUSES = ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
FAILED_STATUSES = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
"""Ended without a result."""

INTERRUPTED_STATUSES = ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
"""Ended by DBOS and not by the function; DBOS erases their queue and the time of their start."""

TERMINAL_STATUSES = ("SUCCESS", *FAILED_STATUSES)
COMPLETED_STATUSES = ("SUCCESS", "ERROR")
"""The function returned or raised; DBOS ignores cancel and resume for these."""

Outcome = Literal["done", "unchanged", "not_found", "failed", "unknown"]
OUTCOMES: tuple[Outcome, ...] = ("done", "unchanged", "not_found", "failed", "unknown")
"""What a control call did to one workflow, in the order of a receipt."""


Likelihood = Literal["likely", "unlikely", "unknown"]
LIKELIHOODS: tuple[Likelihood, ...] = ("likely", "unlikely", "unknown")
"""Whether a live executor will run some work."""


class OutcomeStyle(NamedTuple):
    """The label of an outcome or a verdict, and the status whose mark and colors it has."""

    label: str
    status: str


OUTCOME_STYLES = {
    "ready": OutcomeStyle("will be changed", "PENDING"),
    "done": OutcomeStyle("done", "SUCCESS"),
    "unchanged": OutcomeStyle("unchanged", "CANCELLED"),
    "refused": OutcomeStyle("refused", "ERROR"),
    "not_found": OutcomeStyle("not found", "ERROR"),
    "failed": OutcomeStyle("failed", "ERROR"),
    "unknown": OutcomeStyle("unknown", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"),
}


class MarkPath(NamedTuple):
    """One SVG path of a mark, in a box from -8 to 8.

    ``fill`` and ``stroke`` name a color: ``"status"`` (the status's line color), ``"ground"``
    (what the mark stands on) or ``"none"``.
    """

    d: str
    fill: str = "none"
    stroke: str = "none"
    width: float = 0.0


class StatusColors(NamedTuple):
    """The colors of a status on one background: lines and marks, surfaces, text."""

    line: str
    fill: str
    text: str


@dataclass(frozen=True)
class StatusStyle:
    """How a status is shown.

    Attributes
    ----------
    label
        The status in plain words.
    symbol
        One character, for plain text.
    dash
        SVG's ``stroke-dasharray`` of an outline; ``""`` is a solid line.
    mark
        The paths of the mark.
    light, dark
        Its colors on a light and on a dark background.
    """

    label: str
    symbol: str
    dash: str
    mark: tuple[MarkPath, ...]
    light: StatusColors
    dark: StatusColors


def circle(radius: float) -> str:
    """Return the SVG path of a circle around 0,0.

    Examples
    --------
    >>> circle(6)
    'M-6 0A6 6 0 1 1 6 0A6 6 0 1 1-6 0Z'
    """
    r = f"{radius:g}"
    return f"M-{r} 0A{r} {r} 0 1 1 {r} 0A{r} {r} 0 1 1-{r} 0Z"


_RING = MarkPath(circle(6), fill="ground", stroke="status", width=1.6)

STATUS_STYLES = {
    "DELAYED": StatusStyle(
        "delayed",
        "◷",
        "1.5 3",
        (_RING, MarkPath("M0-3.6V0L2.6 1.8", stroke="status", width=1.5)),
        StatusColors("#8a7d00", "#f9f6d6", "#645a00"),
        StatusColors("#d8cc4a", "#2a2810", "#e6dd80"),
    ),
    "ENQUEUED": StatusStyle(
        "enqueued",
        "≡",
        "1.5 3",
        (
            _RING,
            MarkPath(
                "M-4-1.1h2.2v2.2H-4ZM-1.1-1.1h2.2v2.2h-2.2ZM1.8-1.1H4v2.2H1.8Z", fill="status"
            ),
        ),
        StatusColors("#a87400", "#fdf3dc", "#7a5400"),
        StatusColors("#e6a93a", "#2f2410", "#f0c470"),
    ),
    "PENDING": StatusStyle(
        "running",
        "◔",
        "6 3",
        (_RING, MarkPath("M-1.8-3.2L3.4 0L-1.8 3.2Z", fill="status")),
        StatusColors("#0072b2", "#e3f1fa", "#005a8d"),
        StatusColors("#56b4e9", "#0d2637", "#86cbf2"),
    ),
    "SUCCESS": StatusStyle(
        "succeeded",
        "✓",
        "",
        (
            MarkPath(circle(6.5), fill="status"),
            MarkPath("M-3 .2L-.9 2.4L3.1-2.3", stroke="ground", width=1.8),
        ),
        StatusColors("#00855f", "#e6f5ef", "#00624a"),
        StatusColors("#2fbf95", "#0f2a23", "#5fd6b3"),
    ),
    "ERROR": StatusStyle(
        "failed",
        "✕",
        "",
        (
            MarkPath("M-3-7H3L7-3V3L3 7H-3L-7 3V-3Z", fill="status"),
            MarkPath("M-2.8-2.8L2.8 2.8M2.8-2.8L-2.8 2.8", stroke="ground", width=2),
        ),
        StatusColors("#c43d00", "#fdeae1", "#a33200"),
        StatusColors("#ff7a45", "#3a1a0d", "#ff9d75"),
    ),
    "CANCELLED": StatusStyle(
        "cancelled",
        "⊘",
        "7 3 1.5 3",
        (_RING, MarkPath("M-4.2 4.2L4.2-4.2", stroke="status", width=1.6)),
        StatusColors("#6e7781", "#eceff1", "#4d555e"),
        StatusColors("#8b949e", "#1f252c", "#b3bcc5"),
    ),
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": StatusStyle(
        "recovery limit exceeded",
        "△",
        "",
        (
            MarkPath("M0-6.6L7 5.6H-7Z", fill="status"),
            MarkPath("M0-2.6V1.6M0 3.4V3.8", stroke="ground", width=1.8),
        ),
        StatusColors("#a63d7c", "#f8e6f0", "#842e62"),
        StatusColors("#dd8fba", "#331c29", "#ecb3d2"),
    ),
    "": StatusStyle(
        "unknown",
        "·",
        "",
        (_RING, MarkPath(circle(1.6), fill="status")),
        StatusColors("#6e7781", "#f6f8fa", "#4d555e"),
        StatusColors("#8b949e", "#161b22", "#b3bcc5"),
    ),
}
"""By status; ``""`` stands for a status that is missing or unknown to this version."""


def known_status(status: object) -> str:
    """Return a status of DBOS's seven, and ``""`` for any other value.

    Examples
    --------
    >>> known_status("ERROR"), known_status("PAUSED"), known_status(None)
    ('ERROR', '', '')
    """
    return status if isinstance(status, str) and status in STATUS_STYLES else ""


def status_label(status: object) -> str:
    """Return the plain word for a status.

    Examples
    --------
    >>> status_label("PENDING"), status_label(None)
    ('running', 'unknown')
    """
    return STATUS_STYLES[known_status(status)].label


def severity_rank(status: object) -> int:
    """Return a sort key: what needs attention first is smallest, an unknown status largest.

    Examples
    --------
    >>> sorted(["SUCCESS", "", "ERROR"], key=severity_rank)
    ['ERROR', 'SUCCESS', '']
    """
    known = status in STATUSES_BY_SEVERITY
    return STATUSES_BY_SEVERITY.index(str(status)) if known else len(STATUSES_BY_SEVERITY)


TEXT_SHARE = "60%"
"""The share of a status's color in text on a background that is not known."""


def status_css(selector: str) -> str:
    """Return CSS rules that color text by status, legible on a light and on a dark background.

    The color is mixed with that of the text around, which contrasts with whatever is behind it.

    Parameters
    ----------
    selector
        A selector in which ``{}`` stands for the status.

    Examples
    --------
    >>> ".card .ERROR{color:#c43d00;color:color-mix(" in status_css(".card .{}")
    True
    """
    return "".join(
        f"{selector.replace('{}', status)}{{color:{line};"
        f"color:color-mix(in srgb,{line} {TEXT_SHARE},currentColor)}}"
        for status in STATUSES
        for line in (STATUS_STYLES[status].light.line,)
    )
