# The two commands of the README are `make simclr` and `make test`; each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALL := $(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help simclr test test-slow bench lint format clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

simclr: $(VENV)/experiments  ## Set up and run the main job: SimCLR on the bundled digits
	$(RUN) -m experiments.simclr

test: $(VENV)/dev  ## Set up and run the tests
	$(RUN) -m pytest -n 2

test-slow: $(VENV)/dev  ## Run the exhaustive grids and long runs as well
	$(RUN) -m pytest -n 2 -m "slow or exhaustive"

bench: $(VENV)/bench  ## Measure the losses beside their peers (two hours)
	$(RUN) -m benchmarks.losses

lint: $(VENV)/dev  ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)

format: $(VENV)/dev  ## Rewrite the code in the project's style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/experiments: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) '.[experiments]'
	@touch $@

$(VENV)/dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) '.[experiments,dev]'
	@touch $@ $(VENV)/experiments

$(VENV)/bench: $(VENV)/dev benchmarks/requirements.txt benchmarks/requirements-nodeps.txt
	$(VENV)/bin/pip install --quiet --requirement benchmarks/requirements.txt
	$(VENV)/bin/pip install --quiet --no-deps --requirement benchmarks/requirements-nodeps.txt
	@touch $@
