"""Malicious pickles, and a program that decodes them and many mutations under an audit hook.

Run as a program (``python attack_pickles.py COUNT SEED``) it limits its own memory, records the
audit events of Python (imports, files, processes, code), decodes, and prints the outcome as JSON.
"""

from __future__ import annotations

import base64
import json
import pickle
import random
import resource
import struct
import sys
import time
from collections.abc import Iterator

from costly_pickles import chained_integers, costly, costly_errors

MEMORY_BYTES = 1 << 30
SECONDS_EACH = 20.0
"""A bounded decode takes one or two seconds, six on a busy machine; an unbounded one never ends."""
SLOW = {"integers as keys": chained_integers}
"""Attacks that take seconds to build: functions that do it, by name."""
WATCHED = (
    "import",
    "open",
    "exec",
    "compile",
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "ctypes.",
)


def _laughs(depth: int, pair: bytes = b"h\x00h\x00\x86q\x00") -> bytes:
    # Each round makes a pair of the last pair.
    return b"\x80\x02)q\x00" + pair * depth + b"."


def _frame_of(axis: bytes) -> bytes:
    """Return the instructions of a DataFrame without blocks, of this axis twice."""
    index = b"cpandas.core.indexes.base\n_new_Index\n(cpandas\nRangeIndex\n" + axis + b"tR"
    manager = b"cpandas.core.internals.managers\nBlockManager\n()](" + index * 2 + b"etR"
    return b"cpandas\nDataFrame\n)\x81}\x8c\x04_mgr" + manager + b"sb."


