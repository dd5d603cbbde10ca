"""Convert SVG to PNG and PDF with vl-convert, which is resvg with bundled fonts.

Its text layout can panic where a font lacks a joined or combined character, and after a panic it no
longer works in that process. Pictures with such text are converted in a separate process.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Literal

from dbos_notebook.errors import PictureError

TIMEOUT_SECONDS = 60.0
# Latin, Greek, Cyrillic, punctuation, arrows: in the bundled fonts, and never joined.
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
    """Convert an SVG to PNG or PDF.

    Raises
    ------
    PictureError
        The conversion failed, also in a separate process.
    """
    if _PLAIN.fullmatch(svg):
        import vl_convert

        if kind == "pdf":
            return bytes(vl_convert.svg_to_pdf(svg))
        return bytes(vl_convert.svg_to_png(svg, scale=scale))
    process = _convert_in_subprocess(svg, kind, scale)
    if process.returncode:
        # Without joiners and combining accents each character is drawn on its own.
        process = _convert_in_subprocess(_JOINING.sub("", svg), kind, scale)
    if process.returncode:
        errors = process.stderr.decode(errors="replace").strip().splitlines()
        raise PictureError(
            f"The picture could not be converted to {kind.upper()}: "
            f"{errors[0] if errors else 'no reason was given'}. "
            "The SVG is available: picture.save('picture.svg')."
        )
    return process.stdout


def _convert_in_subprocess(svg: str, kind: str, scale: float) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - this Python, with constant code
            [sys.executable, "-c", _CHILD, kind, str(scale)],
            input=svg.encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PictureError(
            f"Converting the picture to {kind.upper()} took over {TIMEOUT_SECONDS:.0f} s. "
            "The SVG is available: picture.save('picture.svg')."
        ) from error
