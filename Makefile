# Every target sets up what it needs in .venv, from nothing but Python (3.11 or newer) and make.
# A stamp per set of extras keeps a second run fast: it is renewed when pyproject.toml changes.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.tinytorch
PIP   := $(BIN)/python -m pip install -qq --disable-pip-version-check
TORCH := torch==2.13.0
ARGS  ?=

.DEFAULT_GOAL := help
.PHONY: help demo examples test lint bench torch clean distclean
.DELETE_ON_ERROR:

help:  ## what one can make
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo 'ARGS=... is passed on, e.g. make test ARGS="-k data -x" or make demo ARGS="--help"'

demo: $(STAMP)-run  ## train on MNIST, eager and compiled, and look at every stage
	@$(BIN)/tito demo $(ARGS)

examples: $(STAMP)-run  ## the history of deep learning on real data; writes docs/results.md
	@$(BIN)/python scripts/examples.py $(ARGS)

test: $(STAMP)-test  ## run the tests on every core
	@$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(STAMP)-lint  ## ruff, and mypy --strict on the package as it is installed
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/python scripts/check_types.py || status=1; \
	exit $$status

bench: $(STAMP)-peers  ## the benchmarks, against PyTorch, JAX and ONNX Runtime; writes docs/benchmarks.md
	@$(BIN)/tito bench --write $(ARGS)

torch: $(STAMP)-torch  ## put PyTorch next to the package: tests that compare with it run instead of being skipped

clean:  ## remove what builds and tools leave behind (not .venv, not your kernel cache)
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv
	@rm -rf $(VENV)

# The first Python that is new enough and can make a virtual environment; PYTHON=... goes first.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "making $(VENV) with $$("$$python" --version)"; \
	        exec "$$python" -m venv $(VENV); \
	    fi; \
	done; \
	echo "no Python 3.11 or newer with venv found: install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	exit 1

# The extras that each kind of stamp stands for.
$(STAMP)-run:   EXTRAS :=
$(STAMP)-test:  EXTRAS := [test]
$(STAMP)-lint:  EXTRAS := [lint]

$(STAMP)-run $(STAMP)-test $(STAMP)-lint: pyproject.toml | $(BIN)/python
	@echo "installing tinytorch$(EXTRAS) into $(VENV); the first time takes a minute or two"
	@$(PIP) -e '.$(EXTRAS)'
	@touch $@

# The version that the benchmarks are stated for, first and exactly: left to itself, pip takes the newest, with
# gigabytes of CUDA libraries.
$(STAMP)-torch: Makefile | $(BIN)/python
	@echo "installing $(TORCH) into $(VENV); this is a large download"
	@$(PIP) '$(TORCH)'
	@touch $@

$(STAMP)-peers: pyproject.toml $(STAMP)-torch
	@echo "installing tinytorch[bench,peers] into $(VENV)"
	@$(PIP) -e '.[bench,peers]'
	@touch $@