def harmful() -> dict[str, bytes]:
    """Return the known attacks by name."""
    text = lambda s: b"\x8c" + bytes([len(s)]) + s.encode()  # noqa: E731
    named = lambda m, n: text(m) + text(n) + b"\x93"  # noqa: E731
    call = lambda m, n, *args: named(m, n) + b"(" + b"".join(args) + b"tR."  # noqa: E731
    integer = b"\x8a\x11" + b"\x7f" * 17
    shell = text("touch /tmp/dbos_notebook_was_here")
    found = {
        "os.system": b"\x80\x04" + call("os", "system", shell),
        "posix.system": b"cposix\nsystem\n(S'id'\ntR.",
        "inst": b"(S'id'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'id'\no.",
        "subprocess": b"\x80\x04" + call("subprocess", "Popen", shell),
        "eval": b"\x80\x04" + call("builtins", "eval", text("__import__('os').getpid()")),
        "exec": b"\x80\x04" + call("builtins", "exec", text("import antigravity")),
        "__import__": b"\x80\x04" + call("builtins", "__import__", text("antigravity")),
        "importlib": b"\x80\x04" + call("importlib", "import_module", text("antigravity")),
        "getattr chain": b"\x80\x04"
        + named("builtins", "getattr")
        + b"("
        + named("builtins", "getattr")
        + b"("
        + named("os", "path")
        + text("__class__")
        + b"tR"
        + text("__subclasses__")
        + b"tR)R.",
        "dotted global": b"\x80\x04" + call("os", "path.os.system", text("id")),
        "setstate": b"\x80\x04"
        + named("builtins", "object")
        + b")\x81}"
        + text("__setstate__")
        + named("os", "system")
        + b"sb"
        + shell
        + b"b.",
        "build on a class": b"\x80\x04"
        + named("os", "environ")
        + b"}"
        + text("A")
        + text("b")
        + b"sb.",
        "build on a list": b"]}" + text("a") + b"K\x01sb.",
        "copyreg": b"\x80\x04"
        + call("copyreg", "add_extension", text("os"), text("system"), b"K\x01"),
        "extension": b"\x82\x01.",
        "persistent id": b"P../../etc/passwd\n.",
        "persistent object": b"K\x01Q.",
        "codecs": b"\x80\x04" + call("_codecs", "encode", text("x"), text("zip_codec")),
        "operator": b"\x80\x04" + call("operator", "attrgetter", text("system")),
        "open": b"\x80\x04"
        + call("builtins", "open", text("/tmp/dbos_notebook_was_here"), text("w")),
        "bytearray bomb": b"\x80\x04"
        + call("builtins", "bytearray", b"\x8a\x06\x00\x00\x00\xff\xff\x00"),
        "range bomb": b"\x80\x04"
        + named("builtins", "list")
        + b"("
        + named("builtins", "range")
        + b"(\x8a\x06\x00\x00\x00\xff\xff\x00tRtR.",
        "bytearray8 bomb": b"\x96" + struct.pack("<Q", 10**12) + b".",
        "text8 bomb": b"\x8d" + struct.pack("<Q", 10**12) + b".",
        "frame bomb": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        "memo bomb": b"Nr\xff\xff\xff\xff0N.",
        "memo line bomb": b"Np99999999999999999999\n.",
        "integer bomb": b"\x8b" + struct.pack("<I", 1 << 30) + b"\xff" * 4000 + b".",
        "digits bomb": b"L" + b"9" * 100_000 + b"L\n.",
        "power bomb": b"\x80\x04" + call("decimal", "Decimal", text("1E+999999999")),
        "fraction bomb": b"\x80\x04" + call("fractions", "Fraction", text("1/" + "9" * 200)),
        "deque bomb": b"\x80\x04"
        + call("collections", "deque", b")", b"\x8a\x06\x00\x00\x00\xff\xff\x00"),
        "laughs": _laughs(60),
        "laughs as key": b"}" + _laughs(60)[:-1] + b"K\x01s.",
        "laughs in a set": b"\x8f(" + _laughs(60)[2:-1] + b"\x90.",
        "laughing lists": b"]q\x00" + b"](h\x00h\x00eq\x00" * 60 + b".",
        "deep tuples": b")" + b"\x85" * 100_000 + b".",
        "deep tuple as key": b"})" + b"\x85" * 100_000 + b"K\x01s.",
        "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "deep dicts": b"}" + b"K\x01}" * 100_000 + b"s" * 100_000 + b".",
        "deep marks": b"(" * 100_000 + b".",
        "deep states": b"cx\ny\n)\x81" * 20_000 + b"b" * 19_999 + b".",
        "alike hashes": b"}("
        + b"".join(
            b"\x8a\x0a" + ((i << 61) - i + 1).to_bytes(10, "little") + b"N" for i in range(50_000)
        )
        + b"u.",
        "many records as keys": b"}("
        + b"".join(b"cx\ny\n(J" + struct.pack("<i", i) + b"tRN" for i in range(20_000))
        + b"u.",
        "many dicts": b"}0" * 400_000 + b"N.",
        "endless": b"N0" * 3_000_000 + b"N.",
        "zone": b"\x80\x04"
        + call("zoneinfo", "ZoneInfo._unpickle", text("../../../etc/passwd"), b"K\x01"),
        "pandas zone": b"\x80\x04"
        + call(
            "pandas._libs.tslibs.timestamps",
            "_unpickle_timestamp",
            b"K\x00",
            b"N",
            text("dateutil//etc/passwd"),
            b"K\n",
        ),
        "pandas instant": b"\x80\x04"
        + call(
            "pandas._libs.tslibs.timestamps", "_unpickle_timestamp", integer, b"N", b"N", b"K\n"
        ),
        "pandas range": b"\x80\x04"
        + _frame_of(
            b"}"
            + text("start")
            + b"K\x00s"
            + text("stop")
            + integer
            + b"s"
            + text("step")
            + b"K\x01s"
        ),
        "tuple in itself": b"(Nt" + b"q\x00" + b"h\x00\x86.",
        "a list in itself": b"]q\x00h\x00a.",
        "graph of cycles": b"("
        + b"".join(b"]q" + bytes([i]) for i in range(40))
        + b"t0"
        + b"".join(
            b"h" + bytes([i]) + b"(" + b"".join(b"h" + bytes([j]) for j in range(40)) + b"e0"
            for i in range(40)
        )
        + b"h\x00.",
        "empty": b"",
        "stop": b".",
        "bad name": b"\x80\x04" + call("os\x1b[2J", "<img src=x onerror=alert(1)>", b"N"),
    }
    found.update(costly())
    found.update(costly_errors())
    try:
        found["shipped class"] = pickle.dumps(random.Random(1))
    except Exception as error:  # noqa: BLE001 - then the list is one shorter, which a test counts
        print(error, file=sys.stderr)
    return found


