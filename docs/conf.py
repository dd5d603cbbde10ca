"""Sphinx configuration of the documentation; ``make docs`` builds it into build/docs.

Notebooks and task pages are executed on a database that the demo application writes. Their
outputs are cached in build/executed, by page and by the state of the package, so that a build
after a change to prose takes seconds and no output outlives the code that made it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]

import dbos_notebook  # noqa: E402
from dbos_notebook import demo  # noqa: E402


def _digest() -> str:
    """Return a hash of the package's files."""
    sha = hashlib.sha256()
    for path in sorted((ROOT / "dbos_notebook").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            sha.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return sha.hexdigest()[:16]


EXECUTED = ROOT / "build" / "executed" / _digest()
DATABASE = EXECUTED / "demo.sqlite"
# The pages ask for the failures of the last 24 hours.
OLDEST = 20 * 60 * 60  # seconds

project = "dbos_notebook"
author = "dbos_notebook contributors"
version = release = dbos_notebook.__version__
extensions = [
    "check_pages",
    "columns",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_kernel", "_templates", "**/.ipynb_checkpoints"]
nitpicky = False

# Markdown and notebooks.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(EXECUTED / "cache")
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_execution_show_tb = True
# Widgets need a kernel; each of them leaves HTML for pages without one. Its JavaScript would come
# from a CDN.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type"]

# The reference.
autosummary_generate = True
templates_path = ["_templates"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
maximum_signature_line_length = 88
numpydoc_show_class_members = False
add_module_names = False

# Pages: nothing is loaded from elsewhere.
html_theme = "pydata_sphinx_theme"
html_title = "dbos_notebook"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "dbos_notebook"},
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 7,
}
html_sidebars = {"index": [], "gallery": []}
copyright = "dbos_notebook contributors, MIT licence"  # noqa: A001 - Sphinx's name
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _prepare_database(*_: object) -> None:
    """Write the demo's database unless a recent one is there, and name it to the kernels."""
    if not DATABASE.exists() or time.time() - DATABASE.stat().st_ctime > OLDEST:
        shutil.rmtree(EXECUTED.parent, ignore_errors=True)
        EXECUTED.mkdir(parents=True)
        unfinished = EXECUTED / "unfinished.sqlite"
        demo.run(f"sqlite:///{unfinished}", workflows=200, history=6_000)
        unfinished.rename(DATABASE)
    os.environ["DBOS_NOTEBOOK_DOCS_DATABASE"] = str(DATABASE)
    # Kernels start with this profile and not with the user's own.
    profile = EXECUTED / "ipython"
    shutil.copytree(Path(__file__).parent / "_kernel", profile, dirs_exist_ok=True)
    os.environ["IPYTHONDIR"] = str(profile)
    # Kernels import the package of this checkout.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def _show_implementations(_: Sphinx) -> None:
    """Drop the overloads of Client, so that its pages show the signatures with every option."""
    analyzer = ModuleAnalyzer.for_module("dbos_notebook.client")
    analyzer.analyze()
    analyzer.overloads.clear()


def setup(app: Sphinx) -> None:
    """Register the steps that run before the pages are read."""
    app.connect("config-inited", _prepare_database)
    app.connect("builder-inited", _show_implementations)
