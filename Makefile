# Every target sets up its environment; `make` alone lists the targets.
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
DEMO_DATA := data/demo
DEMO_RUN := runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo ablation bench docs test test-slow lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: .venv/.installed ## create .venv/ with the tested versions; abaw is then .venv/bin/abaw

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "abaw needs Python 3.11 or newer, but $(PYTHON) is older: make setup PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup $(DEMO_DATA) ## generate data, train on two CPU cores, and show the official scores beside two baselines
	$(BIN)/abaw fit --config configs/demo.yaml --run $(DEMO_RUN) --data.root $(DEMO_DATA) --ckpt_path last
	$(BIN)/abaw predict --config configs/demo.yaml --run $(DEMO_RUN) --data.root $(DEMO_DATA)
	@echo "The same checkpoint, given windows of one frame:"
	$(BIN)/abaw predict --config configs/demo.yaml --run $(DEMO_RUN)-one-frame --data.root $(DEMO_DATA) \
		--ckpt_path $(DEMO_RUN)/checkpoints/best.ckpt \
		--data.evaluation.window 1 --data.evaluation.stride 1 --data.evaluation.batch_size 64
	$(BIN)/abaw score $(DEMO_RUN)/tracks $(DEMO_DATA) --against $(DEMO_RUN)-one-frame/tracks
	@echo
	@echo "CCC (valence-arousal) and F1 (expressions, action units) are 1 for perfect predictions; the best constant"
	@echo "prediction has CCC 0. The second comparison is what the sequence adds to single frames. The intervals are"
	@echo "wide because few people are scored. The faces are drawn by code: the numbers say that training works, not"
	@echo "how good the method is on real faces."
	$(BIN)/abaw report $(DEMO_RUN)
	@echo "The run is $(DEMO_RUN); make demo again continues or shows it, make clean removes it. Next: README.md."

$(DEMO_DATA): | .venv/.installed
	$(BIN)/abaw synth $@ --preset demo --videos 80 --frames 150

ablation: setup $(DEMO_RUN)/checkpoints/best.ckpt ## train every row of docs/ablation.md three times; resumes where it stopped
	OMP_NUM_THREADS=1 $(BIN)/python docs/ablation.py

$(DEMO_RUN)/checkpoints/best.ckpt:
	$(MAKE) demo

bench: setup ## measure docs/benchmarks.md again: a quarter of an hour on an idle machine
	$(BIN)/python -m benchmarks

docs: setup ## build the documentation in docs/_build/html/; warnings are errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

test: setup ## run the fast tests in random order; ARGS=--randomly-seed=N repeats an order
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

test-slow: setup ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: setup ## check formatting, style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

clean: ## remove the environment, the caches and the demo; keeps other runs
	rm -rf .venv $(DEMO_DATA) $(DEMO_RUN) $(DEMO_RUN)-one-frame build dist *.egg-info \
		.pytest_cache .ruff_cache .mypy_cache .hypothesis
	find abaw tests -name __pycache__ -prune -exec rm -rf {} +
