# Two commands need nothing but Python 3.11 or newer: `make sweep` and `make test`. Both make .venv and install into it
# what they need, once: they install again only when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# two makes at once take turns at installing, where the system has flock
LOCK := $(if $(shell command -v flock 2>/dev/null),flock Makefile)
INSTALL := $(LOCK) $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: help sweep test test-slow bench lint style types clean
.DELETE_ON_ERROR:

help:
	@echo 'make sweep      measure the preset quick on this machine, write its report, say which variant to use'
	@echo 'make test       the tests, without the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make bench      benchmarks of attnbench itself'
	@echo 'make lint       style and types'
	@echo 'make clean      remove .venv and what tools left behind; runs/ stays'

sweep: $(VENV)/.has-hf
	$(BIN)/attnbench run --preset quick --report

test: $(VENV)/.has-test
	$(BIN)/python -m pytest -m 'not slow'

test-slow: $(VENV)/.has-test
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.has-test
	$(BIN)/python -m pytest tests/benchmarks

lint: style types

style: $(VENV)/.has-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not follow an editable install whose root has another name than its package; links give it the package
PARTS := __init__.py py.typed $(patsubst %/__init__.py,%,$(wildcard */__init__.py))

types: $(VENV)/.has-dev
	@rm -rf $(VENV)/types && mkdir -p $(VENV)/types/attnbench
	@for part in $(PARTS); do ln -s "$(CURDIR)/$$part" $(VENV)/types/attnbench/; done
	MYPYPATH=$(VENV)/types $(BIN)/mypy -p attnbench

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

# Each stamp says which extras are in .venv. The larger sets hold the smaller, and say so.

$(VENV)/.has-hf: $(INPUTS) | $(VENV)/.made
	$(INSTALL) -e '.[hf]'
	@touch $@

$(VENV)/.has-test: $(INPUTS) | $(VENV)/.made
	$(INSTALL) -e '.[hf,test]'
	@touch $@ $(VENV)/.has-hf

$(VENV)/.has-dev: $(INPUTS) | $(VENV)/.made
	$(INSTALL) -e '.[hf,test,dev]'
	@touch $@ $(VENV)/.has-test $(VENV)/.has-hf

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
		echo '$(PYTHON) is not on the PATH; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "attnbench needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo '$(PYTHON) lacks the module venv; install it (on Debian and Ubuntu: apt install python3-venv)' >&2; exit 1; }
	$(LOCK) $(PYTHON) -m venv $(VENV)
	@touch $@
