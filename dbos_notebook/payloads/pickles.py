"""A pickle interpreter, protocols 0 to 5, that imports nothing and calls nothing.

What a pickle would call becomes an inert record; ``reconstruct`` turns some of those into values.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from dbos_notebook.payloads import reconstruct
from dbos_notebook.payloads.limits import PickleError, Work
from dbos_notebook.payloads.values import Opaque, Reference

_PLAIN = (type(None), bool, float)
MAX_PLACES = 1_000_000
"""Places of the memo; a number beyond them is no pickler's, and could be chosen to be slow."""


class Machine:
    """What one pickle has done so far.

    Attributes
    ----------
    instructions
        How many were run.
    containers
        How many containers were made: a bound on how deep the value is.
    repeated
        How many characters of texts and bytes were used again.
    shared
        Whether anything else was used twice, so that the value may be bigger than its record.
    work
        What it may still cost.
    """

    __slots__ = (
        *("below", "containers", "data", "instructions", "memo", "place", "repeated", "shared"),
        *("stack", "work"),
    )

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lies below each mark
        self.memo: dict[int, Any] = {}
        self.instructions = 0
        self.containers = 0
        self.repeated = 0
        self.shared = False
        self.work = Work(len(data))

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.place + count
        if end > len(self.data):
            raise PickleError("it is cut short")
        piece = self.data[self.place : end]
        self.place = end
        return piece

    def line(self) -> bytes:
        """Return the bytes up to the next newline."""
        end = self.data.find(b"\n", self.place)
        if end < 0:
            raise PickleError("it is cut short")
        piece = self.data[self.place : end]
        self.place = end + 1
        return piece

    def number(self, size: int) -> int:
        """Return an unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack, and the mark."""
        items = self.stack
        self.stack = self.below.pop()
        return items

    def contain(self, value: Any) -> None:
        """Push a container."""
        self.containers += 1
        self.stack.append(value)

    def push_again(self, value: Any) -> None:
        """Push what was pushed before."""
        kind = type(value)
        if kind is str or kind is bytes:
            self.repeated += len(value)
        elif kind is Reference:
            self.repeated += len(value.type)
        elif kind not in _PLAIN:
            self.shared = True
        self.stack.append(value)

    def get(self, place: int) -> None:
        """Push what was memorised."""
        self.push_again(self.memo[place])

    def put(self, place: int) -> None:
        """Memorise what is on top."""
        if not 0 <= place < MAX_PLACES:
            raise PickleError(f"it numbers its parts beyond {MAX_PLACES:,}")
        self.memo[place] = self.stack[-1]


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

MAX_ITEMS = 1_000_000
"""Instructions that one pickle may have; each makes at most one object."""

BETWEEN_LOOKS = 10_000
"""Instructions between looks at the clock."""


def run(data: bytes) -> Machine:
    r"""Run a pickle to its STOP; the value is ``machine.stack[-1]``.

    Raises
    ------
    PickleError
        The pickle is broken, asks for what is refused, or is too big.

    Examples
    --------
    >>> run(b"(I1\nI2\nt.").stack[-1]
    (1, 2)
    """
    m = Machine(data)
    table = _TABLE
    left = MAX_ITEMS
    pause = MAX_ITEMS - BETWEEN_LOOKS
    try:
        while (code := data[m.place]) != _STOP:
            m.place += 1
            left -= 1
            if left < pause:
                if left < 0:
                    raise PickleError(f"it has over {MAX_ITEMS:,} instructions")
                m.work.look_at_the_clock()
                pause = max(0, pause - BETWEEN_LOOKS)
            instruction = table[code]
            if instruction is None:
                raise PickleError(f"byte {code} is no instruction that is allowed")
            instruction(m)
        if not m.stack:
            raise PickleError("it is broken: it holds no value")
        m.instructions = MAX_ITEMS - left
    except IndexError:
        raise PickleError("it is cut short or broken") from None
    except KeyError as error:
        raise PickleError(f"it uses place {error} before it was filled") from None
    except (ValueError, TypeError, ArithmeticError, struct.error) as error:
        raise PickleError(f"it is broken: {error}") from None
    return m


def _mark(m: Machine) -> None:
    m.below.append(m.stack)
    m.stack = []


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.since_mark()


def _pop_mark(m: Machine) -> None:
    m.since_mark()


def _dup(m: Machine) -> None:
    m.push_again(m.stack[-1])


def _empty(kind: Callable[[], Any]) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        m.contain(kind())

    return push


def _marked_list(m: Machine) -> None:
    m.contain(m.since_mark())


def _marked_tuple(m: Machine) -> None:
    m.contain(tuple(m.since_mark()))


def _tuple(count: int) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        stack = m.stack
        if len(stack) < count:
            raise PickleError("it is broken: a tuple lacks items")
        items = tuple(stack[-count:])
        del stack[-count:]
        m.contain(items)

    return push


