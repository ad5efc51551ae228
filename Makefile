# make demo     the jokes story on the shipped sample; the checkout itself is its home
# make check    lint, and the tests that need neither a server nor an engine: minutes
# make test     lint, and all tests: docs/testing.md
# make mutation how many small faults the tests notice: docs/testing.md
# make soak     kills everything at random moments, for some 20 minutes: docs/reliability.md
# make bench    the table of docs/benchmarks.md
#
# TORCH is the requirement of the jobs' torch; for a CPU-only wheel from your own folder, set
# pip's find-links and say for example: make demo TORCH=torch==2.9.0

# BASE_IMAGE is the base image of the demo's containers, if a Docker engine answers; tests/engine/up makes one
# without any registry: make demo BASE_IMAGE=spell-test-base:bookworm

# SOAK are options of the random-fault run: make soak SOAK="--kills 100 --seed 7"

PYTHON ?= python3
TORCH ?= torch
BASE_IMAGE ?= python:{version}-slim
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests that share a server stay in one worker (tests/kinds.py).
WORKERS ?= logical
PARALLEL := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

SPELL := SPELL_HOME="$(CURDIR)" "$(CURDIR)/$(BIN)/spell"

.PHONY: demo check test lint mutation soak bench clean

demo: $(READY) config.toml
	@echo 'Follow the training from another terminal, once it runs:'
	@echo '    $(SPELL) logs -f jokes-finetune'
	@echo '    $(SPELL) metrics -f jokes-finetune held_out_perplexity'
	@echo
	@$(SPELL) workflow run --force jobs/jokes/chain.yaml
	@echo
	@$(SPELL) metrics jokes-finetune held_out_perplexity
	@echo
	@$(SPELL) cat runs/jokes-generate/jokes.txt
	@echo
	@$(SPELL) ps
	@echo
	@echo 'Their outputs are in runs/. Look further with (after: export SPELL_HOME="$(CURDIR)" PATH="$(CURDIR)/$(BIN):$$PATH")'
	@echo '    spell info latest    spell logs latest~1    spell metrics latest~1    spell cat runs/latest/jokes.txt'

check: lint
	$(BIN)/python -m pytest $(PARALLEL) -m unit

test: lint
	TORCH="$(TORCH)" $(BIN)/python -m pytest $(PARALLEL) --durations=20

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutation: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[mutation]'
	nice $(BIN)/python -m benchmarks.mutation

soak: $(READY)
	$(BIN)/python -m soak $(SOAK)

bench: $(READY)
	TORCH="$(TORCH)" $(BIN)/python -m benchmarks

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m compileall -q $(VENV) orchestrator
	touch $@

# The configuration of the demo's home, which is the checkout. Yours to edit; made once.
config.toml:
	printf '[frameworks]\npytorch = ["%s"]\ntransformers = ["%s", "transformers>=4.45,<6"]\n' '$(TORCH)' '$(TORCH)' > $@
	printf '[docker]\nbase_image = "%s"\ngpu_base_image = "%s"\n' '$(BASE_IMAGE)' '$(BASE_IMAGE)' >> $@

clean:
	-$(SPELL) server stop
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
