# Every target makes or updates .venv/ in this checkout and uses it; no environment needs to be active.
#   make demo                          the main job, end to end
#   make test  TEST_ARGS="-k fleet"    ruff, mypy and the test suite
#   make lint                          ruff and mypy only
#   make faults FAULTS_ARGS="--seed 7" what survives when things are killed (ten minutes)
#   make scale  SCALE_ARGS="--seed 7"  a thousand nodes, tens of thousands of tasks (six minutes)
#   make bench BENCH_ARGS="--json"     the figures that the project promises

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_ARGS ?=
# Test modules run beside each other, since most of them wait for real workers; 0: one after the other, in one process.
TEST_PROCESSES ?= 2
BENCH_ARGS ?=
FAULTS_ARGS ?=
SCALE_ARGS ?=

# What an outer environment may carry in and would spoil ours.
unexport PYTHONHOME PYTHONPATH
export PIP_USER := 0
export PIP_REQUIRE_VIRTUALENV := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

RECENT := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench faults scale

help:
	@sed -n '2,7s/^#   //p' Makefile

demo: $(STAMP)
	$(RUN)/cloudai demo

bench: $(STAMP)
	$(RUN)/cloudai bench $(BENCH_ARGS)

faults: $(STAMP)
	$(RUN)/python -m tests.faults $(FAULTS_ARGS)

scale: $(STAMP)
	$(RUN)/python -m tests.scale $(SCALE_ARGS)

lint: $(STAMP)
	$(RUN)/python -m ruff check .
	$(RUN)/python -m mypy

test: lint
	$(RUN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope $(TEST_ARGS)

$(STAMP): pyproject.toml
	@$(RUN)/python -c '$(RECENT)' 2>/dev/null && $(RUN)/python -m pip --version >/dev/null 2>&1 \
	  || $(MAKE) --no-print-directory fresh-venv
	$(RUN)/python -m pip install --quiet --editable ".[all,local,dev]"
	@touch $@

# Debian keeps the part of Python that makes environments in a package of its own.
.PHONY: fresh-venv
fresh-venv:
	@$(PYTHON) -c '$(RECENT)' || { \
	  echo "CloudAI needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one, for instance: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { \
	    echo "$(PYTHON) cannot make an environment. On Debian: sudo apt-get install python3-venv" >&2; exit 1; }; \
	  echo "$(PYTHON) cannot make an environment: installing python3-venv"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >/dev/null; }
	$(PYTHON) -m venv --clear $(VENV)
