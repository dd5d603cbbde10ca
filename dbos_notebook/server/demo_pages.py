"""``make demo``: the shop on SQLite, the notebooks run on it, and their HTML pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dbos_notebook.server.cli import main as command

DATABASE = Path("build/demo.sqlite")
NOTEBOOK = Path("notebooks/quickstart.ipynb")
FOLDER = Path("build")
PAGES = (
    NOTEBOOK,
    Path("notebooks/investigate_a_failure.ipynb"),
    Path("notebooks/fork_from_a_step.ipynb"),
    Path("notebooks/repair_an_incident.ipynb"),
)


def main() -> int:
    """Make the pages; on a terminal with a display, open JupyterLab. Return the exit status."""
    FOLDER.mkdir(exist_ok=True)
    for suffix in ("", "-wal", "-shm"):
        DATABASE.with_name(DATABASE.name + suffix).unlink(missing_ok=True)
    if status := command(["demo", "--database", str(DATABASE)]):
        return status
    os.environ["DBOS_SYSTEM_DATABASE_URL"] = f"sqlite:///{DATABASE.absolute()}"
    for notebook in PAGES:
        page = FOLDER / notebook.with_suffix(".html").name
        page.write_text(executed(notebook), encoding="utf-8")
        print(page.absolute())
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    seen = sys.stdout.isatty() and (display or sys.platform in ("darwin", "win32"))
    if seen and not os.environ.get("CI") and shutil.which("jupyter-lab", path=_scripts()):
        return subprocess.call([sys.executable, "-m", "jupyterlab", str(NOTEBOOK)])  # noqa: S603
    return 0


def _scripts() -> str:
    return str(Path(sys.executable).parent)


def executed(path: Path) -> str:
    """Run a notebook in a kernel of this very environment and return it as HTML."""
    from typing import Any, cast

    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    # These two come without types.
    notebook = cast(Any, nbformat).read(path, as_version=4)
    # Without the user's own kernels: a "python3" installed there may be another environment.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_spec_manager=specs, kernel_name="python3")
    if sys.platform != "win32":
        manager.transport = "ipc"  # nothing listens on a port
    client = NotebookClient(notebook, km=manager, timeout=300)
    client.owns_km = True  # so that it ends the kernel
    client.execute()
    # A page has no kernel: each widget shows what it left to be read without one.
    notebook.metadata.pop("widgets", None)
    body, _ = cast(Any, HTMLExporter)().from_notebook_node(notebook)
    return str(body)


if __name__ == "__main__":
    sys.exit(main())
