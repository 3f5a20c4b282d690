# One word per wish; `make` alone lists them. Python 3.11 or newer with venv and pip must be there (and npm for the
# artwork data set); everything else is installed into $(VENV).

PYTHON ?= python3
VENV   ?= .venv
PROMPT ?= a red rocket, 3d style
OUT    ?= out
DATA   ?= data/artwork
RUNS   ?= runs/artwork
RECIPE ?= artwork
FIGURE ?=
REPORT ?= $(RUNS)/report.json

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check
RUN  := $(BIN)/unclip
export PROMPT

.DEFAULT_GOAL := help
.PHONY: help picture data model figures plots docs lint test clean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The environments are stamped, so that a second call costs nothing.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing unclip into $(VENV) ..." >&2
	@$(PIP) install --quiet -c constraints.txt --editable . >&2
	@touch $@

$(VENV)/.data: $(VENV)/.runtime
	@$(PIP) install --quiet -c constraints.txt --editable ".[data]" >&2
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "Installing the development tools into $(VENV) ..." >&2
	@$(PIP) install --quiet "pip>=25.1" >&2
	@$(PIP) install --quiet -c constraints.txt --editable ".[data]" --group dev >&2
	@touch $@

picture: $(VENV)/.runtime  ## draw PROMPT="..." with the bundled model and print the file's path
	@$(RUN) generate "$$PROMPT" -o $(OUT)/

# The whole chain of the bundled model. Each run goes on where it was stopped, and a finished one is left alone.
artwork/node_modules: artwork/package-lock.json
	npm ci --prefix artwork --no-audit --no-fund
	@touch $@

$(DATA)/artwork.json: $(VENV)/.data artwork/node_modules
	$(RUN) data artwork $(DATA)

data: $(DATA)/artwork.json  ## build the artwork data set

# Shards that are there already are taken as they are: then neither npm nor a network is needed.
model: $(if $(wildcard $(DATA)/artwork.json),$(VENV)/.runtime,$(DATA)/artwork.json)  ## train every stage on the artwork data set, pack the model and measure it; BUDGET=25m
	$(RUN) train all --recipe $(RECIPE) --data $(DATA) --out $(RUNS) $(if $(BUDGET),--budget $(BUDGET))

figures: $(VENV)/.runtime  ## make the figures of docs/figures.md that are not up to date; FIGURE="diffs edits", FORCE=1
	$(BIN)/python docs/figures.py $(FIGURE) $(if $(FORCE),--force)

plots: $(VENV)/.runtime  ## turn a report of `unclip evaluate` into docs/evaluation.md; REPORT=report.json
	@$(PIP) install --quiet "pip>=25.1" >&2
	@$(PIP) install --quiet -c constraints.txt --group docs >&2
	$(BIN)/python docs/plots.py $(REPORT)

docs: $(VENV)/.dev  ## build the documentation site and print the path of its first page
	@$(BIN)/python docs/build_site.py

lint: $(VENV)/.dev  ## style, formatting, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

test: lint  ## everything that CI checks: lint, then the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

clean:  ## remove the environment, caches and pictures; data sets and runs stay
	rm -rf $(VENV) $(OUT) .pytest_cache .ruff_cache .import_linter_cache build dist
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
