# make demo     a cluster of real Corosync daemons at work; where none can run, of the fake, and why
# make test     all checks, then all tests, against the fake and against real daemons. Where these cannot run, the last
#               line says so and why; with CI=true or REAL=required that is a failure
# make setup    only what these two need; they call it themselves, and it does nothing the second time
# make lint, make fake, make real     parts of make test; ARGS="-k name" goes to pytest, which uses all cores
# make bounds       measure what has a limit of time or CPU; fails if one is exceeded, so it needs a quiet machine
# make flake        the tests ten times in a row in both modes, under load; N=3 and ARGS say otherwise
# make flake-smoke  that in a minute: one round of a few tests
# make fuzz         N random programs on real clusters and on fakes, compared; SEED=... runs the same ones again
# make fuzz-smoke   a few of them
# make recordings   N recordings of real clusters to which everything happens: the checkers find nothing in them
# make unprivileged make real as an ordinary user, whom root makes for it; ARGS goes to pytest
# make elsewhere    make demo and make test in a bare Debian SUITE, which root makes for it; COMMAND="..." is another command
# make elsewhere-smoke   there, the demonstration and a few real tests
# make pythons      make fake, and a few real tests, on each of PYTHONS; fails if one of ours is not here
# make floors       the same with the oldest releases of what we depend on that pyproject.toml allows
#
# PYTHON=python3.13 takes another interpreter, with a virtual environment of its own.
PYTHON ?= python3
ARGS ?=
N ?= 10
SUITE ?= trixie
export COMMAND ?=
MINORS := 10 11 12 13 14
PYTHONS ?= $(foreach minor,$(MINORS),$(firstword $(wildcard \
    $(HOME)/.pyenv/versions/3.$(minor).*/bin/python3.$(minor) /usr/local/bin/python3.$(minor) /usr/bin/python3.$(minor))))
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The extension module is built anew when one of its sources changes.
SOURCES := $(filter-out %/_shim.c,$(wildcard $(addprefix triocoro/_corosync/,*.c *.h *.cdef *.txt *build*.py)))

# What shows that the SDK and real clusters work, in half a minute.
REAL_SMOKE := tests/sdk/test_death.py tests/plugin/test_downstream.py

.PHONY: setup demo test lint fake real bounds flake flake-smoke fuzz fuzz-smoke recordings unprivileged elsewhere \
    elsewhere-smoke pythons floors

setup: $(READY)

$(READY): pyproject.toml tools/setup.sh $(wildcard setup.py) $(SOURCES)
	@PYTHON=$(PYTHON) VENV=$(VENV) tools/setup.sh
	@[ -s $(VENV)/.missing ] || touch $@

demo: setup
	@$(BIN)/python -m triocoro demo --corosync=$(if $(filter required,$(REAL)),real,auto)

test: setup
	@BIN=$(BIN) MAKE="$(MAKE)" tools/test.sh

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/flake8 .

fake real: setup
	$(BIN)/python -m pytest --corosync=$@ --numprocesses=auto --dist=worksteal $(ARGS)

bounds: setup
	BOUNDS=only $(BIN)/python -m pytest --corosync=fake $(ARGS)
	BOUNDS=only $(BIN)/python -m pytest --corosync=real $(ARGS)

flake: setup
	@BIN=$(BIN) N=$(N) tools/flake.sh $(ARGS)

flake-smoke: setup
	@BIN=$(BIN) N=1 tools/flake.sh tests/sdk/test_death.py tests/sdk/test_cancellation.py

fuzz: setup
	@PYTHONPATH=tests $(BIN)/python -m fuzz --number=$(N) $(if $(SEED),--seed=$(SEED)) --shrink --ledger $(ARGS)

fuzz-smoke: setup
	@PYTHONPATH=tests $(BIN)/python -m fuzz --number=3 --seed=1300 $(ARGS)

recordings: setup
	@PYTHONPATH=tests $(BIN)/python -m support.recordings --number=$(N) $(ARGS)

unprivileged:
	@tools/unprivileged.sh $(ARGS)

elsewhere:
	@tools/elsewhere.sh $(SUITE) $(if $(COMMAND),"$$COMMAND")

elsewhere-smoke:
	@tools/elsewhere.sh $(SUITE) "make demo && make real ARGS=tests/sdk/test_death.py"

pythons:
	@echo "pythons: $(or $(PYTHONS),none)"
	@for python in $(PYTHONS); do \
	    $(MAKE) --no-print-directory PYTHON=$$python fake && \
	    $(MAKE) --no-print-directory PYTHON=$$python real ARGS="$(REAL_SMOKE)" || exit 1; \
	done
	@for minor in $(MINORS); do \
	    case "$(PYTHONS)" in *python3.$$minor*) ;; *) echo "pythons: NOT RUN: python3.$$minor is not here" >&2; false;; esac \
	done

floors:
	@mkdir -p build && echo 'anyio<4.9 # which still goes with that Trio' > build/floors.txt
	@sed -n 's/^\(dependencies\|pytest\) = \[\(.*\)\]$$/\2/p' pyproject.toml | grep -o '[^", ]*>=[^", ]*' | \
	    sed 's/>=/==/' | tee -a build/floors.txt
	@PYTHON=$(PYTHON) VENV=.venv-floors PIP_CONSTRAINT=$(CURDIR)/build/floors.txt tools/setup.sh
	.venv-floors/bin/python -m pytest --corosync=fake --numprocesses=auto $(ARGS)
	.venv-floors/bin/python -m pytest --corosync=real --numprocesses=auto $(REAL_SMOKE)
