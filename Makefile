# make run   everything a fresh machine needs, then the main scenario
# make test  the same set-up, then the tests
#
# TORCH_INDEX chooses where torch comes from; see README, "Install".

PYTHON ?= python3
TORCH_INDEX ?= auto
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

# The package index of torch: TORCH_INDEX, empty for pip's own. "auto" is the index of small builds
# for the CPU, on Linux without an NVIDIA GPU, if it answers at once; elsewhere pip's own.
CPU_INDEX := https://download.pytorch.org/whl/cpu
ANSWERS := import urllib.request; urllib.request.urlopen("$(CPU_INDEX)/torch/", timeout=5)
SMALL := [ "$$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia/version ] && \
	timeout 8 $(BIN)/python -c '$(ANSWERS)' 2>/dev/null
TORCH := $(BIN)/python -m pip install torch==2.13.0

# torch goes in first and constraints.txt pins it, so no later package can replace it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH_INDEX),auto)
	if $(SMALL); then $(TORCH) --index-url $(CPU_INDEX) || $(TORCH); else $(TORCH); fi
else
	$(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
endif
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,train,video]'
	touch $@

clean:
	rm -rf $(VENV)
