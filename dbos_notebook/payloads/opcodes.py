"""The instructions of pickle, protocols 0 to 5, on inert records only.

They are those of https://docs.python.org/3/library/pickletools.html. Where pickle would import a
name and call it, these ask ``builders`` for a plain value or make an ``Opaque``. Nothing is
imported, looked up or called that a payload names. What a payload can cost is bounded: objects
by ``MAX_ITEMS``, memory thereby, integers by their length, copies and comparisons by ``Work``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from dbos_notebook.payloads import builders, makers
from dbos_notebook.payloads.bounds import PickleError
from dbos_notebook.payloads.machine import Machine
from dbos_notebook.payloads.scalars import SCALARS
from dbos_notebook.payloads.values import Opaque, Reference

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
    builders.set_items(m.work, made, m.since_mark())
    m.stack.append(made)


def _append(m: Machine) -> None:
    value = m.stack.pop()
    builders.extend(m.stack[-1], [value])


def _appends(m: Machine) -> None:
    items = m.since_mark()
    builders.extend(m.stack[-1], items)


def _set_item(m: Machine) -> None:
    value = m.stack.pop()
    key = m.stack.pop()
    builders.set_items(m.work, m.stack[-1], [key, value])


def _set_items(m: Machine) -> None:
    items = m.since_mark()
    builders.set_items(m.work, m.stack[-1], items)


def _add_items(m: Machine) -> None:
    items = m.since_mark()
    builders.add(m.work, m.stack[-1], items)


def _frozenset(m: Machine) -> None:
    m.contain(builders.hashed(m.work, frozenset, m.since_mark()))


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
    m.stack.append(Reference(makers.dotted(module, m.line().decode("utf-8"))))


def _stack_global(m: Machine) -> None:
    name = m.stack.pop()
    module = m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise PickleError("it is broken: a name is no text")
    m.stack.append(Reference(makers.dotted(module, name)))


def _call(m: Machine, named: Any, args: Any, kwargs: Any = None) -> None:
    if type(args) is not tuple:
        raise PickleError("it is broken: a call has no arguments")
    m.contain(makers.make(m.work, named, args, kwargs))


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
    named = Reference(makers.dotted(module, m.line().decode("utf-8")))
    _call(m, named, tuple(m.since_mark()))


def _build(m: Machine) -> None:
    state = m.stack.pop()
    before = m.stack[-1]
    after = builders.with_state(m.work, before, state)
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
