# make run   everything a fresh machine needs, then the main scenario
# make test  the same set-up, then the tests
#
# TORCH_INDEX chooses where torch comes from; see README, "Install".

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := run
.PHONY: run test check clean

run: $(STAMP)
	$(BIN)/sim run scenarios/burst20.yaml

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict

# torch goes in first and constraints.txt pins it, so no later package can replace it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,train]'
	touch $@

clean:
	rm -rf $(VENV)
