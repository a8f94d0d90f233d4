# make demo         show a cluster of real Corosync daemons; if none can run here, say why, and show the fake
# make test         all tests, against the fake and against real daemons, and all checks. If real daemons cannot run,
#                   the last line says so and why; with CI=true or REAL=required that is a failure
# make setup        install what the other targets need; they call it themselves, and a second call does nothing
# make lint, make fake, make real   the parts of make test; ARGS="-k name" goes to pytest, which uses all cores. make real
#                   skips the tests that use no cluster
# make coverage     branch coverage of the fake and the real tests together; fails below the gate in pyproject.toml
# make long         the tests that make test leaves to it, in both modes: all mutants of the fake, more seeds and messages
# make bounds       measure what has a limit of time or CPU, and fail if one is exceeded; needs a quiet machine
# make bench        measure beside C and Trio: docs/benchmarks.md; takes ROUNDS=5, ONLY="64 B", BASE=<commit>, SAVE=1
# make browser      look at the pages of histories, and the example of a web page, in Chromium (apt install chromium);
#                   SCREENSHOTS=folder keeps pictures
# make bench-smoke  a few short workloads, to see that the benchmarks work
# make flake        the tests ten times in both modes, on a busy machine; takes N=3 and ARGS
# make flake-smoke  one such round of a few tests, in a minute
# make fuzz         run N random programs on real clusters and on fakes, and compare; SEED=... repeats a run
# make fuzz-smoke   a few of them
# make recipes      run the agreement of safe groups, and then all recipes on the fake cluster, under random schedules:
#                   docs/recipes/proof.md; takes SEEDS=0:100000
# make recipes-real run the recipes on real nodes under random schedules; takes SEEDS=0:500
# make soak         use three real nodes under every fault for MINUTES, checked as it goes, with memory, fds and latency over
#                   time: docs/soak.md; takes SEED=... and ARGS. An interrupt ends it with its report
# make soak-smoke   a quarter of a minute of that
# make restarts     a member of a group lives through N restarts and faults of its daemon; ARGS="--upgrade=/opt/x/sbin" takes
#                   another build in turn
# make sanitize     the raw tests with the shim under ASan and UBSan, then valgrind for leaks: docs/sanitizers.md
# make sanitize-smoke  a few of these tests
# make hostile      call everything that is public with hostile arguments, CALLS times on a fake and on real nodes; takes
#                   SEED=... and ARGS: docs/fuzzing.md
# make hostile-smoke  a few of these calls, on the fake
# make smoke        the documentation, and all smoke forms that may run side by side
# make recordings   record N real clusters under random faults; the checkers must find nothing in the recordings
# make unprivileged make real as an ordinary user, which root creates for it; ARGS goes to pytest
# make elsewhere    make demo and make test in a bare Debian SUITE, which root creates for it; takes COMMAND="..."
# make elsewhere-smoke   there, the demonstration and a few real tests
# make debian       in a bare Debian SUITE: build Debian's package from contrib/debian, and test it as Debian does
# make pythons      make fake, and a few real tests, on each of PYTHONS; fails if a supported version is not installed
# make floors       the same with the oldest dependencies that pyproject.toml allows
# make docs         build the documentation as a site, build/site/index.html; each warning and each dead link is an error
# make docs-links   the links to other sites, too
# make package      build a source distribution and a wheel in build/package/dist, check both, and use them as a user would,
#                   on each of PYTHONS: docs/releasing.md; PYTHON=python3.10 for a release
# make package-smoke  build and check them, and use the wheel
# make man          write the manual page of the command, docs/man/triocoro.1
# make lock         pin the newest packages that development needs, on all of PYTHONS, in tools/constraints.txt
#
# PYTHON=python3.13 selects another interpreter, which gets a virtual environment of its own.
PYTHON ?= python3
ARGS ?=
N ?= 10
MINUTES ?= 10
CALLS ?= 2000
SEEDS ?= 0:10000
SUITE ?= trixie
export COMMAND ?=
MINORS := 10 11 12 13 14
PYTHONS ?= $(foreach minor,$(MINORS),$(firstword $(wildcard \
    $(HOME)/.pyenv/versions/3.$(minor).*/bin/python3.$(minor) /usr/local/bin/python3.$(minor) /usr/bin/python3.$(minor))))
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# When one of these changes, make setup builds the extension module again. (cffi generates _shim.c.)
SOURCES := $(filter-out %/_shim.c,$(wildcard $(addprefix triocoro/_corosync/,*.c *.h *.cdef *.txt *build*.py)))

