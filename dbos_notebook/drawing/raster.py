"""Convert charts to SVG, and SVG to PNG and PDF, with vl-convert: Vega and resvg with its fonts.

Its text layout can panic where a font lacks a joined or combined character, and after a panic it no
longer works in that process. Pictures with such text are converted in a separate process.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Literal

from dbos_notebook.errors import PictureError
from dbos_notebook.imports import WholeImports

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
    "source, kind = sys.stdin.buffer.read().decode(), sys.argv[1]\n"
    "if kind == 'svg':\n"
    "    done = vl_convert.vegalite_to_svg(source, vl_version=sys.argv[2]).encode()\n"
    "elif kind == 'pdf':\n"
    "    done = vl_convert.svg_to_pdf(source)\n"
    "else:\n"
    "    done = vl_convert.svg_to_png(source, scale=float(sys.argv[2]))\n"
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
        with WholeImports():
            import vl_convert

        if kind == "pdf":
            return bytes(vl_convert.svg_to_pdf(svg))
        return bytes(vl_convert.svg_to_png(svg, scale=scale))
    return _convert_apart(
        svg, kind, str(scale), "The SVG is available: picture.save('picture.svg')."
    )


def vega_lite_to_svg(specification: str, version: str) -> str:
    """Convert the JSON of a Vega-Lite chart to SVG.

    Parameters
    ----------
    specification
        The chart, with its data and without unsafe characters (see ``text.sanitize_svg``).
    version
        The version of Vega-Lite, such as "6.1".

    Raises
    ------
    PictureError
        The conversion failed, also in a separate process.
    """
    if _PLAIN.fullmatch(specification):
        with WholeImports():
            import vl_convert

        return str(vl_convert.vegalite_to_svg(specification, vl_version=version))
    return _convert_apart(specification, "svg", version, "The DataFrame has its data.").decode()


def _convert_apart(source: str, kind: str, option: str, instead: str) -> bytes:
    """Convert in a separate process, which may fail."""
    process = _run(source, kind, option, instead)
    if process.returncode:
        # Without joiners and combining accents each character is drawn on its own.
        process = _run(_JOINING.sub("", source), kind, option, instead)
    if process.returncode:
        errors = process.stderr.decode(errors="replace").strip().splitlines()
        raise PictureError(
            f"The picture could not be converted to {kind.upper()}: "
            f"{errors[0] if errors else 'no reason was given'}. {instead}"
        )
    return process.stdout


def _run(source: str, kind: str, option: str, instead: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - this Python, with constant code
            [sys.executable, "-c", _CHILD, kind, option],
            input=source.encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PictureError(
            f"Converting the picture to {kind.upper()} took over {TIMEOUT_SECONDS:.0f} s. {instead}"
        ) from error
