"""``make demo``: run the demo on SQLite, execute the notebooks on it, and write HTML pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dbos_notebook.server.cli import main as run_command

DATABASE = Path("build/demo.sqlite")
NOTEBOOKS = [
    Path("notebooks") / f"{name}.ipynb"
    for name in (
        "quickstart",
        "investigate_a_failure",
        "fork_from_a_step",
        "repair_an_incident",
        "fleet_analysis",
        "morning_check",
    )
]


def main() -> int:
    """Write the pages; on a terminal with a display, open JupyterLab. Return the exit status."""
    DATABASE.parent.mkdir(exist_ok=True)
    for suffix in ("", "-wal", "-shm"):
        DATABASE.with_name(DATABASE.name + suffix).unlink(missing_ok=True)
    if status := run_command(["demo", "--database", str(DATABASE)]):
        return status
    os.environ["DBOS_SYSTEM_DATABASE_URL"] = f"sqlite:///{DATABASE.absolute()}"
    for notebook in NOTEBOOKS:
        page = DATABASE.with_name(f"{notebook.stem}.html")
        page.write_text(execute_notebook(notebook), encoding="utf-8")
        print(page.absolute())
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    interactive = sys.stdout.isatty() and (display or sys.platform in ("darwin", "win32"))
    scripts = str(Path(sys.executable).parent)
    if interactive and not os.environ.get("CI") and shutil.which("jupyter-lab", path=scripts):
        return subprocess.call([sys.executable, "-m", "jupyterlab", str(NOTEBOOKS[0])])  # noqa: S603
    return 0


def execute_notebook(path: Path) -> str:
    """Execute a notebook in a kernel of this environment; return it as HTML."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    read: Any = nbformat.read  # without type hints
    exporter: Any = HTMLExporter
    notebook = read(path, as_version=4)
    # Without the user's own kernels: a "python3" installed there may be another environment.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_spec_manager=specs, kernel_name="python3")
    if sys.platform != "win32":
        manager.transport = "ipc"  # opens no port
    client = NotebookClient(notebook, km=manager, timeout=300)
    client.owns_km = True  # so that it stops the kernel
    client.execute()
    # A page has no kernel: each view shows its static HTML.
    notebook.metadata.pop("widgets", None)
    body, _ = exporter().from_notebook_node(notebook)
    return str(body)


if __name__ == "__main__":
    sys.exit(main())