CLUSTER_LEDGER := tests/recipes/cluster_ledger.csv

REAL_WORKERS := $(shell echo $$(($$(nproc) + 2)))

WITH_MATPLOTLIB = $(BIN)/python -c "import matplotlib" 2>/dev/null || \
    $(BIN)/python -m pip install --quiet --constraint=tools/constraints.txt matplotlib || true

# These may run side by side: none of them judges times.
SMOKES := docs fuzz-smoke hostile-smoke soak-smoke sanitize-smoke bench-smoke package-smoke

# These show in half a minute that the SDK and real clusters work.
REAL_SMOKE := tests/sdk/test_death.py tests/plugin/test_downstream.py

.PHONY: setup demo test lint ruff mypy pyright types flake8 fake real coverage long bounds bench bench-smoke browser flake flake-smoke fuzz fuzz-smoke recipes recipes-real soak soak-smoke restarts sanitize sanitize-smoke smoke hostile hostile-smoke recordings unprivileged \
    elsewhere elsewhere-smoke debian pythons floors package package-smoke docs docs-links lock man

setup: $(READY)

$(READY): pyproject.toml setup.py tools/setup.sh tools/constraints.txt $(SOURCES)
	@PYTHON=$(PYTHON) VENV=$(VENV) tools/setup.sh
	@[ -s $(VENV)/.missing ] || touch $@

demo: setup
	@$(BIN)/python -m triocoro demo --corosync=$(if $(filter required,$(REAL)),real,auto)

test: setup
	@BIN=$(BIN) MAKE="$(MAKE)" tools/test.sh

# Side by side, and each to its end.
lint: setup
	@$(MAKE) --no-print-directory --jobs=2 --output-sync --keep-going pyright types mypy flake8 ruff

ruff:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
mypy:
	$(BIN)/mypy
# Every public symbol has a type that all type checkers understand alike.
types:
	@for package in triocoro pytest_corosync; do \
	    found=$$(PATH=$(CURDIR)/$(BIN):$$PATH PYTHONPATH=$(CURDIR) pyright --verifytypes $$package --ignoreexternal) || \
	        { echo "$$found"; exit 1; }; \
	    echo "$$package: $$(echo "$$found" | grep score)"; \
	done
pyright:
	$(BIN)/pyright --pythonpath $(BIN)/python
flake8:
	$(BIN)/python tools/lint_async.py .

fake: setup
	$(BIN)/python -m pytest --corosync=fake --numprocesses=auto --dist=worksteal $(ARGS)

# These tests wait for their daemons most of the time, so there are more of them at a time than cores. Those that use no
# cluster have run in make fake.
real: setup
	$(BIN)/python -m pytest --corosync=real --numprocesses=$(REAL_WORKERS) --dist=worksteal --skip-without-cluster $(ARGS)

# Only one of the two modes at a time, so that each test has the machine that it has in make fake and make real.
coverage: export COVERAGE_FILE := $(CURDIR)/build/coverage/data
coverage: setup
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest --corosync=fake --numprocesses=auto --dist=worksteal $(ARGS)
	$(BIN)/coverage run -m pytest --corosync=real --numprocesses=auto --dist=worksteal $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(ARGS),--fail-under=0)

long: export LONG := only
long: setup
	$(BIN)/python -m pytest --corosync=fake --numprocesses=auto --dist=worksteal $(ARGS)
	$(BIN)/python -m pytest --corosync=real --numprocesses=auto --dist=worksteal --skip-without-cluster $(ARGS)

bounds: setup
	BOUNDS=only $(BIN)/python -m pytest --corosync=fake $(ARGS)
	BOUNDS=only $(BIN)/python -m pytest --corosync=real $(ARGS)

# Only the plots of make bench and make soak need matplotlib.
bench: setup
	@$(WITH_MATPLOTLIB)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(if $(ROUNDS),--rounds=$(ROUNDS)) $(if $(ONLY),--only="$(ONLY)") \
	    $(if $(BASE),--base=$(BASE)) $(if $(SAVE),--save) $(ARGS)

browser: setup
	@TRIOCORO_SCREENSHOTS="$(SCREENSHOTS)" $(BIN)/python -m pytest --corosync=real tests/examples/test_cluster_page.py -k browser
	@TRIOCORO_SCREENSHOTS="$(SCREENSHOTS)" $(BIN)/python -m pytest --corosync=fake tests/histories/test_page_in_browser.py

bench-smoke: setup
	@PYTHONPATH=tests $(BIN)/python -m benchmarks --smoke --rounds=1

