"""Format strings, numbers, durations and times for people: sanitize, truncate, measure, write.

Everything here returns plain strings; ``html.py`` is the one place that makes markup.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import unicodedata

import pandas as pd

# C0 and C1 controls, bidirectional and invisible characters, Unicode's line separators, and lone
# surrogates, which no encoding accepts. The joiners U+200C and U+200D are kept: ordinary Persian
# and many emoji contain them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def sanitize(text: object, max_length: int = 200) -> str:
    r"""Return a value's string on one line, with unsafe characters escaped, truncated.

    Control characters, line ends, bidirectional overrides, invisible characters and lone
    surrogates are written as escapes, so that no terminal or notebook interprets or hides them.

    Examples
    --------
    >>> sanitize("pay\x1b[2J\nSUCCESS")
    'pay\\x1b[2J\\nSUCCESS'
    >>> sanitize("x" * 300, max_length=5)
    'xxxx…'
    """
    string = text if isinstance(text, str) else str(text)
    # Truncate first, so that only the beginning of a string of megabytes is searched.
    safe = escape_unsafe(string[:max_length])
    return truncate(safe if len(string) <= max_length else safe + "…", max_length)


def sanitize_lines(text: object, max_length: int) -> str:
    r"""Return a value's string with unsafe characters escaped except line feeds, truncated.

    Examples
    --------
    >>> sanitize_lines("Traceback:\n  \x1b[1mpay", 100)
    'Traceback:\n  \\x1b[1mpay'
    """
    string = text if isinstance(text, str) else repr(text)
    lines = string[:max_length].split("\n")
    safe = "\n".join(sanitize(line, max_length) for line in lines)
    return safe if len(string) <= max_length else safe + "…"


def escape_unsafe(text: str) -> str:
    r"""Return a string with unsafe characters escaped, whole.

    Examples
    --------
    >>> escape_unsafe("pay\u202e\ud800")
    'pay\\u202e\\ud800'
    """
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def escape_unsafe_lines(text: str) -> str:
    r"""Return a string with unsafe characters escaped except line feeds and tabs, whole.

    Examples
    --------
    >>> escape_unsafe_lines("a\n\tb\x1b")
    'a\n\tb\\x1b'
    """
    return _UNSAFE.sub(
        lambda match: match.group() if match.group() in "\n\t" else escape_unsafe(match.group()),
        text,
    )


def escape_unsafe_json(text: str) -> str:
    r"""Return JSON that decodes to the same value and holds no unsafe character.

    Examples
    --------
    >>> escape_unsafe_json('"pay\u202e"')
    '"pay\\u202e"'
    """
    # JSON has control characters between its values only as white space, and none in its strings.
    return _UNSAFE.sub(
        lambda match: match.group() if match.group() <= "\x1f" else json.dumps(match.group())[1:-1],
        text,
    )


def truncate(text: str, max_length: int) -> str:
    """Return a string of at most ``max_length`` characters; an ellipsis stands for the rest.

    Examples
    --------
    >>> truncate("abcdef", 4), truncate("abcd", 4)
    ('abc…', 'abcd')
    """
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


_DOTTED = re.compile(r"[\w<>$-]+(?:\.[\w<>$-]+)+")


def leaf_name(name: str) -> str:
    """Return the part of a dotted name that distinguishes it: the function, with its class.

    A name is dotted if all its parts look like identifiers. The part before the last is kept
    where it is a class (``Agent.run``) or where a framework composed it with two underscores
    (``planner__model.request``); a last part that begins with a digit is not a name by itself.

    Examples
    --------
    >>> leaf_name("acme.pipelines.documents.workflows.process_invoice_document")
    'process_invoice_document'
    >>> leaf_name("acme.agents.ResearchAgent.run"), leaf_name("main.<locals>.pay")
    ('ResearchAgent.run', 'pay')
    >>> leaf_name("planner__model.request"), leaf_name("DBOS.sleep"), leaf_name("Pay. Then send.")
    ('planner__model.request', 'DBOS.sleep', 'Pay. Then send.')
    """
    if "." not in name or not _DOTTED.fullmatch(name):
        return name
    parts = name.split(".")
    start = len(parts) - 1
    while start and (
        not (parts[start][0].isalpha() or parts[start][0] == "_")
        or parts[start - 1][0].isupper()
        or "__" in parts[start - 1].strip("_")
    ):
        start -= 1
    return ".".join(parts[start:])


def describe_failure(
    error_type: str | None, message: str | None, attempts: int | None = None
) -> str:
    """Return the sentence on a failure: after how many attempts, and the cause.

    Examples
    --------
    >>> describe_failure("shop.UpstreamError", "503", 3)
    'failed after 3 attempts: UpstreamError: 503'
    >>> describe_failure("ValueError", None)
    'ValueError'
    """
    name = (error_type or "").rpartition(".")[2]
    cause = ": ".join(part for part in (name, message) if part)
    if attempts is None:
        return cause
    return f"failed after {plural(attempts, 'attempt')}: {cause}" if cause else ""


def describe_failed_step(
    step: str | None, function_id: int | None, workflow_id: str, failed_id: str
) -> str:
    """Return where a workflow failed: its step, a child's, or its own code.

    Parameters
    ----------
    step, function_id
        The step that failed; ``None`` if the workflow's own code did.
    workflow_id
        The workflow that failed first.
    failed_id
        The workflow that is described; another one if a child made it fail.

    Examples
    --------
    >>> describe_failed_step("shop.charge", 3, "order-1", "order-1")
    'step 3 charge'
    >>> describe_failed_step("shop.charge", 3, "order-1-7", "order-1")
    'step 3 charge of child …-7'
    >>> describe_failed_step(None, None, "order-1", "order-1")
    'its own code'
    """
    if workflow_id == failed_id:
        return "its own code" if step is None else f"step {function_id} {leaf_name(step)}"
    child = f"child {shorten_id(workflow_id, parent_id=failed_id)}"
    if step is None:
        return f"the code of {child}"
    return f"step {function_id} {leaf_name(step)} of {child}"


def shorten_id(workflow_id: str, max_length: int = 24, parent_id: str | None = None) -> str:
    """Shorten an ID in its middle, and write a child's default ID relative to its parent's.

    DBOS's default ID of a child is ``{parent}-{function_id}``.

    Examples
    --------
    >>> shorten_id("0190aa12-77f1-4c55-9d0e-aa61b54ffe01")
    '0190aa12-77f…a61b54ffe01'
    >>> shorten_id("0190aa12-77f1-9", parent_id="0190aa12-77f1"), shorten_id("order-7")
    ('…-9', 'order-7')
    """
    if parent_id and workflow_id.startswith(f"{parent_id}-"):
        workflow_id = "…" + workflow_id[len(parent_id) :]
    if len(workflow_id) <= max_length:
        return workflow_id
    end = (max_length - 1) // 2
    return f"{workflow_id[: max_length - 1 - end]}…{workflow_id[-end:]}"


MAX_SVG_TEXT = 1_000
MAX_COMBINING_MARKS = 2
"""Combining marks per letter: more would be drawn over neighbouring lines."""

# Controls, lone surrogates, what XML forbids, and bidirectional and invisible characters.
_UNDRAWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]+"
)
_SPACES = re.compile(r"\s+")


def sanitize_svg(text: object, max_length: int = MAX_SVG_TEXT) -> str:
    r"""Return a value's string on one line, without what SVG renderers cannot draw, truncated.

    Examples
    --------
    >>> sanitize_svg("a\nb\x1b[31m")
    'a b [31m'
    >>> sanitize_svg("x" * 2000, 5)
    'xxxx…'
    """
    string = str(text)
    # Truncate first, so that a name of 100 kB costs no more than a short one; to twice the
    # length, because removing characters shortens it.
    line = _SPACES.sub(" ", _UNDRAWABLE.sub(" ", string[: max_length * 2])).strip()
    if not line.isascii():
        line = _limit_combining_marks(line)
    if len(line) > max_length or len(string) > max_length * 2:
        line = line[: max_length - 1].rstrip() + "…"
    return line


def _limit_combining_marks(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MAX_COMBINING_MARKS:
            kept.append(character)
    return "".join(kept)


# The widths of the characters from " " to "~" in thousandths of the font size: the larger of
# Helvetica (Arial and Liberation Sans are equal) and DejaVu Sans, because the reader may have any.
_WIDTHS = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337,
    636, 636, 636, 636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 556,
    1015, 684, 686, 722, 770, 667, 611, 778, 752, 295, 500, 667, 557, 863, 748, 787,
    667, 787, 722, 667, 611, 732, 684, 989, 685, 667, 685, 390, 337, 390, 838, 556,
    500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612,
    635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
)  # fmt: skip
_BOLD = 1.12


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Estimate the width of a line of text, in the unit of the font size.

    Examples
    --------
    >>> text_width("iii", 10) < text_width("MMM", 10) < text_width("東京都", 10)
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


def truncate_to_width(text: str, size: float, max_width: float, *, bold: bool = False) -> str:
    """Truncate a line at its end until it is at most ``max_width`` wide.

    Examples
    --------
    >>> truncate_to_width("process_payment_of_customer", 10, 80)
    'process_paym…'
    >>> truncate_to_width("short", 10, 80)
    'short'
    """
    if text_width(text, size, bold=bold) <= max_width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle] + "…", size, bold=bold) <= max_width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def truncate_middle(text: str, size: float, max_width: float) -> str:
    """Truncate a line in its middle: both ends of an ID distinguish it from others.

    Examples
    --------
    >>> truncate_middle("0190aa12-77f1-4c55-9d0e-aa61b54ffe01", 10, 90)
    '0190aa1…54ffe01'
    """
    if text_width(text, size) <= max_width:
        return text
    low, high = 0, len(text) // 2
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle] + "…" + text[-middle:], size) <= max_width:
            low = middle
        else:
            high = middle - 1
    return f"{text[:low]}…{text[-low:]}" if low else "…"


def duration(span: float | dt.timedelta | None, *, approximate: bool = False) -> str:
    """Write a duration in its two largest units.

    Parameters
    ----------
    span
        A timedelta or a number of seconds, which may be longer than a Timedelta can hold.
        Negative durations occur where clocks differ.
    approximate
        Whether the value is accurate to one second only.

    Returns
    -------
    str
        ``""`` if it is missing.

    Examples
    --------
    >>> [duration(pd.Timedelta(span)) for span in ("340ms", "1230ms", "125s", "200min", "50h")]
    ['340 ms', '1.2 s', '2 m 5 s', '3 h 20 m', '2 d 2 h']
    >>> duration(-0.005), duration(pd.NaT), duration(0), duration(10**10)
    ('−5 ms', '', '0 ms', '115740 d 17 h')
    >>> [duration(seconds, approximate=True) for seconds in (0.3, 1.4, 90)]
    ['< 1 s', 'about 1 s', 'about 1 m 30 s']
    """
    if span is None or is_missing(span):
        return ""
    seconds = span.total_seconds() if isinstance(span, dt.timedelta) else float(span)
    if approximate:
        whole = math.floor(seconds + 0.5)
        if whole < 1:
            return "< 1 s"
        return f"about {whole} s" if whole < 60 else f"about {duration(whole)}"
    if seconds < 0:
        return f"−{duration(-seconds)}"
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


def timestamp(time: dt.datetime | None, *, milliseconds: bool = True) -> str:
    """Write a time in UTC; ``""`` if it is missing.

    Examples
    --------
    >>> timestamp(pd.Timestamp("2026-01-02T03:04:05.678Z"))
    '2026-01-02 03:04:05.678 UTC'
    >>> timestamp(pd.Timestamp("2026-01-02T03:04:05.678Z"), milliseconds=False)
    '2026-01-02 03:04:05 UTC'
    """
    if time is None or is_missing(time):
        return ""
    utc = pd.Timestamp(time).tz_convert("UTC")
    fraction = f".{utc.microsecond // 1000:03d}" if milliseconds else ""
    return f"{utc:%Y-%m-%d %H:%M:%S}{fraction} UTC"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """Write a number with its noun.

    Examples
    --------
    >>> plural(1, "step"), plural(12000, "step"), plural(0, "child", "children")
    ('1 step', '12,000 steps', '0 children')
    """
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def is_missing(value: object) -> bool:
    """Return whether a value is ``None``, ``NaT``, ``NA`` or ``nan``.

    ``pandas.isna`` is ten times slower, which matters for large graphs.
    """
    if value is None or value is pd.NaT or value is pd.NA:
        return True
    return isinstance(value, float) and math.isnan(value)
