"""Ctrl-C during the first call, which imports; the next calls work as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from dbos_notebook.imports import WholeImports

CONNECT = "len(dn.connect(path).workflows())"
FORK = "dn.connect(path).fork('checkout-1', 1, key='once').counts['failed']"
GRAPH = "dn.connect(path).graph('checkout-1').number_of_nodes()"
CARD = "dn.connect(path)._repr_html_()"
VIEW = "dn.connect(path).open()"

# The first call is interrupted when a module begins to be imported, or after a number of seconds.
PROGRAM = """
import os, signal, sys, threading, time
import dbos_notebook as dn
path, call, moment, prepare = sys.argv[1:]
if prepare:
    eval(prepare)
pressed = []

def press():
    pressed.append(True)
    os.kill(os.getpid(), signal.SIGINT)

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == moment and not pressed:
            press()

if moment[0].isdigit():
    threading.Timer(float(moment), press).start()
else:
    sys.meta_path.insert(0, Watch())
try:
    eval(call)
    time.sleep(5)
except (KeyboardInterrupt, dn.ControlInterrupt):
    pass
else:
    sys.exit("was not interrupted")
assert pressed
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
first = eval(call)
second = eval(call)
print(len(dn.connect(path).workflows()) > 0, str(first)[:30] == str(second)[:30])
"""


@pytest.mark.parametrize(
    ("call", "moment", "prepare"),
    [
        (CONNECT, "0.02", ""),
        (CONNECT, "0.1", ""),
        (CONNECT, "0.3", ""),
        (CONNECT, "numpy.lib", ""),
        (CONNECT, "pyarrow.compute", ""),
        (CONNECT, "pandas.core.frame", ""),
        (CONNECT, "sqlalchemy.sql.selectable", ""),
        (FORK, "0.02", CONNECT),
        (FORK, "0.05", CONNECT),
        (FORK, "0.17", CONNECT),
        (FORK, "psycopg.cursor", CONNECT),
        (FORK, "dbos._sys_db", CONNECT),
        (GRAPH, "networkx.classes.digraph", CONNECT),
        (CARD, "jinja2.lexer", CONNECT),
        (VIEW, "traitlets.traitlets", CONNECT),
    ],
)
def test_the_call_after_an_interrupted_first_call_works(
    corpus_sqlite: Callable[[str], Path], call: str, moment: str, prepare: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(corpus_sqlite("3.4.0")), call, moment, prepare],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr[-2000:]


@pytest.fixture
def handler() -> Iterator[list[int]]:
    """The signals that a handler of the program's own received."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGINT, receive)
    yield received
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_each_ctrl_c_reaches_the_programs_own_handler_afterwards(handler: list[int]) -> None:
    own = signal.getsignal(signal.SIGINT)
    with WholeImports():
        with WholeImports():
            press_ctrl_c()
        press_ctrl_c()
        assert handler == []
    assert handler == [signal.SIGINT] * 2
    assert signal.getsignal(signal.SIGINT) is own


def test_the_third_ctrl_c_interrupts_an_import_that_hangs() -> None:
    done: list[str] = []

    def hang() -> None:
        with WholeImports():
            for number in ("first", "second", "third"):
                press_ctrl_c()
                done.append(number)

    with pytest.raises(KeyboardInterrupt):
        hang()
    assert done == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failed_import_raises_its_error_and_restores_the_handler() -> None:
    with pytest.raises(ModuleNotFoundError), WholeImports():
        import module_that_does_not_exist  # type: ignore[import-not-found]  # noqa: F401
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_ignored_signals_are_left_alone() -> None:
    seen: list[object] = []

    def load() -> None:
        with WholeImports():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        load()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.default_int_handler, signal.SIG_IGN]
