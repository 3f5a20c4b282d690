# One word per wish. `make` alone lists them.
# Needs Python 3.11 or newer with venv and pip; everything else is installed into $(VENV).

PYTHON ?= python3
VENV   ?= .venv
PROMPT ?= a red rocket, 3d style
OUT    ?= out

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check
export PROMPT

.DEFAULT_GOAL := help
.PHONY: help picture test lint clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The two environments are stamped, so that a second call costs nothing.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing unclip into $(VENV) ..." >&2
	@$(PIP) install --quiet -c constraints.txt --editable . >&2
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "Installing the development tools into $(VENV) ..." >&2
	@$(PIP) install --quiet "pip>=25.1" >&2
	@$(PIP) install --quiet -c constraints.txt --editable ".[data]" --group dev >&2
	@touch $@

picture: $(VENV)/.runtime  ## draw PROMPT="..." with the bundled model and print the file's path
	@$(BIN)/unclip generate "$$PROMPT" -o $(OUT)/

lint: $(VENV)/.dev  ## style, formatting, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

test: lint  ## everything that CI checks: lint, then the tests
	$(BIN)/python -m pytest

clean:  ## remove the environment, caches and results
	rm -rf $(VENV) $(OUT) .pytest_cache .ruff_cache .import_linter_cache build dist
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
