# Every target does its own set-up: a virtual environment in .venv, exact versions from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
BIOME := @biomejs/biome@2.6.8
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint types bench clean help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(VENV)/.plain  ## train two networks, scan their loss surfaces, draw them
	$(BIN)/landscope demo --out $(DEMO)

# A process for each core, each with one thread; a file's tests stay together, for they share fixtures.
test: $(VENV)/.dev  ## run all tests, with line coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --cov --cov-report=term

# Biome checks the page's JavaScript and CSS (biome.jsonc). Without Node.js only CI fails.
lint: $(VENV)/.dev  ## check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@if command -v npx >/dev/null; then npx --yes $(BIOME) ci --error-on-warnings --colors=off; \
	else echo "The page's JavaScript and CSS were not checked: install Node.js 20 or newer (npx)."; \
		test -z "$$CI"; fi

types: $(VENV)/.dev  ## check types
	$(BIN)/mypy

bench: $(VENV)/.dev  ## measure what surfaces cost; on a quiet machine, about half an hour
	$(PIP) --no-deps $$(grep '^loss-landscapes==' constraints.txt)
	$(BIN)/python -m benchmarks.surfaces
	$(BIN)/python -m benchmarks.large
	$(BIN)/python -m benchmarks.estimates
	$(BIN)/python -m benchmarks.curvature digits_resnet8
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.principal
	$(BIN)/python -m benchmarks.recording

clean:  ## remove what the other targets made
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "landscope needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch first and by its exact version: a range would bring the newest one with all of CUDA.
$(VENV)/.plain: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing landscope into $(VENV) (about a minute)"
	$(PIP) $$(grep '^torch==' constraints.txt)
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.plain
	$(PIP) -e '.[dev]'
	touch $@
