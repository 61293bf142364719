# Each target creates .venv and installs what it needs, when that is needed and only then.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed
# What is started finds the environment's dvc and python first. Below they are named by their path: Apple's make looks for
# commands where they are before this line.
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: repro test test-slow test-versions bench docs figures ui lint lock clean help

help:
	@echo "make repro      run the whole study (only what changed) and print its results"
	@echo "make test       lint, types and the fast tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-versions  the fast tests with the lowest and with the newest versions (12 GB, half an hour)"
	@echo "make bench      time steps, attacks, evaluation and start-up against plain forms (minutes)"
	@echo "make docs       build the documentation into build/docs, warnings as errors"
	@echo "make figures    renew the figures of README and documentation, from the last report and dvc.yaml"
	@echo "make ui         serve the MLflow UI of the runs, and say where their curves are (port \$$PORT, or 5000)"
	@echo "make lint       ruff and mypy"
	@echo "make lock       renew constraints.txt with the newest versions"
	@echo "make clean      remove results, snapshots and the environment (not DVC's cache, the run database, downloads)"

repro: $(INSTALLED)
	"$(BIN)/dvc" repro

test: lint
	"$(BIN)/python" -m pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED)
	"$(BIN)/python" -m pytest -m slow

test-versions:
	tests/environments.sh lowest -n auto --dist loadfile --no-loadscope-reorder
	tests/environments.sh newest -n auto --dist loadfile --no-loadscope-reorder

bench: $(INSTALLED)
	"$(BIN)/python" benchmarks/bench.py

docs: $(INSTALLED)
	"$(BIN)/python" -m sphinx --fail-on-warning --keep-going --quiet --fresh-env --write-all -b html docs build/docs
	@echo "The documentation: build/docs/index.html"

figures: repro
	cp artifacts/report/figures/validation-pgd.svg docs/images/
	"$(BIN)/python" docs/figures.py

ui: $(INSTALLED)
	"$(BIN)/sglr" ui

lint: $(INSTALLED)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

# With the lowest Python that is at hand: what is newest for a newer one may not install on it (a test looks).
lock: pyproject.toml
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade ".[dev]"
	{ echo "# Versions the project is tested with; renewed by 'make lock'."; .venv-lock/bin/python -m pip freeze --exclude sglr; } > constraints.txt
	rm -rf .venv-lock

clean:
	rm -rf artifacts/check.txt artifacts/data artifacts/warmup artifacts/train artifacts/evaluate artifacts/audit artifacts/analyze artifacts/report
	rm -rf .sglr/snapshots .sglr/locks .pytest_cache .mypy_cache .ruff_cache build *.egg-info $(VENV)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.14 is needed by the pinned versions, found " + sys.version.split()[0] + "; use make PYTHON=...") if not (3, 11) <= sys.version_info < (3, 15) else None'
	test -x "$(BIN)/python" || $(PYTHON) -m venv $(VENV)
# Where Debian's python3-venv was missing at first, the line above has left an environment without pip.
	"$(BIN)/python" -m pip --version > /dev/null 2>&1 || "$(BIN)/python" -m ensurepip --upgrade
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@
