"""Run the tests of control and listing beside several versions of dbos, each in its environment.

An environment has dbos and what it needs; everything else comes from the one that runs this, which
makes each a matter of seconds. They stay in .versions until pyproject.toml or a version changes.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".versions"
VERSIONS = ("2.0.0", "2.10.0", "2.20.0", "2.31.1", "3.0.0", "3.4.0")
AT_A_TIME = 2


def python_of(version: str) -> Path:
    """Make the environment of a version, unless it is there, and return its interpreter."""
    place = ENVIRONMENTS / f"{version}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = place / "bin" / "python"
    ready = place / "ready"
    if ready.exists():
        return python
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, symlinks=True)
    wanted = [f"dbos=={version}", "psycopg[binary]"]
    if uv := shutil.which("uv"):
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        install += ["--disable-pip-version-check", "--no-compile"]
    subprocess.run([*install, *wanted], check=True)
    # Its own packages come first in the path, then those of this environment.
    variables = {"base": str(place), "platbase": str(place)}
    packages = Path(sysconfig.get_path("purelib", vars=variables))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    ready.touch()
    return python


def run(version: str) -> tuple[str, int, str, float]:
    """Run the tests with a version: return it, the exit status, the output and the seconds."""
    began = time.monotonic()
    python = python_of(version)
    done = subprocess.run(
        [
            str(python),
            *("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", "addopts="),
            "tests/versions",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EXPECTED_DBOS": version},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return version, done.returncode, done.stdout, time.monotonic() - began


def main() -> int:
    """Run all versions, or those that are named; return 1 if one has failed."""
    wanted = sys.argv[1:] or VERSIONS
    failed = False
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for version, status, output, seconds in pool.map(run, wanted):
            last = (output.strip().splitlines() or ["no output"])[-1]
            print(f"dbos {version}: {last} ({seconds:.0f} s with its environment)", flush=True)
            if status != 0:
                failed = True
                print(output, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
