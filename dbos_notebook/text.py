"""Strings made safe and short for one line, and times, sizes and counts as people read them."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

import pandas as pd

# Control characters of both sets, what turns or hides text, line ends of Unicode's, and halves of
# surrogate pairs, which no encoding takes. The joiners, U+200C and U+200D, are part of ordinary
# Persian and of many emoji, and stay.
_UNFIT = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: object, most: int = 200) -> str:
    r"""Return a text on one line of at most ``most`` characters, with nothing obeyed or hidden.

    Control characters, line ends, overrides of the direction and lone surrogates are shown by
    their escapes. What is cut off shows as an ellipsis.

    Examples
    --------
    >>> printable("pay\x1b[2J\nSUCCESS")
    'pay\\x1b[2J\\nSUCCESS'
    >>> printable("x" * 300, most=5)
    'xxxx…'
    """
    # Cut first: of a text of megabytes only its beginning is looked at.
    whole = text if isinstance(text, str) else str(text)
    shown = escaped(whole[:most])
    return shown if len(whole) <= most and len(shown) <= most else shown[: most - 1] + "…"


def escaped(text: str) -> str:
    r"""Return a text in which nothing is obeyed or hidden, whole.

    Examples
    --------
    >>> escaped("pay\u202e\ud800")
    'pay\\u202e\\ud800'
    """
    return _UNFIT.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")


LONGEST_TOOLTIP = 1_000
MOST_MARKS = 2
"""Combining marks on one letter: more would paint over the neighbours."""

# Controls, lone surrogates, what XML forbids, and the characters that reorder their neighbours.
_UNDRAWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]+"
)
_SPACES = re.compile(r"\s+")

# How wide characters from " " to "~" are, in thousandths of the size: of Helvetica (Arial and
# Liberation Sans are the same) and DejaVu Sans, the wider, because any of them may be the
# reader's font.
_WIDTHS = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337,
    636, 636, 636, 636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 556,
    1015, 684, 686, 722, 770, 667, 611, 778, 752, 295, 500, 667, 557, 863, 748, 787,
    667, 787, 722, 667, 611, 732, 684, 989, 685, 667, 685, 390, 337, 390, 838, 556,
    500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612,
    635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
)  # fmt: skip
_BOLD = 1.12


def clean(text: object, longest: int = LONGEST_TOOLTIP) -> str:
    r"""Return text as one line that any renderer draws, cut at ``longest`` characters.

    Examples
    --------
    >>> clean("a\nb\x1b[31m")
    'a b [31m'
    >>> clean("x" * 2000, 5)
    'xxxx…'
    """
    # Cut first: a name of 100 kB costs no more than a short one. Twice the room, because
    # what is taken out makes it shorter.
    whole = str(text)
    line = _SPACES.sub(" ", _UNDRAWABLE.sub(" ", whole[: longest * 2])).strip()
    line = _without_piles(line)
    if len(line) > longest or len(whole) > longest * 2:
        line = line[: longest - 1].rstrip() + "…"
    return line


def _without_piles(text: str) -> str:
    if text.isascii():
        return text
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Estimate how wide a line of text is drawn, in the unit of ``size``.

    Examples
    --------
    >>> width("iii", 10) < width("MMM", 10) < width("東京都", 10)
    True
    """
    total = 0
    for character in text:
        code = ord(character)
        if 32 <= code < 127:
            total += _WIDTHS[code - 32]
        elif unicodedata.combining(character) or code == 0x200D or 0xFE00 <= code <= 0xFE0F:
            continue
        elif unicodedata.east_asian_width(character) in "WF":
            total += 1250 if code > 0x1F000 else 1000
        else:
            total += 700 if character.isupper() else 636
    return total * size / 1000 * (_BOLD if bold else 1)


def fit(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """Cut a clean line at its end until it is at most ``room`` wide.

    Examples
    --------
    >>> fit("process_payment_of_customer", 10, 80)
    'process_paym…'
    >>> fit("short", 10, 80)
    'short'
    """
    if width(text, size, bold=bold) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle] + "…", size, bold=bold) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def fit_ends(text: str, size: float, room: float) -> str:
    """Cut a clean line in its middle: of an ID, both ends tell it from others.

    Examples
    --------
    >>> fit_ends("0190aa12-77f1-4c55-9d0e-aa61b54ffe01", 10, 90)
    '0190aa1…54ffe01'
    """
    if width(text, size) <= room:
        return text
    low, high = 0, len(text) // 2
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle] + "…" + text[-middle:], size) <= room:
            low = middle
        else:
            high = middle - 1
    return f"{text[:low]}…{text[-low:]}" if low else "…"


def took(span: Any) -> str:
    """Say a span of time in its two largest units; ``""`` where it is not known.

    Examples
    --------
    >>> [took(pd.Timedelta(each)) for each in ("340ms", "1230ms", "125s", "200min", "50h")]
    ['340 ms', '1.2 s', '2 m 5 s', '3 h 20 m', '2 d 2 h']
    >>> took(pd.Timedelta("-5ms")), took(pd.NaT), took(pd.Timedelta(0))
    ('−5 ms', '', '0 ms')
    """
    return "" if missing(span) else lasted(pd.Timedelta(span).total_seconds())


def lasted(seconds: float) -> str:
    """Say a number of seconds as ``took`` says a span: also of centuries, which no Timedelta holds.

    Examples
    --------
    >>> lasted(1.23), lasted(10**10)
    ('1.2 s', '115740 d 17 h')
    """
    if seconds < 0:  # a step that ends before it starts: clocks differ
        return f"−{lasted(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.3g} s"
    whole = math.floor(seconds + 0.5)
    for large, small, ratio, unit in (("d", "h", 24, 3600), ("h", "m", 60, 60), ("m", "s", 60, 1)):
        count, rest = divmod(whole // unit, ratio)
        if count:
            return f"{count} {large} {rest} {small}" if rest else f"{count} {large}"
    return f"{whole} s"


def about(seconds: float) -> str:
    """Say a number of seconds that is known to the second only.

    Examples
    --------
    >>> about(1.4), about(0.3), about(90)
    ('about 1 s', '< 1 s', 'about 1 m 30 s')
    """
    whole = math.floor(seconds + 0.5)
    if whole < 1:
        return "< 1 s"
    return f"about {whole} s" if whole < 60 else f"about {lasted(whole)}"


def moment(time: Any) -> str:
    """Say an instant; ``""`` where it is not known.

    Examples
    --------
    >>> moment(pd.Timestamp("2026-01-02T03:04:05.678Z"))
    '2026-01-02 03:04:05.678 UTC'
    """
    if missing(time):
        return ""
    stamp = pd.Timestamp(time).tz_convert("UTC")
    return f"{stamp:%Y-%m-%d %H:%M:%S}.{stamp.microsecond // 1000:03d} UTC"


def count(number: int, word: str, words: str | None = None) -> str:
    """Write a number with its noun.

    Examples
    --------
    >>> count(1, "step"), count(12000, "step")
    ('1 step', '12,000 steps')
    """
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def missing(value: Any) -> bool:
    """Tell whether an attribute is absent: ``None``, ``NaT``, ``NA`` or ``nan``."""
    # Asked of each node of a large graph; pandas.isna takes ten times as long.
    if value is None or value is pd.NaT or value is pd.NA:
        return True
    return isinstance(value, float) and math.isnan(value)
