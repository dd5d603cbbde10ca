"""SVG into PNG and PDF, by vl-convert (resvg, with fonts of its own: it needs none installed).

Its text layout can panic where a font lacks a joined or a combined character, and after a panic
it works no more in that process. Pictures with such text go through a process of their own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Literal

from dbos_notebook.errors import PictureError

PATIENCE = 60.0
# Latin, Greek, Cyrillic, punctuation, arrows: in the fonts, and never joined.
_PLAIN = re.compile(
    "[\\t\\n\\x20-\\u02af\\u0370-\\u0482\\u048a-\\u052f\\u2010-\\u2027\\u2030-\\u205e\\u2190-\\u21ff\\u2212]*"
)
_JOINING = re.compile(
    "[\\u0300-\\u036f\\u200c\\u200d\\ufe00-\\ufe0f\\U000e0000-\\U000e0fff\\U0001f3fb-\\U0001f3ff]"
)
_CHILD = (
    "import sys, vl_convert\n"
    "svg = sys.stdin.buffer.read().decode()\n"
    "pdf, scale = sys.argv[1] == 'pdf', float(sys.argv[2])\n"
    "done = vl_convert.svg_to_pdf(svg) if pdf else vl_convert.svg_to_png(svg, scale=scale)\n"
    "sys.stdout.buffer.write(done)\n"
)


def convert(svg: str, kind: Literal["png", "pdf"], scale: float = 1.0) -> bytes:
    """Return an SVG as PNG or PDF.

    Raises
    ------
    PictureError
        The converter failed on it, even on a process of its own.
    """
    if _PLAIN.fullmatch(svg):
        import vl_convert

        if kind == "pdf":
            return bytes(vl_convert.svg_to_pdf(svg))
        return bytes(vl_convert.svg_to_png(svg, scale=scale))
    done = _apart(svg, kind, scale)
    if done.returncode:
        # Without joiners and accents that stand alone each character is drawn by itself.
        done = _apart(_JOINING.sub("", svg), kind, scale)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise PictureError(
            f"The picture could not be made a {kind.upper()}: {said[0] if said else 'no reason'}. "
            "Its SVG is complete: picture.save('picture.svg')."
        )
    return done.stdout


def _apart(svg: str, kind: str, scale: float) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - this Python, on code of ours
            [sys.executable, "-c", _CHILD, kind, str(scale)],
            input=svg.encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PictureError(
            f"The picture was not a {kind.upper()} after {PATIENCE:.0f} s. "
            "Its SVG is complete: picture.save('picture.svg')."
        ) from error