def harmless() -> list[bytes]:
    """Return good pickles of every protocol, to mutate."""
    import datetime as dt
    import decimal
    import uuid

    value = {
        "id": uuid.UUID(int=7),
        "total": decimal.Decimal("9.50"),
        "when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "lines": [("widget", 2, 1.5, None, True), {"sku": b"\x00\xff", 3: {1, 2}}],
        "error": ValueError("no card", 402),
    }
    return [pickle.dumps(value, protocol) for protocol in range(6)]


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """Make inputs: mutated good and bad pickles, random opcodes, random bytes."""
    rng = random.Random(seed)
    seeds = [*harmless(), *(data for data in harmful().values() if len(data) < 2_000)]
    # The instructions that move names, calls and containers come oftener.
    busy = (
        b"(.0125NKMJGXUVSIcilRobtaesuqrhjpgd]})"
        b"\x80\x81\x82\x85\x86\x87\x88\x8a\x8b\x8c\x8f\x90\x93\x94"
    )
    for _ in range(count):
        kind = rng.random()
        if kind < 0.6:
            data = bytearray(rng.choice(seeds))
            for _ in range(rng.randint(1, 6)):
                place = rng.randrange(len(data) + 1)
                what = rng.random()
                if what < 0.4 and place < len(data):
                    data[place] = rng.randrange(256)
                elif what < 0.6:
                    del data[place : place + rng.randint(1, 8)]
                elif what < 0.9:
                    data[place:place] = bytes(rng.choices(busy, k=rng.randint(1, 4)))
                else:
                    del data[place:]
            yield bytes(data)
        elif kind < 0.9:
            yield bytes(rng.choices(busy, k=rng.randint(1, 120))) + b"."
        else:
            yield rng.randbytes(rng.randint(0, 200))


def main(count: int, seed: int) -> None:
    """Decode everything under watch and print the outcome."""
    from dbos_notebook.payloads import Undecoded, decode

    known = {**harmful(), **{name: build() for name, build in SLOW.items()}}
    corpus = {
        **known,
        **{f"mutation {n}": d for n, d in enumerate(mutations(count, seed))},
    }
    # What Python and pandas load when it is first needed, the list of time zones and the zone UTC,
    # is loaded now.
    for first in (*harmless(), harmful()["zone"], harmful()["pandas' last second of 9999 there"]):
        decode(base64.b64encode(first).decode(), "py_pickle")
    repr(decode(base64.b64encode(harmful()["bad name"]).decode()))
    events: list[str] = []
    watching = False

    def watch(event: str, arguments: object) -> None:
        if watching and event.startswith(WATCHED):
            events.append(f"{event} {arguments!r}"[:200])

    sys.addaudithook(watch)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    slow: dict[str, float] = {}
    kinds: dict[str, int] = {}
    attacks: dict[str, dict[str, object]] = {}
    modules = set(sys.modules)
    for number, (name, data) in enumerate(corpus.items()):
        text = base64.b64encode(data).decode()
        begun = time.process_time()
        watching = True
        value = decode(text, "py_pickle")
        shown = repr(value)
        if name in known:
            reason = value.reason if isinstance(value, Undecoded) else None
            kind = type(value).__name__
            attacks[name] = {"kind": kind, "reason": reason, "length": len(shown)}
        if number < 300 or number % 3 == 0:
            # … and as a recorded error, of which the words are asked for.
            shown += str(getattr(decode(text, "py_pickle", error=True), "message", ""))
        watching = False
        took = time.process_time() - begun
        if took > SECONDS_EACH:
            slow[name] = took
        kind = type(value).__name__ if type(value).__name__ == "Undecoded" else "value"
        kinds[kind] = kinds.get(kind, 0) + 1
        assert isinstance(shown, str)
    new = sorted(set(sys.modules) - modules)
    outcome = {"events": events, "slow": slow, "kinds": kinds, "imported": new, "attacks": attacks}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
