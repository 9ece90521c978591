# `make demo` and `make test` work from a fresh clone: they create .venv and install into it by themselves.

PYTHON ?= python3
# `make test CONSTRAINTS=` installs the newest releases instead of the pinned ones.
CONSTRAINTS ?= -c constraints.txt
# Test processes; 0 runs the tests in one process (for a debugger). PYTEST_ARGS is handed on to pytest.
WORKERS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format clean distclean

help:
	@echo "make demo       train a small language model on a bundled task (offline)"
	@echo "make test       lint, type check, run the tests (offline)"
	@echo "make lint       only ruff and mypy"
	@echo "make format     apply ruff's fixes and formatting"
	@echo "make clean      remove caches, builds and the demo's output"
	@echo "make distclean  also remove $(VENV)"

install: $(STAMP)

# Runs again only when pyproject.toml or constraints.txt changes: the install is editable, so that code needs none.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off $(CONSTRAINTS) -e ".[agents,dev]"
	@touch $@

demo: $(STAMP)
	rm -rf runs/demo
	HF_HUB_OFFLINE=1 $(BIN)/textgym train TextGen-Sentiment-v0 --algo ppo --out runs/demo

test: lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist runs/demo .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