flake: setup
	@BIN=$(BIN) N=$(N) tools/flake.sh $(ARGS)

flake-smoke: setup
	@BIN=$(BIN) N=1 tools/flake.sh tests/sdk/test_death.py tests/sdk/test_cancellation.py

fuzz: setup
	@PYTHONPATH=tests $(BIN)/python -m fuzz --number=$(N) $(if $(SEED),--seed=$(SEED)) --shrink --ledger $(ARGS)

fuzz-smoke: setup
	@PYTHONPATH=tests $(BIN)/python -m fuzz --number=3 --seed=1300 $(ARGS)

recipes: setup
	@PYTHONPATH=tests $(BIN)/python -m recipes.schedules --seeds=$(SEEDS) --ledger $(ARGS)
	@PYTHONPATH=tests $(BIN)/python -m support.recipe_runs --seeds=$(SEEDS) --ledger=$(CLUSTER_LEDGER) $(ARGS)

recipes-real: SEEDS := 0:500
recipes-real: setup
	@PYTHONPATH=tests $(BIN)/python -m support.recipe_runs --real --seeds=$(SEEDS) --ledger=$(CLUSTER_LEDGER) $(ARGS)

soak: setup
	@$(WITH_MATPLOTLIB)
	@PYTHONPATH=tests $(BIN)/python -m soak --minutes=$(MINUTES) $(if $(SEED),--seed=$(SEED)) $(ARGS)

restarts: setup
	@PYTHONPATH=tests $(BIN)/python -m support.restarts --number=$(N) $(ARGS)

smoke: setup
	@$(MAKE) --no-print-directory --jobs=2 --output-sync --keep-going $(SMOKES)

soak-smoke: setup
	@PYTHONPATH=tests $(BIN)/python -m soak --minutes=0.1 --window=5 --folder=build/soak/smoke

sanitize: setup
	@BIN=$(BIN) tools/sanitize.sh $(ARGS)

sanitize-smoke: setup
	@BIN=$(BIN) ONLY=asan tools/sanitize.sh -q tests/raw/test_real_services.py

hostile: setup
	@PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m hostile --calls=$(CALLS) $(if $(SEED),--seed=$(SEED)) $(ARGS)

hostile-smoke: setup
	@PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m hostile --corosync=fake --calls=300 --seed=1

recordings: setup
	@PYTHONPATH=tests $(BIN)/python -m support.recordings --number=$(N) $(ARGS)

unprivileged:
	@tools/unprivileged.sh $(ARGS)

elsewhere:
	@tools/elsewhere.sh $(SUITE) $(if $(COMMAND),"$$COMMAND")

elsewhere-smoke:
	@tools/elsewhere.sh $(SUITE) "make demo && make real ARGS=tests/sdk/test_death.py"

debian:
	@tools/elsewhere.sh $(SUITE) tools/debian.sh

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
	@mkdir -p build
	@sed -n 's/^\(dependencies\|trio\|cli\) = \[\(.*\)\]$$/\2/p' pyproject.toml | grep -o '[^", ]*>=[^", ]*' | \
	    sed 's/>=/==/' | tee build/floors.txt
	@echo 'anyio<4.9 # the last one that works with this Trio' >> build/floors.txt
	@grep -vE "^($$(sed 's/[=<].*//' build/floors.txt | paste -s -d '|'))==" tools/constraints.txt >> build/floors.txt
	@PYTHON=$(PYTHON) VENV=.venv-floors CONSTRAINTS=build/floors.txt tools/setup.sh
	.venv-floors/bin/python -m pytest --corosync=fake --numprocesses=auto $(ARGS)
	.venv-floors/bin/python -m pytest --corosync=real --numprocesses=auto $(REAL_SMOKE)

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --quiet --jobs auto docs build/site $(ARGS)

docs-links: $(VENV)/.docs
	$(BIN)/python -m sphinx --builder linkcheck --fresh-env --keep-going --quiet docs build/links $(ARGS)

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint=tools/constraints.txt \
	    $$(sed -n 's/^docs = \[\(.*\)\].*/\1/p' pyproject.toml | tr -d '",')
	@touch $@

package: setup
	@BIN=$(BIN) PYTHONS="$(PYTHONS)" tools/package.sh $(ARGS)

package-smoke: setup
	@BIN=$(BIN) tools/package.sh --smoke

man: setup
	@$(BIN)/python tools/man.py

lock:
	$(lastword $(PYTHONS)) tools/lock.py $(PYTHONS)
