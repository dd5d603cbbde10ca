"""Give the kernel of an executed page a directory with a copy of the demo's database.

IPython runs this file when a kernel starts. A page can then fork and repair workflows and write
files without changing what the other pages show.
"""

import atexit
import os
import shutil
import tempfile

_directory = tempfile.mkdtemp(prefix="dbos_notebook_docs_")
atexit.register(shutil.rmtree, _directory, ignore_errors=True)
shutil.copyfile(
    os.environ["DBOS_NOTEBOOK_DOCS_DATABASE"], os.path.join(_directory, "dbos_demo.sqlite")
)
os.chdir(_directory)  # so that outputs show a short path
os.environ["DBOS_SYSTEM_DATABASE_URL"] = "sqlite:///dbos_demo.sqlite"
