# make demo     the jokes story on the shipped sample; the checkout itself is its home
# make test     lint, then all tests
# make bench    the table of docs/benchmarks.md
#
# TORCH is the requirement that the jobs' torch is installed by; for a CPU-only wheel from a folder of your own, set
# pip's find-links and say for example: make demo TORCH=torch==2.9.0

PYTHON ?= python3
TORCH ?= torch
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench clean

demo: $(READY)
	TORCH="$(TORCH)" $(BIN)/python jobs/demo.py

test: lint
	TORCH="$(TORCH)" $(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	TORCH="$(TORCH)" $(BIN)/python -m benchmarks

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m compileall -q $(VENV) orchestrator
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
