"""Colours, line styles and marks by status and operation: what a picture looks like, in one place.

The colours are those of Okabe and Ito, told apart by the colour-blind, darkened until they read
on the ground. Nothing is said by colour alone: each status has a mark and a line style too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ThemeName = Literal["auto", "light", "dark"]
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Ink:
    """The colours of one status: lines and marks, surface, text."""

    line: str
    fill: str
    text: str


@dataclass(frozen=True)
class Palette:
    """Every colour of a picture. ``statuses`` has the seven of DBOS and ``""`` for the rest."""

    ground: str
    frame: str
    ink: str
    muted: str
    line: str
    faint: str
    card: str
    statuses: dict[str, Ink]


LIGHT = Palette(
    ground="#ffffff",
    frame="#f6f8fa",
    ink="#1b1f24",
    muted="#57606a",
    line="#6e7781",
    faint="#d8dee4",
    card="#ffffff",
    statuses={
        "SUCCESS": Ink("#00855f", "#e6f5ef", "#00624a"),
        "ERROR": Ink("#c43d00", "#fdeae1", "#a33200"),
        "PENDING": Ink("#0072b2", "#e3f1fa", "#005a8d"),
        "ENQUEUED": Ink("#a87400", "#fdf3dc", "#7a5400"),
        "DELAYED": Ink("#8a7d00", "#f9f6d6", "#645a00"),
        "CANCELLED": Ink("#6e7781", "#eceff1", "#4d555e"),
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED": Ink("#a63d7c", "#f8e6f0", "#842e62"),
        "": Ink("#6e7781", "#f6f8fa", "#4d555e"),
    },
)
DARK = Palette(
    ground="#0d1117",
    frame="#161b22",
    ink="#e6edf3",
    muted="#9aa4af",
    line="#8b949e",
    faint="#30363d",
    card="#0d1117",
    statuses={
        "SUCCESS": Ink("#2fbf95", "#0f2a23", "#5fd6b3"),
        "ERROR": Ink("#ff7a45", "#3a1a0d", "#ff9d75"),
        "PENDING": Ink("#56b4e9", "#0d2637", "#86cbf2"),
        "ENQUEUED": Ink("#e6a93a", "#2f2410", "#f0c470"),
        "DELAYED": Ink("#d8cc4a", "#2a2810", "#e6dd80"),
        "CANCELLED": Ink("#8b949e", "#1f252c", "#b3bcc5"),
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED": Ink("#dd8fba", "#331c29", "#ecb3d2"),
        "": Ink("#8b949e", "#161b22", "#b3bcc5"),
    },
)

DASHES = {
    "SUCCESS": "",
    "ERROR": "",
    "PENDING": "6 3",
    "ENQUEUED": "1.5 3",
    "DELAYED": "1.5 3",
    "CANCELLED": "7 3 1.5 3",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "",
    "": "",
}
"""SVG's stroke-dasharray of a status's outline."""

ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")

SAID = {
    "SUCCESS": "succeeded",
    "ERROR": "failed",
    "PENDING": "running",
    "ENQUEUED": "enqueued",
    "DELAYED": "delayed",
    "CANCELLED": "cancelled",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "gave up recovering",
    "": "not known",
}
"""What a legend calls a status."""

GRAVEST = (
    "ERROR",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
    "CANCELLED",
    "PENDING",
    "ENQUEUED",
    "DELAYED",
    "SUCCESS",
    "",
)
"""Statuses, the one to look at first first."""

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
"""Graphviz's shape of an operation, and what a card calls it."""


def known(status: object) -> str:
    """Return a status of the palette; ``""`` for one that DBOS does not know."""
    text = str(status) if status is not None else ""
    return text if text in LIGHT.statuses else ""
