# make demo     a cluster of real Corosync daemons at work
# make test     all checks, then all tests, against the fake and against real daemons
# make setup    only what these two need; they call it themselves, and it does nothing the second time
# make lint, make fake, make real     parts of make test; ARGS="-k name" goes to pytest, which uses all cores
# make flake        the tests ten times in a row in both modes, under load; N=3 and ARGS say otherwise
# make flake-smoke  that in a minute: one round of a few tests
# make fuzz         N random programs on real clusters and on fakes, compared; SEED=... runs the same ones again
# make fuzz-smoke   a few of them
# make recordings   N recordings of real clusters to which everything happens: the checkers find nothing in them
# make unprivileged make real as an ordinary user, whom root makes for it; ARGS goes to pytest
#
# PYTHON=python3.13 takes another interpreter, with a virtual environment of its own.
PYTHON ?= python3
ARGS ?=
N ?= 10
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The extension module is built anew when one of its sources changes.
SOURCES := $(filter-out %/_shim.c,$(wildcard $(addprefix triocoro/_corosync/,*.c *.h *.cdef *.txt *build*.py)))

.PHONY: setup demo test lint fake real flake flake-smoke fuzz fuzz-smoke recordings unprivileged

setup: $(READY)

$(READY): pyproject.toml tools/setup.sh $(wildcard setup.py) $(SOURCES)
	@PYTHON=$(PYTHON) VENV=$(VENV) tools/setup.sh
	@touch $@

demo: setup
	@$(BIN)/python -m triocoro demo --corosync=real

# All three parts run, so that one look shows all that is wrong. The failure of any of them is a failure.
test: setup
	@failed=; \
	for part in lint fake real; do \
	    $(MAKE) --no-print-directory $$part || failed="$$failed $$part"; \
	done; \
	if [ -n "$$failed" ]; then echo "make test: failed:$$failed" >&2; exit 1; fi

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/flake8 .

fake real: setup
	$(BIN)/python -m pytest --corosync=$@ --numprocesses=auto --dist=worksteal $(ARGS)

flake: setup
	@BIN=$(BIN) N=$(N) tools/flake.sh $(ARGS)

flake-smoke: setup
	@BIN=$(BIN) N=1 tools/flake.sh tests/test_death.py tests/test_cancellation.py

fuzz: setup
	@PYTHONPATH=tests $(BIN)/python -m fuzz --number=$(N) $(if $(SEED),--seed=$(SEED)) --shrink --ledger $(ARGS)

fuzz-smoke: setup
	@PYTHONPATH=tests $(BIN)/python -m fuzz --number=3 --seed=1300 $(ARGS)

recordings: setup
	@PYTHONPATH=tests $(BIN)/python -m recordings --number=$(N) $(ARGS)

unprivileged:
	@tools/unprivileged.sh $(ARGS)
