PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run demo test lint openapi lock bench clean

run: $(VENV)/run.stamp ## the whole shop on this machine
	@$(BIN)/python -m deploy.local

demo: $(VENV)/run.stamp ## place, watch and cancel an order in the running shop
	@$(BIN)/python -m deploy.demo

test: lint ## every check and every test
	$(BIN)/python -m pytest

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/dev.stamp ## what an order costs the engine, MySQL beside SQLite, and what taking an order costs the API
	@$(BIN)/python -m tests.bench.order_cost
	@$(BIN)/python -m tests.bench.databases
	@$(BIN)/python -m tests.bench.acceptance

openapi: $(VENV)/run.stamp ## write docs/openapi.json anew
	@$(BIN)/python -m deploy.openapi

lock: $(VENV)/dev.stamp ## resolve the dependencies anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --python-version 3.11 \
	  pyproject.toml --extra local -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	  pyproject.toml --extra local --group dev -c requirements.lock -o requirements-dev.lock

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "street12 needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: apt-get install python3-venv"; exit 1; }

$(VENV)/run.stamp: requirements.lock | $(VENV)/bin/python
	@echo "Installing what the shop needs into $(VENV) (first time: about a minute) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/run.stamp
	@echo "Installing what the tests need into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

clean: ## forget the environment and the local shop's data
	rm -rf $(VENV) .local
