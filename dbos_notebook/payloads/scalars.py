"""The instructions that push numbers, texts and bytes."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from dbos_notebook.payloads.bounds import PickleError
from dbos_notebook.payloads.machine import Machine

# Python loads this codec when it is first asked for; decoding is to import nothing.
codecs.lookup("raw-unicode-escape")

MAX_INTEGER_BYTES = 1_700
"""Python refuses to print integers of over 4,300 digits, and so do we to make them."""


def _constant(*, value: Any) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        m.stack.append(value)

    return push


def _skip(size: int) -> Callable[[Machine], None]:
    def skip(m: Machine) -> None:
        m.take(size)

    return skip


def _unsigned(size: int) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        m.stack.append(m.number(size))

    return push


def _binint1(m: Machine) -> None:
    m.stack.append(m.data[m.place])
    m.place += 1


def _binint(m: Machine) -> None:
    m.stack.append(int.from_bytes(m.take(4), "little", signed=True))


def _int_line(m: Machine) -> None:
    text = m.line()
    # Protocol 0 wrote booleans so.
    m.stack.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))


def _long_line(m: Machine) -> None:
    m.stack.append(int(m.line().rstrip(b"L") or b"0"))


def _long(size: int) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        count = m.number(size)
        if count > MAX_INTEGER_BYTES:
            raise PickleError(f"it holds an integer of {count:,} bytes")
        m.stack.append(int.from_bytes(m.take(count), "little", signed=True))

    return push


def _float_line(m: Machine) -> None:
    m.stack.append(float(m.line()))


def _binfloat(m: Machine) -> None:
    m.stack.append(struct.unpack(">d", m.take(8))[0])


def _string_line(m: Machine) -> None:
    text = m.line()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise PickleError("it is broken: a text is not quoted")
    m.stack.append(codecs.escape_decode(text[1:-1])[0].decode("latin-1"))


def _unicode_line(m: Machine) -> None:
    m.stack.append(m.line().decode("raw-unicode-escape"))


def _text(size: int) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        m.stack.append(m.take(m.number(size)).decode("utf-8", "surrogatepass"))

    return push


def _short_text(m: Machine) -> None:
    # Most of what a pickle holds; so without the calls.
    place = m.place + 1
    end = place + m.data[m.place]
    if end > len(m.data):
        raise PickleError("it is cut short")
    m.stack.append(m.data[place:end].decode("utf-8", "surrogatepass"))
    m.place = end


def _latin(size: int) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        m.stack.append(m.take(m.number(size)).decode("latin-1"))

    return push


def _binary(size: int) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        m.stack.append(m.take(m.number(size)))

    return push


def _byte_array(m: Machine) -> None:
    m.stack.append(bytearray(m.take(m.number(8))))


SCALARS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _skip(1),  # PROTO
    b"\x95": _skip(8),  # FRAME
    b"N": _constant(value=None),
    b"\x88": _constant(value=True),
    b"\x89": _constant(value=False),
    b"I": _int_line,
    b"L": _long_line,
    b"J": _binint,
    b"K": _binint1,
    b"M": _unsigned(2),
    b"\x8a": _long(1),
    b"\x8b": _long(4),
    b"F": _float_line,
    b"G": _binfloat,
    b"S": _string_line,
    b"T": _latin(4),
    b"U": _latin(1),
    b"V": _unicode_line,
    b"X": _text(4),
    b"\x8c": _short_text,
    b"\x8d": _text(8),
    b"B": _binary(4),
    b"C": _binary(1),
    b"\x8e": _binary(8),
    b"\x96": _byte_array,
}
"""By opcode."""