def _marked_dict(m: Machine) -> None:
    m.contain({})
    made = m.stack.pop()
    reconstruct.set_items(m.work, made, m.since_mark())
    m.stack.append(made)


def _append(m: Machine) -> None:
    value = m.stack.pop()
    reconstruct.extend(m.stack[-1], [value])


def _appends(m: Machine) -> None:
    items = m.since_mark()
    reconstruct.extend(m.stack[-1], items)


def _set_item(m: Machine) -> None:
    value = m.stack.pop()
    key = m.stack.pop()
    reconstruct.set_items(m.work, m.stack[-1], [key, value])


def _set_items(m: Machine) -> None:
    items = m.since_mark()
    reconstruct.set_items(m.work, m.stack[-1], items)


def _add_items(m: Machine) -> None:
    items = m.since_mark()
    reconstruct.add(m.work, m.stack[-1], items)


def _frozenset(m: Machine) -> None:
    m.contain(reconstruct.hashed(m.work, frozenset, m.since_mark()))


def _get_line(m: Machine) -> None:
    m.get(int(m.line()))


def _get(size: int) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        m.get(m.number(size))

    return push


def _put_line(m: Machine) -> None:
    m.put(int(m.line()))


def _put(size: int) -> Callable[[Machine], None]:
    def put(m: Machine) -> None:
        m.put(m.number(size))

    return put


def _memoize(m: Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _global(m: Machine) -> None:
    module = m.line().decode("utf-8")
    m.stack.append(Reference(reconstruct.dotted(module, m.line().decode("utf-8"))))


def _stack_global(m: Machine) -> None:
    name = m.stack.pop()
    module = m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise PickleError("it is broken: a name is no text")
    m.stack.append(Reference(reconstruct.dotted(module, name)))


def _call(m: Machine, named: Any, args: Any, kwargs: Any = None) -> None:
    if type(args) is not tuple:
        raise PickleError("it is broken: a call has no arguments")
    m.contain(reconstruct.make(m.work, named, args, kwargs))


def _reduce(m: Machine) -> None:
    args = m.stack.pop()
    _call(m, m.stack.pop(), args)


def _newobj_ex(m: Machine) -> None:
    kwargs = m.stack.pop()
    args = m.stack.pop()
    if type(kwargs) is not dict:
        raise PickleError("it is broken: named arguments are no dict")
    _call(m, m.stack.pop(), args, kwargs)


def _obj(m: Machine) -> None:
    items = m.since_mark()
    _call(m, items[0], tuple(items[1:]))


def _inst(m: Machine) -> None:
    module = m.line().decode("utf-8")
    named = Reference(reconstruct.dotted(module, m.line().decode("utf-8")))
    _call(m, named, tuple(m.since_mark()))


def _build(m: Machine) -> None:
    state = m.stack.pop()
    before = m.stack[-1]
    after = reconstruct.with_state(m.work, before, state)
    if after is not before:
        m.stack[-1] = after
        # It was memorised before its state was known: a moment ago, by every pickler.
        for looked, place in enumerate(reversed(m.memo)):
            if m.memo[place] is before:
                m.memo[place] = after
                break
            if looked > 32:
                m.work.spend(1)


def _persistent_line(m: Machine) -> None:
    m.contain(Opaque("persistent", (m.line().decode("latin-1"),)))


def _persistent(m: Machine) -> None:
    m.contain(Opaque("persistent", (m.stack.pop(),)))


def _extension(size: int) -> Callable[[Machine], None]:
    def push(m: Machine) -> None:
        # What the number stands for is in the registry of the process that wrote it.
        m.stack.append(Reference(f"extension.{m.number(size)}"))

    return push


_OPCODES: dict[bytes, Callable[[Machine], None]] = {
    **SCALARS,
    b"(": _mark,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": _dup,
    b"]": _empty(list),
    b"l": _marked_list,
    b")": _empty(tuple),
    b"t": _marked_tuple,
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"}": _empty(dict),
    b"d": _marked_dict,
    b"\x8f": _empty(set),
    b"\x91": _frozenset,
    b"a": _append,
    b"e": _appends,
    b"s": _set_item,
    b"u": _set_items,
    b"\x90": _add_items,
    b"g": _get_line,
    b"h": _get(1),
    b"j": _get(4),
    b"p": _put_line,
    b"q": _put(1),
    b"r": _put(4),
    b"\x94": _memoize,
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _reduce,  # NEWOBJ takes the same, and for us is the same
    b"\x92": _newobj_ex,
    b"o": _obj,
    b"i": _inst,
    b"b": _build,
    b"P": _persistent_line,
    b"Q": _persistent,
    b"\x82": _extension(1),
    b"\x83": _extension(2),
    b"\x84": _extension(4),
}
_STOP = 46
_TABLE: list[Callable[[Machine], None] | None] = [None] * 256
for _code, _instruction in _OPCODES.items():
    _TABLE[_code[0]] = _instruction
