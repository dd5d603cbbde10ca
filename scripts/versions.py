"""Run the tests of control and listing with several versions of dbos, each in its own environment.

An environment contains dbos and its dependencies. All other packages come from the environment that
runs this script, so that creating one takes seconds. They are kept in .versions.
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
CONCURRENCY = 2


def install(version: str) -> Path:
    """Create the environment of a version unless it exists; return its interpreter."""
    directory = ENVIRONMENTS / f"{version}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = directory / "bin" / "python"
    ready = directory / "ready"
    if ready.exists():
        return python
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, symlinks=True)
    requirements = [f"dbos=={version}", "psycopg[binary]"]
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        command += ["--disable-pip-version-check", "--no-compile"]
    subprocess.run([*command, *requirements], check=True)
    # Its packages come first in the path, then those of the running environment.
    variables = {"base": str(directory), "platbase": str(directory)}
    packages = Path(sysconfig.get_path("purelib", vars=variables))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    ready.touch()
    return python


def run(version: str) -> tuple[str, int, str, float]:
    """Run the tests with a version; return it, the exit status, the output and the seconds."""
    started = time.monotonic()
    python = install(version)
    process = subprocess.run(
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
    return version, process.returncode, process.stdout, time.monotonic() - started


def main() -> int:
    """Test all versions, or those given as arguments; return 1 if one fails."""
    versions = sys.argv[1:] or VERSIONS
    failed = False
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for version, status, output, seconds in pool.map(run, versions):
            last = (output.strip().splitlines() or ["no output"])[-1]
            print(f"dbos {version}: {last} ({seconds:.0f} s including its environment)", flush=True)
            if status != 0:
                failed = True
                print(output, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
