"""Pickles that are small and would cost much: parts used many times, chosen keys, odd instants."""

from __future__ import annotations

import functools
import pickle
import struct

import numpy as np


def _long(text: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text


def _record(state: dict[object, object]) -> bytes:
    return b"\x80\x04cshop\nOrder\n)\x81" + pickle.dumps(state, 2)[2:-1] + b"b."


def _instant(value: int, unit: int, zone: bytes = b"N") -> bytes:
    seconds = b"\x8a\x08" + value.to_bytes(8, "little", signed=True)
    maker = b"cpandas._libs.tslibs.timestamps\n_unpickle_timestamp\n("
    return b"\x80\x04" + maker + seconds + b"N" + zone + b"K" + bytes([unit]) + b"tR."


@functools.cache
def costly() -> dict[str, bytes]:
    """Return small pickles that use their parts many times, or in ways that cost much."""
    big, whole = b"a" * (8 << 20), b"\x8b" + struct.pack("<I", 1_700)
    number = lambda n: whole + n.to_bytes(1_700, "little", signed=True)  # noqa: E731
    decimal = lambda text: b"cdecimal\nDecimal\n" + _long(text) + b"\x85R"  # noqa: E731
    five_hours = b"cdatetime\ntimezone\ncdatetime\ntimedelta\nK\x00MPF\x86R\x85R"
    hundred = b"(" + b"K\x01" * 100 + b"tq\x000(" + b"h\x00" * 100 + b"tq\x010"
    error = b"cbuiltins\nValueError\n"
    key = b"cshop\nKey\n" + decimal(b"sNaN") + b"\x85R"
    start = b"\x80\x04"
    text = lambda s: b"\x8c" + bytes([len(s)]) + s.encode()  # noqa: E731
    dtype = (
        b"cnumpy\ndtype\n(\x8c\x02M8\x89\x88tR(K\x04\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    )
    scalar = lambda unit, n: (  # noqa: E731
        start
        + b"cnumpy._core.multiarray\nscalar\n("
        + dtype
        + b"K\x00(N("
        + unit
        + b"K\x01K\x01K\x01tttb"
        + b"C\x08"
        + n.to_bytes(8, "little", signed=True)
        + b"tR."
    )
    return {
        "an instant of no unit": scalar(b"C\x03abc", 5),
        "an instant of the last year": scalar(b"C\x01Y", (1 << 63) - 1),
        "an instant of attoseconds": scalar(b"C\x02as", -(1 << 63) + 1),
        "an instant that is none": scalar(b"C\x01D", -(1 << 63)),
        "an address of a long text": start
        + b"cipaddress\nIPv6Address\n"
        + _long(b":" * (8 << 20))
        + b"\x85R.",
        "an address of a long number": start
        + b"cipaddress\nIPv4Address\n"
        + whole
        + b"\x7f" * 1_700
        + b"\x85R.",
        "pydantic extras often": start
        + b"}("
        + b"".join(b"M" + struct.pack("<H", n) + b"N" for n in range(60_000))
        + b"uq\x000("
        + (
            b"cshop\nOrder\n)\x81}"
            + text("__dict__")
            + b"h\x00s"
            + text("__pydantic_extra__")
            + b"h\x00sb"
        )
        * 2_000
        + b"l.",
        "laughs in an error": start
        + b"]q\x00"
        + b"]h\x00ah\x00aq\x00" * 28
        + error
        + b"h\x00\x85R.",
        "laughing errors": start
        + error
        + b"q\x01X\x02\x00\x00\x00ha\x85Rq\x00"
        + b"h\x01h\x00h\x00\x86Rq\x00" * 26
        + b".",
        "laughing deques": start
        + b"ccollections\ndeque\n)Rq\x00"
        + b"0ccollections\ndeque\nh\x00h\x00\x86\x85Rq\x00" * 24
        + b".",
        "errors of one tuple": start
        + b"("
        + b"K\x01" * 300_000
        + b"tq\x000("
        + (error + b"h\x00R") * 20_000
        + b"l.",
        "one text often": start + _long(big) + b"q\x000(" + b"h\x00" * 3_000 + b"l.",
        "one text as bytes": start + _long(big) + b"q\x000X\x06\x00\x00\x00latin1q\x020"
        b"c_codecs\nencode\nq\x010(" + b"h\x01h\x00h\x02\x86R" * 3_000 + b"l.",
        "one list often": start
        + b"("
        + b"N" * 300_000
        + b"lq\x000cbuiltins\nlist\nq\x010("
        + b"h\x01h\x00\x85R" * 2_000
        + b"l.",
        "one dict often": start
        + b"}("
        + b"".join(b"M" + struct.pack("<H", n) + b"N" for n in range(60_000))
        + b"uq\x000cbuiltins\ndict\nq\x010("
        + b"h\x01h\x00\x85R" * 2_000
        + b"l.",
        "one name often": start + _long(big) + b"q\x000(" + b"h\x00h\x00\x93" * 20_000 + b"l.",
        "one dtype often": start
        + b"cnumpy\ndtype\n"
        + _long(big)
        + b"\x85Rq\x000cnumpy.core.multiarray\n"
        b"scalar\nq\x010C\x00q\x020(" + b"h\x01h\x00h\x02\x86R" * 20_000 + b"l.",
        "one tuple called": start
        + b"("
        + b"N" * 300_000
        + b"tq\x000("
        + b"K\x01h\x00R" * 20_000
        + b"l.",
        "slashes": start + b"cfractions\nFraction\n" + _long(b"/" * (8 << 20)) + b"\x85R.",
        "fractions": start
        + number((1 << 13590) - 1)
        + b"q\x000"
        + number((1 << 13589) + 12345)
        + b"q\x010cfractions\nFraction\nq\x020("
        + b"h\x02h\x00h\x01\x86R" * 100_000
        + b"l.",
        "decimals": start
        + _long(b"1" * 10_000)
        + b"q\x000cdecimal\nDecimal\nq\x020("
        + b"h\x02h\x00\x85R" * 150_000
        + b"l.",
        "big tuples as keys": start
        + hundred
        + b"\x8f("
        + b"".join(b"(" + b"h\x01" * 99 + b"J" + struct.pack("<i", n) + b"t" for n in range(100))
        + b"\x90.",
        "big records as keys": start
        + hundred
        + b"\x8f("
        + b"".join(
            b"cshop\nKey\n(" + b"h\x01" * 99 + b"J" + struct.pack("<i", n) + b"tR"
            for n in range(20)
        )
        + b"\x90.",
        "equal texts as keys": start
        + b"\x8f("
        + _long(big)
        + b"\x90"
        + _long(big)
        + b"q\x000("
        + b"h\x00" * 100_000
        + b"\x90.",
        "long paths as keys": start
        + _long(b"a/" * (4 << 20))
        + b"q\x000\x8f("
        + b"cpathlib\nPurePosixPath\nh\x00\x85R" * 20
        + b"\x90.",
        "places that collide": start
        + b"N"
        + b"".join(b"p%d\n" % (n * ((1 << 61) - 1)) for n in range(1, 100_000))
        + b".",
        "a million sets": b"(" + b"\x8f" * 999_000 + b"l.",
        "deques": b"ccollections\ndeque\nq\x000(" + b"h\x00)R" * 330_000 + b"l.",
        "a long text deep down": b"\x80\x04"
        + b"]" * 190
        + _long(b"\x00" * (8 << 20))
        + b"a" * 190
        + b".",
        "not a number in a set": start + b"\x8f(" + key + key + b"\x90.",
        "not a number in a Counter": start
        + b"ccollections\nCounter\n}(K\x01"
        + decimal(b"NaN")
        + b"K\x02"
        + decimal(b"1")
        + b"u\x85R.",
        "cycles in a Counter": start
        + b"ccollections\nCounter\n}(K\x01]q\x00h\x00aK\x02]q\x01h\x01au\x85R.",
        "a Counter filled late": start
        + b"ccollections\nCounter\n)RK\x01]q\x00h\x00asK\x02]q\x01h\x01as.",
        "the year 0": start
        + b"\x8f(cdatetime\ndatetime\nC\x0a\x00\x00\x02"
        + b"\xff" * 7
        + five_hours
        + b"\x86R\x90.",
        "pandas' year 31690000": _instant(10**15, 7),
        "pandas' year 31690000 there": _instant(10**15, 7, five_hours),
        "pandas' last second of 9999 there": _instant(253402300799, 7, five_hours),
        "pandas' first second there": _instant(-(2**63) + 1, 7, five_hours),
        "memory by its address": _record(
            {
                "__array_interface__": {
                    "shape": (8,),
                    "typestr": "<i8",
                    "data": (16, True),
                    "version": 3,
                }
            }
        ),
        "names that are obeyed": _record({"x=1)\n\x1b[31m\x1b]0;owned\x07 \ud800": 1}),
    }


def chained_integers() -> bytes:
    """Return keys of which each is looked for in all the places of a dict where another is."""
    mask, filled, walk = (1 << 20) - 1, 349_526, [0]
    while len(walk) < filled:
        walk.append((5 * walk[-1] + 1) & mask)
    chain, place = np.array(walk), np.full(mask + 1, -1)
    place[chain] = np.arange(filled)
    late: list[int] = []
    for high in range(1, 1 << 10):
        number = chain | (high << 20)
        slot, perturb = number & mask, number >> 5
        while perturb.any():
            slot = (5 * slot + perturb + 1) & mask
            taken = place[slot] >= 0
            number, slot, perturb = number[taken], slot[taken], perturb[taken] >> 5
        late += number[place[slot] < filled // 4].tolist()
        if len(late) >= 100_000:
            break
    keys = [*chain.tolist(), *late[:100_000]]
    return b"}(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in keys) + b"u."


@functools.cache
def costly_errors() -> dict[str, bytes]:
    """Return small pickles of errors that would be composed over and over, or never end."""
    start = b"\x80\x04"
    text = lambda s: b"\x8c" + bytes([len(s)]) + s.encode()  # noqa: E731
    partial = b"cfunctools\npartial\n"
    wrapped = b"cbuiltins\nValueError\n)R"
    for _ in range(40):
        # Each has the last as its only argument, and as the attribute that is looked at for words.
        wrapped = (
            b"cshop\nDeclinedError\n"
            + wrapped
            + b"q\x00\x85R}("
            + text("orig")
            + b"h\x00"
            + text("cause")
            + b"h\x00ub"
        )
    boto = b"cbotocore.exceptions\n_exception_from_packed_args\n"
    packed = b"cbuiltins\nValueError\n)R"
    for _ in range(40):
        packed = (
            boto
            + b"(cbotocore.exceptions\nSSLError\n"
            + packed
            + b"q\x00\x85}("
            + text("error")
            + b"h\x00utR"
        )
    partials = b"cshop\nDeclinedError\n"
    for _ in range(60):
        partials = partial + partials + b"q\x00\x85R(h\x00(" + b"K\x01" * 50 + b"t}Ntb"
    many = b"(" + b"".join(b"M" + struct.pack("<H", n) for n in range(30_000)) + b"t"
    return {
        "errors of errors": start + wrapped + b".",
        "errors that a function makes of errors": start + packed + b".",
        "an error in itself": start
        + b"cshop\nDeclinedError\n)Rq\x00}"
        + text("cause")
        + b"h\x00sb.",
        "an error whose argument is itself": start
        + b"cshop\nDeclinedError\n](\x8c\x01aeq\x00\x85Rq\x010h\x00h\x01a0h\x01.",
        "partials of partials": start + partials + b")R.",
        "a partial of nothing": start + partial + b")R)R.",
        "many arguments in a long message": start
        + b"cshop\nDeclinedError\n"
        + many
        + b"R}"
        + text("message")
        + _long(b"a" * (1 << 20))
        + b"sb.",
        "a message that is filled": start
        + b"cdjango.core.exceptions\nValidationError\n("
        + _long(b"%(a)s" * 100_000)
        + b"N}"
        + text("a")
        + _long(b"b" * (1 << 20))
        + b"stR.",
        "a validation of one big value": start
        + b"cpydantic_core._pydantic_core\nValidationError.from_exception_data\n("
        + text("Order")
        + b"("
        + b"K\x01" * 9_000
        + b"lq\x000("
        + (
            b"}("
            + b"".join(text(word) for word in ("type", "a", "msg", "b"))
            + text("loc")
            + b")"
            + text("input")
            + b"h\x00u"
        )
        * 200
        + b"l"
        + text("python")
        + b"\x89tR.",
        "a place in a document": start
        + b"cjson.decoder\nJSONDecodeError\n(\x8c\x01aX\x01\x00\x00\x00{\x8a\x08"
        + b"\xff" * 7
        + b"\x7ftR.",
        "codecs without end": start
        + b"cbuiltins\nUnicodeDecodeError\n(\x8c\x01aC\x01aM\xff\xffK\x00\x8c\x01atR.",
    }
