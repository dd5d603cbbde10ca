"""Jupyter kernels that are forked from a process in which pandas, DBOS and IPython are imported.

A kernel that starts by itself needs two seconds of a processor for these imports, and the tests
start dozens. ``dbos_notebook`` and ipywidgets are not among the imports: each kernel imports them
itself, as a person's does. The tests of the dashboard and of the notebooks start ordinary kernels.

Jupyter starts this file as the kernel's process, without any import of a package. It sends the
connection file to the forking process through a socket, and lives as long as the kernel does: if
one ends, the socket closes, and the other ends too.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMPORTS = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "pandas",
    "pyarrow",
    "networkx",
    "jinja2",
    "psycopg",
    "sqlalchemy",
    "dbos",
)


@contextmanager
def forked_kernels(environment: dict[str, str], log: Path) -> Iterator[dict[str, str]]:
    """Fork the kernel named python3 of a Jupyter server; yield the server's environment.

    Parameters
    ----------
    environment
        The environment that the server would have; kernels have it too.
    log
        The file to which kernels write what is not the output of a cell.
    """
    with tempfile.TemporaryDirectory(prefix="dnkn") as name:
        directory = Path(name)
        address = directory / "socket"  # in a short path: the names of sockets are limited
        kernel = directory / "kernels" / "python3"
        kernel.mkdir(parents=True)
        command = [sys.executable, "-I", "-S", __file__]
        specification = {
            "argv": [*command, str(address), "{connection_file}"],
            "display_name": "Python 3",
            "language": "python",
            "interrupt_mode": "message",
        }
        (kernel / "kernel.json").write_text(json.dumps(specification))
        with socket.socket(socket.AF_UNIX) as listener, log.open("wb") as output:
            listener.bind(str(address))
            listener.listen()
            process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                # A kernel whose parent is process 1 does not end because its parent changes.
                env=environment | {"JPY_PARENT_PID": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
            )
        try:
            yield environment | {"JUPYTER_PATH": str(directory)}
        finally:
            process.terminate()
            process.wait(10)


def fork_kernels(listener: socket.socket) -> None:
    """Import what kernels import, then fork one for each connection, until a signal."""
    sys.path.pop(0)  # the directory of this file
    for name in IMPORTS:
        __import__(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the kernels
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return run_kernel(connection)
        connection.close()


def run_kernel(connection: socket.socket) -> None:
    """Run a kernel in this process until it or the process that asked for it ends."""
    from ipykernel.kernelapp import IPKernelApp

    request = json.loads(connection.makefile().readline())
    os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])

    def end_with_the_other() -> None:
        connection.recv(1)
        os._exit(0)

    threading.Thread(target=end_with_the_other, daemon=True).start()
    IPKernelApp.launch_instance(argv=["-f", request["file"]])


def ask_for_kernel(address: str, file: str) -> None:
    """Ask for a kernel and wait until it ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = {"file": file, "directory": os.getcwd(), "environment": dict(os.environ)}
        connection.sendall(json.dumps(request).encode() + b"\n")
        connection.recv(1)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        fork_kernels(socket.socket(fileno=int(sys.argv[1])))
    else:
        ask_for_kernel(*sys.argv[1:])
