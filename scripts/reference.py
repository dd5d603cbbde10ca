"""Write docs/columns.md from the column vocabulary; ``--check`` only compares."""

import sys
from pathlib import Path

from dbos_notebook.tables.columns import FRAMES

PAGE = Path(__file__).parent.parent / "docs" / "columns.md"


def page() -> str:
    """Return the reference page."""
    parts = ["# Columns\n", "Written from the code by `python scripts/reference.py`.\n"]
    for frame, columns in FRAMES.items():
        parts += [f"## {frame}\n", "| column | dtype | meaning |", "|---|---|---|"]
        parts += [f"| `{c.name}` | {c.dtype} | {c.meaning} |" for c in columns]
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/columns.md is not what the code says. Run: python scripts/reference.py")
