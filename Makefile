# Everything runs in .venv, which each target makes when it is missing or out of date.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
DEV := .venv/.ready-dev

.PHONY: help demo test lint types docs benchmark build lock clean

help:  ## show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/.ready-train  ## train on handwritten digits, evaluate, predict: a few minutes
	@$(BIN)/python examples/digits.py

test: $(DEV) node_modules lint types docs  ## build, lint, check types, build the docs, run all tests
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --junitxml=build/tests.xml

lint: $(DEV)  ## check style and formatting
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet

types: $(DEV)  ## check types
	@$(BIN)/mypy

docs: $(DEV) node_modules  ## build the documentation into docs/_build/html
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

benchmark: $(DEV)  ## measure training speed
	@$(BIN)/python benchmarks/training.py

build: $(DEV)  ## build wheel and sdist into dist/
	@$(BIN)/python -m build --no-isolation

# torch's local version (+cpu, +cu130) says which build this machine got, not what to ask for.
lock: $(DEV)  ## write the installed versions to constraints.txt
	@versions=$$($(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+.*//'); \
	printf '%s\n' '# Every package of .venv, exactly; "make lock" writes this file.' \
	  "$$versions" > constraints.txt

clean:  ## remove what these targets made
	rm -rf .venv build dist node_modules docs/_build runs/demo .mypy_cache .pytest_cache .ruff_cache

.venv/.ready-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed; try: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

# Mermaid draws the charts in the tests and in the documentation. Without npm the tests that need
# it are skipped by name, and the documentation loads Mermaid from the network.
node_modules: package-lock.json
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund && touch $@; \
	else echo "npm is missing: the tests that draw charts will be skipped"; fi
