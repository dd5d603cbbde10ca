"""Templates of error messages, in which the values that differ between runs are replaced.

Messages of the same cause name orders, hosts, times and amounts. Without these values they are
equal, and can be counted together.
"""

from __future__ import annotations

import re

MAX_INPUT = 10_000
"""Characters of a message that are read."""
MAX_TEMPLATE = 1_000
"""Characters of a template, approximately."""
_MAX_PASSES = 8

_HEX = "[0-9a-fA-F]"
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},? "
_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?[AaPp][Mm]\b)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d)\b)?"
_UNIT = (
    "(?:ns|us|µs|μs|ms|[sSmhd]|secs?|seconds?|mins?|minutes?|hrs?|hours?|days?|weeks?"
    "|milliseconds?|microseconds?|nanoseconds?)"
)
# Not every top-level domain: names of modules and files, such as steps.py, are no hosts.
_DOMAIN = (
    "(?:com|net|org|edu|gov|int|mil|io|dev|app|cloud|ai|co|info|biz|tech|eu|de|fr|uk|us|ca|au|nl"
    "|ch|at|jp|cn|in|br|local|localdomain|internal|intern|lan|corp|svc|example|test|invalid)"
)
_LABEL = "[A-Za-z0-9][A-Za-z0-9-]{0,62}"

_RULES: tuple[tuple[str, str], ...] = (
    # Values that were replaced before stay as they are.
    ("kept", "<[a-z_]{2,11}>"),
    ("email", r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"),
    ("url", r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s\"'`<>()\[\]{}]+"),
    (
        "host",
        rf"(?<![\w.-])(?:localhost|(?:{_LABEL}\.){{1,8}}{_DOMAIN})(?::\d{{1,5}})?(?![\w-]|\.\w)",
    ),
    (
        "ip",
        r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:[:/]\d{1,5})?(?![\w]|\.\d)"
        rf"|(?<![\w:.])(?=[0-9a-fA-F]{{0,4}}:)(?:(?:{_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}"
        rf"|(?=[a-fA-F:]{{0,39}}\d)(?:{_HEX}{{1,4}}(?::{_HEX}{{1,4}}){{0,6}})?::"
        rf"(?:{_HEX}{{1,4}}(?::{_HEX}{{1,4}}){{0,6}})?)(?![\w:])",
    ),
    (
        "trace_id",
        rf"(?<![\w-])(?:{_HEX}{{2}}-{_HEX}{{32}}-{_HEX}{{16}}-{_HEX}{{2}}"
        rf"|1-{_HEX}{{8}}-{_HEX}{{24}})(?![\w-])",
    ),
    ("uuid", rf"(?<![A-Za-z0-9]){_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}(?![A-Za-z0-9])"),
    (
        "hash",
        r"(?<![A-Za-z0-9])(?:(?:md5|sha1|sha224|sha256|sha384|sha512)[:=-])?"
        rf"(?:{_HEX}{{128}}|{_HEX}{{96}}|{_HEX}{{64}}|{_HEX}{{56}}|{_HEX}{{40}}|{_HEX}{{32}})"
        "(?![A-Za-z0-9])",
    ),
    (
        "date",
        rf"(?<![A-Za-z0-9.])(?:\d{{4}}[-/]\d\d[-/]\d\d(?:[T ]{_CLOCK}{_ZONE})?"
        rf"|\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{4}}(?:,? {_CLOCK}{_ZONE})?"
        rf"|(?:{_DAY})?(?:\d{{1,2}} {_MONTH}|{_MONTH} \d{{1,2}},?)(?: \d{{4}})?"
        rf"(?: {_CLOCK}{_ZONE}(?: \d{{4}})?)?"
        rf"|{_CLOCK}{_ZONE})(?![\w]|[.:]\d)",
    ),
    (
        "duration",
        r"(?<![A-Za-z0-9.])[+-]?(?:\d{1,18}h ?)?(?:\d{1,18}m ?)?\d{1,18}(?:\.\d{1,18})?"
        rf" ?{_UNIT}(?![A-Za-z0-9])",
    ),
    (
        "hex",
        rf"(?<![A-Za-z0-9])(?:0[xX]{_HEX}+"
        rf"|(?=[0-9]*[a-fA-F])(?=[a-fA-F]*[0-9]){_HEX}{{6,}})(?![A-Za-z0-9])",
    ),
    (
        "float",
        r"(?<![A-Za-z0-9.])(?:(?<![\w>])[+-])?(?:\d+(?:\.\d+)+(?:[eE][+-]?\d{1,4})?"
        r"|\d+[eE][+-]?\d{1,4})(?![A-Za-z0-9]|\.\d)",
    ),
    ("int", r"(?<![A-Za-z0-9.])(?:(?<![\w>])[+-])?\d+(?:[,_]\d{3})*(?![A-Za-z0-9]|\.\d)"),
    ("quoted", r"(?<!\w)(?:'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`)(?!\w)"),
)
_VALUE = re.compile("|".join(f"(?P<{name}>{rule})" for name, rule in _RULES))
# Each value has a digit or one of these, and few messages without them are worth a closer look.
_HINT = re.compile(r"[\d@\"'`]|\w\.\w|://|localhost|::")


def fingerprint(message: str, workflow_id: str | None = None) -> str:
    """Return an error message with placeholders for the values that differ between runs.

    Replaced are e-mail addresses, URLs, hosts, IP addresses, trace IDs, UUIDs, hashes, dates and
    times, durations, hexadecimal, floating-point and integer numbers, and quoted texts, and before
    them the ID of the workflow. Numbers inside words stay, such as in ``utf8``. Equal templates
    have nearly always the same cause, but need not: ``KeyError: 'a'`` and ``KeyError: 'b'`` are
    alike.

    Parameters
    ----------
    message
        The message. Only its first 10,000 characters are read.
    workflow_id
        The workflow that raised it.

    Returns
    -------
    str
        At most about 1,000 characters. The template of a template is the template.

    Examples
    --------
    >>> fingerprint("Order 17 of ann@shop.com: card declined after 2.5 s")
    'Order <int> of <email>: card declined after <duration>'
    >>> fingerprint("order-8 failed: no 'sku' in batch 0x7f", "order-8")
    '<workflow_id> failed: no <quoted> in batch <hex>'
    """
    text = message[:MAX_INPUT]
    if workflow_id and workflow_id in text:
        text = _without_id(text, workflow_id)
    text = _replace(text)
    if len(text) > MAX_TEMPLATE + 50:
        # The cut may end a word that is a value now.
        text = _replace(text[:MAX_TEMPLATE]) + "…"
    elif len(message) > MAX_INPUT and not text.endswith("…"):
        text += "…"
    return text


def _without_id(text: str, workflow_id: str) -> str:
    # An ID such as "1" is replaced where it stands alone, and not in a placeholder.
    own = re.compile(rf"(?<![\w<]){re.escape(workflow_id)}(?!\w)(?!>)")
    return own.sub("<workflow_id>", text)


def _replace(text: str) -> str:
    # A placeholder may end what its neighbor touched: a second pass finds that.
    for _ in range(_MAX_PASSES):
        if not _HINT.search(text):
            return text
        replaced = _VALUE.sub(_placeholder, text)
        if replaced == text:
            return text
        text = replaced
    return text


def _placeholder(match: re.Match[str]) -> str:
    return match[0] if match.lastgroup == "kept" else f"<{match.lastgroup}>"
