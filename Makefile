# Every target does its own set-up; `make` alone lists them.
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
DEMO_DATA := data/demo
DEMO_RUN := runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: .venv/.installed ## make .venv/ with the tested versions; abaw is then .venv/bin/abaw

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "abaw needs Python 3.11 or newer, but $(PYTHON) is older: make setup PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup $(DEMO_DATA) ## generate data, train on two CPU cores, and show the official scores beside two baselines
	rm -rf $(DEMO_RUN)
	$(BIN)/abaw fit --config configs/demo.yaml --run $(DEMO_RUN) --data.root $(DEMO_DATA)
	# BASELINES: best constant per task, and the same checkpoint given windows of one frame

$(DEMO_DATA): | .venv/.installed
	$(BIN)/abaw synth $@

test: setup ## the tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile

test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: setup ## formatting, style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

clean: ## remove the environment, the caches and the demo; other runs stay
	rm -rf .venv $(DEMO_DATA) $(DEMO_RUN) build dist *.egg-info \
		.pytest_cache .ruff_cache .mypy_cache .hypothesis
	find abaw tests -name __pycache__ -prune -exec rm -rf {} +
