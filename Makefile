# Everything runs from .venv, which `make install` makes and keeps equal to requirements.txt.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Pinned: what locks and installs is part of what is locked.
UV_VERSION := 0.13.9
# Those of a file come one after the other: they share what they start.
PARALLEL := --numprocesses 2 --dist loadfile
ASK := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for name in python3.11 python3.12 python3 python; do \
	if $$name -c '$(ASK)' >/dev/null 2>&1; then echo $$name; break; fi; done)

.PHONY: help install demo down test test-unit check lint format lock schema bench-loop bench-tune bench-serve build clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## Make .venv and install everything into it

$(STAMP): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "holdtrue needs Python 3.11 or 3.12, and neither was found; install one, or name it: make install PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c '$(ASK)' || { echo "holdtrue needs Python 3.11 or 3.12, and $(PYTHON) is $$($(PYTHON) --version 2>&1)" >&2; exit 2; }
	@echo "Installing into $(VENV) (about a minute and 2 GB on the first time)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --python $(BIN)/python --require-hashes --no-deps --compile-bytecode -r requirements.txt
	@$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## The whole loop on real flights, from raw data to a retrained model
	@$(BIN)/python -m flows.demo

down: install ## End everything that the demo or the command started
	@$(BIN)/python -m holdtrue.cli down

test: test-unit ## Run all tests: unit, then integration and the whole loop, on two cores
	@$(BIN)/pytest tests/integration tests/e2e $(PARALLEL) $(ARGS) $(if $(RESULTS),--junitxml=$(RESULTS)/servers.xml)

test-unit: install ## Run the unit tests, on two cores
	@$(BIN)/pytest tests/unit $(PARALLEL) $(ARGS) $(if $(RESULTS),--junitxml=$(RESULTS)/unit.xml)

check: lint test-unit ## Format, lint, types, import contracts and unit tests

lint: install ## Format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install ## Resolve the dependencies again and write requirements.txt
	$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --upgrade \
		--extra dev --extra examples --extra mlflow --generate-hashes \
		--custom-compile-command 'make lock' --no-emit-index-url --no-emit-find-links \
		--output-file requirements.txt

schema: install ## Write docs/declaration.schema.json and docs/monitor.schema.json
	@$(BIN)/python -c 'from pathlib import Path; from holdtrue.declaration import write_schema; write_schema(Path("docs/declaration.schema.json"))'
	@$(BIN)/python -c 'import json; from holdtrue.references import DriftReport; print(json.dumps(DriftReport.model_json_schema(mode="serialization"), indent=2))' >docs/monitor.schema.json

bench-loop: install ## Measure apply on the flights, step by step
	@$(BIN)/python -m benchmarks.loop

bench-tune: install ## Measure searches, ours and those of others (ARGS="--part real", --resume, --quick)
	@$(BIN)/python -m benchmarks.tune $(ARGS)

bench-serve: install ## Measure serving, ours and that of others (ARGS="--part peers", --resume, --quick)
	@$(BIN)/python -m benchmarks.serve $(ARGS)

build: install ## Build the wheel and the sdist into dist/
	@$(BIN)/uv build --quiet --python $(BIN)/python --out-dir dist

clean: ## Remove .venv, builds and caches (not the store)
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
