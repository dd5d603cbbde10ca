"""The fonts, colors and shapes of pictures; those of statuses come from ``status.py``."""

from __future__ import annotations

from dataclasses import dataclass

from dbos_notebook.status import STATUS_STYLES, MarkPath, StatusColors, circle

FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
MARGIN, MIN_WIDTH = 16.0, 620.0
"""The margin of a picture and its minimum width, in pixels."""


@dataclass(frozen=True)
class Palette:
    """The colors of a picture; ``statuses`` has DBOS's seven and ``""`` for any other."""

    ground: str
    frame: str
    ink: str
    muted: str
    line: str
    faint: str
    card: str
    statuses: dict[str, StatusColors]


LIGHT = Palette(
    ground="#ffffff",
    frame="#f6f8fa",
    ink="#1b1f24",
    muted="#57606a",
    line="#6e7781",
    faint="#d8dee4",
    card="#ffffff",
    statuses={name: style.light for name, style in STATUS_STYLES.items()},
)
DARK = Palette(
    ground="#0d1117",
    frame="#161b22",
    ink="#e6edf3",
    muted="#9aa4af",
    line="#8b949e",
    faint="#30363d",
    card="#0d1117",
    statuses={name: style.dark for name, style in STATUS_STYLES.items()},
)

SERIES_LIGHT = (
    "#0a6fb0",
    "#c2500a",
    "#0b8a67",
    "#a8518a",
    "#8a6d0b",
    "#3d8fc4",
    "#6a51a3",
    "#5f6670",
)
SERIES_DARK = (
    "#58aee6",
    "#f08c4c",
    "#3fc9a0",
    "#e09cc8",
    "#d8ba4e",
    "#92d2f7",
    "#b6a2e6",
    "#aab2bc",
)
"""The colors of series in charts: Okabe and Ito's, legible on each background."""


@dataclass(frozen=True)
class DifferenceStyle:
    """How a node of a comparison is shown: the status whose colors it has, its outline and mark."""

    status: str
    dash: str
    mark: tuple[MarkPath, ...]


DIFFERENCES = {
    "changed error": DifferenceStyle(
        "ERROR",
        "",
        (
            MarkPath(circle(6.5), fill="status"),
            MarkPath("M-3.2-1.6H3.2M-3.2 1.6H3.2M1.8-4L-1.8 4", stroke="ground", width=1.5),
        ),
    ),
    "repaired": DifferenceStyle(
        "SUCCESS",
        "",
        (
            MarkPath(circle(6), fill="ground", stroke="status", width=1.6),
            MarkPath("M-3 .2L-.9 2.4L3.1-2.3", stroke="status", width=1.8),
        ),
    ),
    "changed result": DifferenceStyle(
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
        "",
        (
            MarkPath("M0-7L7 0L0 7L-7 0Z", fill="status"),
            MarkPath("M-2.8-1.4H2.8M-2.8 1.4H2.8M1.6-3.4L-1.6 3.4", stroke="ground", width=1.4),
        ),
    ),
    "slower": DifferenceStyle("ENQUEUED", "", (MarkPath("M0-6L6.5 5H-6.5Z", fill="status"),)),
    "faster": DifferenceStyle("SUCCESS", "", (MarkPath("M0 6L6.5-5H-6.5Z", fill="status"),)),
    "only in first": DifferenceStyle(
        "CANCELLED",
        "5 3",
        (
            MarkPath("M-6-6H6V6H-6Z", fill="ground", stroke="status", width=1.6),
            MarkPath("M-3.4 0H3.4", stroke="status", width=1.8),
        ),
    ),
    "only in second": DifferenceStyle(
        "PENDING",
        "",
        (
            MarkPath("M-6.5-6.5H6.5V6.5H-6.5Z", fill="status"),
            MarkPath("M-3.6 0H3.6M0-3.6V3.6", stroke="ground", width=1.8),
        ),
    ),
    "same": DifferenceStyle(
        "",
        "",
        (
            MarkPath(circle(6), fill="ground", stroke="status", width=1.2),
            MarkPath("M-2.8-1.5H2.8M-2.8 1.5H2.8", stroke="status", width=1.2),
        ),
    ),
}
"""By the ``difference`` of a compared node, the most severe first."""

OPERATIONS = {
    "step": ("box", ""),
    "start_child": ("cds", "starts"),
    "get_result": ("cds", "waits for"),
    "sleep": ("box", "sleep"),
    "send": ("parallelogram", "send"),
    "recv": ("parallelogram", "receive"),
    "set_event": ("note", "set event"),
    "get_event": ("note", "get event"),
    "stream": ("tab", "stream"),
    "other": ("component", ""),
}
"""By operation: its Graphviz shape, and its label."""
