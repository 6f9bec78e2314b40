# Everything runs in ./.venv, which `make setup` creates.
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.millrace-setup
CLIENTS_STAMP := $(VENV)/.millrace-clients
# two processes; a module stays in one of them, and those that take longest come first
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Where it is set, no process keeps what it compiles of the tests, and each begins with that: eight seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup check format quick test clients isa faults demo bench

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 10

setup: $(STAMP)  ## create ./.venv with the project and its dev extra (done again when pyproject.toml changes)

# torch goes first and alone: the build that pip finds for this machine stays, and nothing after it can ask for another.
$(STAMP): pyproject.toml
	@echo "setting up $(VENV); the first time takes minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

$(CLIENTS_STAMP): $(STAMP)
	@echo "setting up the extra 'clients' in $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[clients]'
	touch $(CLIENTS_STAMP)

check: setup  ## ruff, ruff format, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup  ## let ruff format and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quick: setup  ## the tests that start no cluster, no service and no run, the slow ones left out: while models/ is edited
	$(PYTEST) -m 'not cluster and not service and not slow and not faults and not gpu and not benchmark'

test: check  ## check, then the tests that need neither a GPU nor minutes of killing
	$(PYTEST)

clients: $(CLIENTS_STAMP)  ## files of other people's programs, which it installs first (the extra `clients`)
	$(BIN)/pytest tests/clients

isa: setup  ## the numeric tests once for every instruction set that this machine can be held to
	$(BIN)/python -m tests.isa

faults: setup  ## the tests that kill real processes
	$(BIN)/pytest -m faults --timeout 900

demo: setup  ## Millrace's main job on a fresh corpus, with trained tiny models
	$(BIN)/millrace demo

bench: setup  ## throughput next to transformers, in the same run
	$(BIN)/python tests/benchmarks/against_transformers.py
