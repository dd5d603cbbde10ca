"""A pickle interpreter for protocols 0 to 5 that imports and calls nothing.

A call in the pickle becomes an inert record; ``reconstruct`` converts some of these into values.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from dbos_notebook.payloads import reconstruct
from dbos_notebook.payloads.limits import Budget, DecodeError
from dbos_notebook.payloads.values import Opaque, Reference

MAX_INSTRUCTIONS = 1_000_000
"""Instructions of one pickle; each creates at most one object."""
MAX_MEMO_INDEX = 1_000_000
"""Picklers use no larger memo index; a larger one could be chosen to be slow."""
MAX_INTEGER_BYTES = 1_700
"""Python does not print integers of over 4,300 digits, and these are not created either."""
CLOCK_INTERVAL = 10_000
"""Instructions between checks of the time limit."""
_UNSHARED_TYPES = (type(None), bool, float)

# Python imports this codec at its first use, and decoding must not import anything.
codecs.lookup("raw-unicode-escape")


class PickleMachine:
    """The state of a pickle machine.

    Attributes
    ----------
    stack
        The current stack; after STOP, the value is at its top.
    metastack
        The stacks below each mark.
    memo
        The memoized objects by index.
    instructions
        The number of executed instructions.
    containers
        The number of created containers, an upper limit of the value's depth.
    repeated_characters
        The number of characters and bytes of strings that were used again.
    shared
        Whether any other object was used twice, so that the value may be larger than its record.
    budget
        The work that decoding may still do.
    """

    __slots__ = (
        *("budget", "containers", "data", "instructions", "memo", "metastack", "position"),
        *("repeated_characters", "shared", "stack"),
    )

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.metastack: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.instructions = 0
        self.containers = 0
        self.repeated_characters = 0
        self.shared = False
        self.budget = Budget(len(data))

    def read(self, count: int) -> bytes:
        """Read the next bytes."""
        end = self.position + count
        if end > len(self.data):
            raise DecodeError("truncated pickle")
        data = self.data[self.position : end]
        self.position = end
        return data

    def read_line(self) -> bytes:
        """Read the bytes up to the next newline."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise DecodeError("truncated pickle")
        data = self.data[self.position : end]
        self.position = end + 1
        return data

    def read_uint(self, size: int) -> int:
        """Read an unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.read(size), "little")

    def pop_mark(self) -> list[Any]:
        """Pop the last mark and everything above it."""
        items = self.stack
        self.stack = self.metastack.pop()
        return items

    def push_container(self, value: Any) -> None:
        """Push a new container."""
        self.containers += 1
        self.stack.append(value)

    def push_shared(self, value: Any) -> None:
        """Push an object that is already in use."""
        kind = type(value)
        if kind is str or kind is bytes:
            self.repeated_characters += len(value)
        elif kind is Reference:
            self.repeated_characters += len(value.type)
        elif kind not in _UNSHARED_TYPES:
            self.shared = True
        self.stack.append(value)

    def get(self, index: int) -> None:
        """Push a memoized object."""
        self.push_shared(self.memo[index])

    def put(self, index: int) -> None:
        """Memoize the top of the stack."""
        if not 0 <= index < MAX_MEMO_INDEX:
            raise DecodeError(f"memo index {index:,} is over {MAX_MEMO_INDEX:,}")
        self.memo[index] = self.stack[-1]


def run(data: bytes) -> PickleMachine:
    r"""Run a pickle to its STOP; the value is ``machine.stack[-1]``.

    Raises
    ------
    DecodeError
        The pickle is invalid, uses an unsupported opcode, or is too large.

    Examples
    --------
    >>> run(b"(I1\nI2\nt.").stack[-1]
    (1, 2)
    """
    m = PickleMachine(data)
    table = _TABLE
    left = MAX_INSTRUCTIONS
    next_check = MAX_INSTRUCTIONS - CLOCK_INTERVAL
    try:
        while (code := data[m.position]) != _STOP:
            m.position += 1
            left -= 1
            if left < next_check:
                if left < 0:
                    raise DecodeError(f"over {MAX_INSTRUCTIONS:,} instructions")
                m.budget.check_time()
                next_check = max(0, next_check - CLOCK_INTERVAL)
            instruction = table[code]
            if instruction is None:
                raise DecodeError(f"opcode {code} is not allowed")
            instruction(m)
        if not m.stack:
            raise DecodeError("invalid pickle: it has no value")
        m.instructions = MAX_INSTRUCTIONS - left
    except IndexError:
        raise DecodeError("truncated or invalid pickle") from None
    except KeyError as error:
        raise DecodeError(f"invalid pickle: memo index {error} is not set") from None
    except (ValueError, TypeError, ArithmeticError, struct.error) as error:
        raise DecodeError(f"invalid pickle: {error}") from None
    return m


# Scalars


def _constant(*, value: Any) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        m.stack.append(value)

    return push


def _skip(size: int) -> Callable[[PickleMachine], None]:
    def skip(m: PickleMachine) -> None:
        m.read(size)

    return skip


def _unsigned(size: int) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        m.stack.append(m.read_uint(size))

    return push


def _binint1(m: PickleMachine) -> None:
    m.stack.append(m.data[m.position])
    m.position += 1


def _binint(m: PickleMachine) -> None:
    m.stack.append(int.from_bytes(m.read(4), "little", signed=True))


def _int_line(m: PickleMachine) -> None:
    line = m.read_line()
    # Protocol 0 writes booleans as 00 and 01.
    m.stack.append({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))


def _long_line(m: PickleMachine) -> None:
    m.stack.append(int(m.read_line().rstrip(b"L") or b"0"))


def _long(size: int) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        count = m.read_uint(size)
        if count > MAX_INTEGER_BYTES:
            raise DecodeError(f"an integer has {count:,} bytes")
        m.stack.append(int.from_bytes(m.read(count), "little", signed=True))

    return push


def _float_line(m: PickleMachine) -> None:
    m.stack.append(float(m.read_line()))


def _binfloat(m: PickleMachine) -> None:
    m.stack.append(struct.unpack(">d", m.read(8))[0])


def _string_line(m: PickleMachine) -> None:
    line = m.read_line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise DecodeError("invalid pickle: a string is not quoted")
    m.stack.append(codecs.escape_decode(line[1:-1])[0].decode("latin-1"))


def _unicode_line(m: PickleMachine) -> None:
    m.stack.append(m.read_line().decode("raw-unicode-escape"))


def _unicode(size: int) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        m.stack.append(m.read(m.read_uint(size)).decode("utf-8", "surrogatepass"))

    return push


def _short_unicode(m: PickleMachine) -> None:
    # The most frequent opcode, so without further function calls.
    start = m.position + 1
    end = start + m.data[m.position]
    if end > len(m.data):
        raise DecodeError("truncated pickle")
    m.stack.append(m.data[start:end].decode("utf-8", "surrogatepass"))
    m.position = end


def _string(size: int) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        m.stack.append(m.read(m.read_uint(size)).decode("latin-1"))

    return push


def _binary(size: int) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        m.stack.append(m.read(m.read_uint(size)))

    return push


def _byte_array(m: PickleMachine) -> None:
    m.stack.append(bytearray(m.read(m.read_uint(8))))


# The stack, containers and the memo


def _mark(m: PickleMachine) -> None:
    m.metastack.append(m.stack)
    m.stack = []


def _pop(m: PickleMachine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _pop_mark(m: PickleMachine) -> None:
    m.pop_mark()


def _dup(m: PickleMachine) -> None:
    m.push_shared(m.stack[-1])


def _empty(kind: Callable[[], Any]) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        m.push_container(kind())

    return push


def _marked_list(m: PickleMachine) -> None:
    m.push_container(m.pop_mark())


def _marked_tuple(m: PickleMachine) -> None:
    m.push_container(tuple(m.pop_mark()))


def _tuple(count: int) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        stack = m.stack
        if len(stack) < count:
            raise DecodeError("invalid pickle: a tuple lacks items")
        items = tuple(stack[-count:])
        del stack[-count:]
        m.push_container(items)

    return push


def _marked_dict(m: PickleMachine) -> None:
    m.push_container({})
    mapping = m.stack.pop()
    reconstruct.set_items(m.budget, mapping, m.pop_mark())
    m.stack.append(mapping)


def _append(m: PickleMachine) -> None:
    value = m.stack.pop()
    reconstruct.extend(m.stack[-1], [value])


def _appends(m: PickleMachine) -> None:
    items = m.pop_mark()
    reconstruct.extend(m.stack[-1], items)


def _set_item(m: PickleMachine) -> None:
    value = m.stack.pop()
    key = m.stack.pop()
    reconstruct.set_items(m.budget, m.stack[-1], [key, value])


def _set_items(m: PickleMachine) -> None:
    items = m.pop_mark()
    reconstruct.set_items(m.budget, m.stack[-1], items)


def _add_items(m: PickleMachine) -> None:
    items = m.pop_mark()
    reconstruct.add(m.budget, m.stack[-1], items)


def _frozenset(m: PickleMachine) -> None:
    m.push_container(reconstruct.make_set(m.budget, frozenset, m.pop_mark()))


def _get_line(m: PickleMachine) -> None:
    m.get(int(m.read_line()))


def _get(size: int) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        m.get(m.read_uint(size))

    return push


def _put_line(m: PickleMachine) -> None:
    m.put(int(m.read_line()))


def _put(size: int) -> Callable[[PickleMachine], None]:
    def put(m: PickleMachine) -> None:
        m.put(m.read_uint(size))

    return put


def _memoize(m: PickleMachine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


# Names and calls


def _global(m: PickleMachine) -> None:
    module = m.read_line().decode("utf-8")
    m.stack.append(Reference(reconstruct.dotted(module, m.read_line().decode("utf-8"))))


def _stack_global(m: PickleMachine) -> None:
    name = m.stack.pop()
    module = m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise DecodeError("invalid pickle: a name is not a string")
    m.stack.append(Reference(reconstruct.dotted(module, name)))


def _call(m: PickleMachine, function: Any, args: Any, kwargs: Any = None) -> None:
    if type(args) is not tuple:
        raise DecodeError("invalid pickle: the arguments of a call are not a tuple")
    m.push_container(reconstruct.construct(m.budget, function, args, kwargs))


def _reduce(m: PickleMachine) -> None:
    args = m.stack.pop()
    _call(m, m.stack.pop(), args)


def _newobj_ex(m: PickleMachine) -> None:
    kwargs = m.stack.pop()
    args = m.stack.pop()
    if type(kwargs) is not dict:
        raise DecodeError("invalid pickle: keyword arguments are not a dict")
    _call(m, m.stack.pop(), args, kwargs)


def _obj(m: PickleMachine) -> None:
    items = m.pop_mark()
    _call(m, items[0], tuple(items[1:]))


def _inst(m: PickleMachine) -> None:
    module = m.read_line().decode("utf-8")
    function = Reference(reconstruct.dotted(module, m.read_line().decode("utf-8")))
    _call(m, function, tuple(m.pop_mark()))


def _build(m: PickleMachine) -> None:
    state = m.stack.pop()
    before = m.stack[-1]
    after = reconstruct.set_state(m.budget, before, state)
    if after is not before:
        m.stack[-1] = after
        # The object was memoized without its state. Every pickler does that just before BUILD.
        for count, index in enumerate(reversed(m.memo)):
            if m.memo[index] is before:
                m.memo[index] = after
                break
            if count > 32:
                m.budget.spend(1)


def _persistent_line(m: PickleMachine) -> None:
    m.push_container(Opaque("persistent", (m.read_line().decode("latin-1"),)))


def _persistent(m: PickleMachine) -> None:
    m.push_container(Opaque("persistent", (m.stack.pop(),)))


def _extension(size: int) -> Callable[[PickleMachine], None]:
    def push(m: PickleMachine) -> None:
        # Extension codes are registered in the process that wrote the pickle.
        m.stack.append(Reference(f"extension.{m.read_uint(size)}"))

    return push


_OPCODES: dict[bytes, Callable[[PickleMachine], None]] = {
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
    b"T": _string(4),
    b"U": _string(1),
    b"V": _unicode_line,
    b"X": _unicode(4),
    b"\x8c": _short_unicode,
    b"\x8d": _unicode(8),
    b"B": _binary(4),
    b"C": _binary(1),
    b"\x8e": _binary(8),
    b"\x96": _byte_array,
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
    b"\x81": _reduce,  # NEWOBJ has the same operands, and its record is the same
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
_TABLE: list[Callable[[PickleMachine], None] | None] = [None] * 256
for _code_part, _instruction in _OPCODES.items():
    _TABLE[_code_part[0]] = _instruction
