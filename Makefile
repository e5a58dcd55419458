# Everything runs from `.venv`, made on first use with the pinned versions of constraints.txt.
# Another interpreter: make demo PYTHON=python3.12. One test file: make test TESTS=tests/test_rule.py.
PYTHON ?= python3
TESTS ?= tests
WORKERS ?= 2
BENCH ?= runs/bench.jsonl
PEERS ?= $(BIN)/python
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo explore test bench notebooks docs check format lint types clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## the paper on the bundled chat model: a table, and a report to open
	$(BIN)/refusal run

explore: .venv/.installed ## a page to play with, on the bundled model
	@$(PIP) -e '.[explorer]'
	$(BIN)/refusal explore

test: .venv/.installed-dev ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

bench: .venv/.installed-dev ## the speed benchmarks, tables here and JSON in BENCH=runs/bench.jsonl (PEERS=python: extract.py says how)
	$(BIN)/python benchmarks/sweep.py --vocabularies 32000 152000 --json $(BENCH)
	$(BIN)/python benchmarks/extract.py --peers $(PEERS) --json $(BENCH)
	$(BIN)/python benchmarks/generate.py --json $(BENCH)
	$(BIN)/python benchmarks/losses.py --json $(BENCH)
	$(BIN)/python benchmarks/scaling.py --json $(BENCH)

notebooks: .venv/.installed-docs ## execute the notebooks of examples/ again, and keep what they show
	$(BIN)/python examples/execute.py

docs: .venv/.installed-docs ## the documentation as a site, to be opened from disk: build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/docs/index.html"

check: format lint types test ## what a change has to pass: format, lint, types, tests

format: .venv/.installed-dev ## is the code formatted? (to format it: .venv/bin/ruff format)
	$(BIN)/ruff format --check

lint: .venv/.installed-dev ## ruff's rules
	$(BIN)/ruff check

types: .venv/.installed-dev ## pyright
	$(BIN)/pyright

clean: ## remove .venv and caches; run folders stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build src/*.egg-info

.venv/.installed: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and $(PYTHON) is %d.%d: give another with PYTHON=..." % sys.version_info[:2])'
	@echo "Installing into .venv (once; torch is the large part) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) -e '.[capabilities]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo "Installing what the tests need ..."
	@$(PIP) -e '.[dev]'
	@touch $@

.venv/.installed-docs: .venv/.installed
	@echo "Installing what the documentation needs ..."
	@$(PIP) -e '.[docs]'
	@touch $@
