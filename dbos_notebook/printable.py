"""Text that somebody else wrote, made fit for one line of a screen, a cell or a page."""

from __future__ import annotations

import re

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
