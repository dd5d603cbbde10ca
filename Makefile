# Each target sets up what it needs by itself: a virtual environment in .venv, made with uv where
# it is installed and with Python's own venv and pip where it is not.

# The newest Python, but rather an older one than one whose SQLite is too old for dbos there.
python_with = $(firstword $(foreach v,3.13 3.12 3.11 3 ,$(shell command -v python$(v) >/dev/null 2>&1 && python$(v) -c 'import sys; $(1)' >/dev/null 2>&1 && echo python$(v))))
NEW_ENOUGH := assert sys.version_info >= (3, 11)
SUITS_DBOS := import ensurepip, sqlite3, venv; assert sys.version_info < (3, 12) or sqlite3.sqlite_version_info >= (3, 42)
PYTHON ?= $(or $(call python_with,$(NEW_ENOUGH); $(SUITS_DBOS)),$(call python_with,$(NEW_ENOUGH)))
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin
READY := .venv/.ready
SIZE ?= full
# One worker more than processors, because many tests wait for a server or a browser.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 1)
# T is the name of a package, for its tests and its doctests, or a path.
TESTS = $(or $(wildcard tests/$(T) tests/test_$(T).py dbos_notebook/$(T) dbos_notebook/$(T).py),$(if $(wildcard $(firstword $(subst ::, ,$(T)))),$(T)))

# Workers, kernels and executors import the package dozens of times; each would compile it anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test lab bench docs check screenshots lowest versions clean

help: ## Show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(READY) ## Run a real DBOS application on SQLite, then the quickstart notebook on it
	$(BIN)/python -m dbos_notebook.server.demo_pages

test: export DBOS_NOTEBOOK_NIGHTLY := $(or $(NIGHTLY),$(DBOS_NOTEBOOK_NIGHTLY))
test: $(if $(T),$(READY),check) ## Run lint, types, and every test (doctests too); T=graphs: one package, T=tests/test_client.py: a path; NIGHTLY=1: many more random examples
	$(BIN)/python scripts/system_packages.py
	$(BIN)/python -m pytest $(if $(DBOS_NOTEBOOK_NIGHTLY),-o faulthandler_timeout=0) -n $(if $(findstring .py,$(T)),0,$(JOBS)) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(if $(T),$(or $(TESTS),$(error T=$(T) is no path and no package)))

check: $(READY) ## Run lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_javascript.py

lab: $(READY) ## Open JupyterLab on the notebooks, with the demo database where it is
	$(if $(DBOS_SYSTEM_DATABASE_URL),,$(if $(wildcard build/demo.sqlite),DBOS_SYSTEM_DATABASE_URL=sqlite:///$(CURDIR)/build/demo.sqlite)) \
	$(BIN)/jupyter lab notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

bench: $(READY) ## Measure against DBOSClient and raw COPY; SIZE=small in two minutes, without browser and application
	$(BIN)/python scripts/system_packages.py chromium
	$(BIN)/python -m benchmarks $(SIZE)

docs: $(READY) ## Build the documentation into build/docs; executes its pages if the package changed
	rm -rf build/docs docs/reference/generated
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --doctree-dir build/doctrees docs build/docs
	@echo "build/docs/index.html"

screenshots: $(READY) ## Take the widgets' pictures in docs/screenshots, in a real JupyterLab
	$(BIN)/python scripts/system_packages.py chromium font
	$(BIN)/python scripts/screenshots.py

lowest: $(READY) ## Run the reading tests on the lowest versions that pyproject.toml allows
	$(BIN)/python scripts/system_packages.py pgbouncer
	$(BIN)/python scripts/lowest.py

versions: $(READY) ## Test control and listing beside each of several dbos versions, 2.0 to 3.4
	$(BIN)/python scripts/versions.py

clean: ## Remove the environment and everything built
	rm -rf .venv build docs/reference/generated scripts/js/node_modules .lowest .versions .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find dbos_notebook tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml
ifeq ($(strip $(PYTHON)),)
	@echo "No Python 3.11 or later was found. Install one, or: make PYTHON=/path/to/python" >&2; exit 1
endif
ifneq ($(UV),)
	uv venv --quiet --allow-existing --python $(PYTHON) .venv
	uv pip install --quiet --python $(BIN)/python -e '.[test,docs]'
else
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) has no venv: install it (Debian: apt-get install python3-venv), or install uv." >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,docs]'
endif
	@touch $(READY)
