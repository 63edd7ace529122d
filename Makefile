# Two commands need nothing but Python 3.11 or newer: `make sweep` and `make test`. Both make .venv and install into it
# what they need, once: they install again only when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# processes that the tests run in
PROCESSES ?= 2

# two makes at once take turns at installing, where the system has flock
LOCK := $(if $(shell command -v flock 2>/dev/null),flock Makefile)
INSTALL := $(LOCK) $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: help sweep test test-slow test-kernels test-public bench bench-public test-browser lint style types clean
.DELETE_ON_ERROR:

help:
	@echo 'make sweep      measure the preset quick on this machine, write its report, say which variant to use'
	@echo 'make test       the tests, without the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make test-kernels  runs kernels of other libraries without a GPU, in .venv-kernels, which it makes'
	@echo 'make test-public  compares with public implementations, which it installs'
	@echo 'make test-browser  opens reports in Chromium, where that is installed, and checks their accessibility'
	@echo 'make bench      benchmarks of attnbench itself'
	@echo 'make lint       style and types'
	@echo 'make clean      remove .venv, .venv-kernels and what tools left behind; runs/ stays'

sweep: $(VENV)/.has-hf
	$(BIN)/attnbench run --preset quick --report

test: $(VENV)/.has-test
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal -m 'not slow and not public and not browser'

test-slow: $(VENV)/.has-test
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal -m 'slow and not public and not browser'

# in a virtual environment of its own: Triton and its kernels are large, and only these tests want them
test-kernels:
	@$(MAKE) --no-print-directory VENV=.venv-kernels .venv-kernels/.has-kernels
	.venv-kernels/bin/python -m pytest tests/kernels

test-public: $(VENV)/.has-public
	$(BIN)/python -m pytest -m public

# Chromium is the system's own (on Debian and Ubuntu: apt install chromium); without it these tests are skipped
test-browser: $(VENV)/.has-browser
	$(BIN)/python -m pytest -m browser tests/browser

# theirs and ours in turns, in one run: time at length 4096, float32 and bfloat16
bench-public: $(VENV)/.has-public
	$(BIN)/attnbench run tests/public/causal.toml --plugin tests/public/implementations.py --report
	$(BIN)/attnbench run tests/public/noncausal.toml --plugin tests/public/implementations.py --report

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
	rm -rf $(VENV) .venv-kernels build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

# Each stamp says which extras are in .venv. The larger sets hold the smaller, and say so.

$(VENV)/.has-hf: $(INPUTS) | $(VENV)/.made
	$(INSTALL) -e '.[hf]'
	@touch $@

$(VENV)/.has-test: $(INPUTS) | $(VENV)/.made
	$(INSTALL) -e '.[hf,test]'
	@touch $@ $(VENV)/.has-hf

# natten is built beside torch, by setuptools, without its CUDA kernels, for which it looks for a GPU; of flash-attn-4,
# one file in plain torch is read
$(VENV)/.has-kernels: $(INPUTS) | $(VENV)/.made
	$(INSTALL) -e '.[test,kernels]' setuptools
	CUDA_VISIBLE_DEVICES= $(INSTALL) --no-deps --no-build-isolation natten flash-attn-4
	@touch $@

$(VENV)/.has-public: $(INPUTS) | $(VENV)/.made
	$(INSTALL) -e '.[hf,test,public]'
	@touch $@ $(VENV)/.has-test $(VENV)/.has-hf

# axe-core, which looks for what bars people, comes as a package of npm and stays in the virtual environment
AXE := axe-core-4.14.1

$(VENV)/.has-browser: $(INPUTS) | $(VENV)/.made
	$(INSTALL) -e '.[hf,test,browser]'
	@if command -v npm >/dev/null; then \
		cd $(VENV) && npm pack --silent $(subst core-,core@,$(AXE)) >/dev/null && mkdir -p axe-core && \
		tar -xzf $(AXE).tgz --strip-components=1 -C axe-core package/axe.min.js && rm $(AXE).tgz; \
	else echo 'npm is not there to fetch axe-core with, so accessibility is not tested'; fi
	@touch $@ $(VENV)/.has-test $(VENV)/.has-hf

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
