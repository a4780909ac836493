# make serve and make test need make, and Python 3.11 or newer with venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# stamp files of the two environments: for serving, and for developing
SERVE  := $(VENV)/serve.stamp
DEV    := $(VENV)/dev.stamp
# stamp file of the linters from npm
LINTERS := scripts/openapi_lint/node_modules/install.stamp
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/markethall/__init__.py)

.PHONY: help serve test install install-dev check lint types imports migrations docs openapi lint-openapi \
  bench lock clean \
  test-manifests test-topologies test-crash-recovery test-network-faults test-concurrency \
  test-event-delivery test-relocation test-malformed-requests test-card-numbers test-facets test-example \
  test-acidrain test-pgbouncer test-monitoring test-compose test-api-schema test-payments test-package \
  client-document clients test-client-typescript test-client-python

## help: list the targets
help:
	@sed -n 's/^## //p' Makefile

## serve: run the application on http://localhost:8000, with an embedded Postgres
serve: $(SERVE)
	$(BIN)/markethall serve $(ARGS)

## test: run all tests, in memory, on a real Postgres and on a real Valkey; a part: ARGS="-m unit", ARGS=tests/users
test: $(DEV)
	$(BIN)/python -m pytest -n auto $(ARGS)

install: $(SERVE)
install-dev: $(DEV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Markethall needs Python 3.11 or newer; select it with make PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(SERVE): requirements/serve.txt pyproject.toml | $(BIN)/python
	@echo "Installing the packages into $(VENV) (60 MB to download, half a minute to some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements/dev.txt pyproject.toml | $(BIN)/python
	@echo "Installing the packages for development into $(VENV) (150 MB to download, some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(SERVE)

## check: run the checks of CI other than tests
check: lint types imports

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/deptry .
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m scripts.check_names

types: $(DEV)
	$(BIN)/mypy

imports: $(DEV)
	$(BIN)/lint-imports

## openapi: record the OpenAPI document of this version in docs/openapi
openapi: $(DEV)
	$(BIN)/python -m scripts.check_openapi --record $(ARGS)

## lint-openapi: lint the recorded OpenAPI document with Redocly and Spectral (needs Node.js 20 or newer, and npm)
lint-openapi: $(LINTERS)
	scripts/openapi_lint/run.sh docs/openapi/$(VERSION).json

$(LINTERS): scripts/openapi_lint/package-lock.json
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' \
	  || { echo "The linters need Node.js 20 or newer, and npm"; exit 1; }
	@npm ci --silent --prefix scripts/openapi_lint
	@touch $@

## bench: measure speed, compared with minimal applications on the same libraries (several minutes, on an idle machine)
bench: $(DEV)
	$(BIN)/python -m bench $(ARGS)

## lock: compile requirements/ again (needs uv)
lock:
	scripts/lock.sh

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

## migrations: migrate each context up, compare it with its tables, down and up again, on an embedded Postgres
migrations: $(DEV)
	$(BIN)/python -m scripts.check_migrations

## docs: write the generated parts of the documents, the network policies, the alert rules and the dashboard
docs: $(DEV)
	$(BIN)/python -m scripts.generate_network
	$(BIN)/python -m scripts.generate_docs
	$(BIN)/python -m scripts.monitoring.generate

## test-manifests: render the Kubernetes overlays and check them (needs kubectl)
test-manifests: $(DEV)
	$(BIN)/python -m pytest -q k8s

## test-package: build the wheel and the sdist, install the wheel into an empty environment and start it
test-package: $(DEV)
	$(BIN)/python -m scripts.check_package

## test-pgbouncer: run the shop behind PgBouncer in transaction mode (needs the program pgbouncer)
test-pgbouncer: $(DEV)
	$(BIN)/python -m pytest -q -n 0 tests/pgbouncer.py $(ARGS)

## test-compose: run the services of compose.yaml as processes, behind their proxy (needs the program nginx)
test-compose: $(DEV)
	$(BIN)/python -m pytest -q -n 0 tests/compose.py $(ARGS)

## test-monitoring: test the alert rules, and the dashboard on a real shop (needs the programs prometheus and promtool)
test-monitoring: $(DEV)
	$(BIN)/python -m pytest -q -n 0 tests/monitoring.py $(ARGS)

## test-topologies: run one suite on all partitions of the contexts, also as real processes; compare all results
test-topologies: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q tests/partitions tests/e2e/test_flow.py $(ARGS)

## test-crash-recovery: kill -9 at every commit of the main flow, of payments without a retry, and at every message from cart to payment and from a return to its refund (hours)
test-crash-recovery: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/e2e/test_crash.py tests/e2e/test_payment_crash.py tests/e2e/test_capture_crash.py \
	  tests/e2e/test_cart_crash.py tests/e2e/test_return_crash.py $(ARGS)

## test-network-faults: cause every network fault between four processes, twenty times each, and ten minutes without Redis (hours)
test-network-faults: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/e2e/test_redis_outage.py tests/e2e/test_split_faults.py $(ARGS)

## test-api-schema: send thousands of requests made from the OpenAPI document, valid and invalid (minutes)
test-api-schema: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q tests/api_schema $(ARGS)

## test-concurrency: run each race for stock twenty times with a hundred customers, each race for carts, guests and the changes of an order 200 times, each race for promotions twenty times with fifty customers, with 0 and 20 ms of database latency, and 2,280 random sequences of commands on orders (minutes)
test-concurrency: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q tests/inventory/test_races.py tests/inventory/test_store_mutants.py tests/e2e/test_hot_product.py tests/orders/carts/test_races.py tests/orders/promotions/test_races.py tests/orders/test_races.py tests/orders/test_stateful.py tests/orders/edits/test_races.py tests/orders/lifecycle tests/test_guest_claims.py $(ARGS)

## test-payments: run every race for money 200 times, with 0 and 20 ms of database latency, random commands, and compare 100,000 lines of a report (minutes)
test-payments: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q tests/payments/test_money_races.py tests/payments/test_capture_races.py tests/payments/test_stateful.py tests/payments/test_mark_paid.py tests/orders/test_manual_payment.py tests/payments/test_reconciliation_memory.py $(ARGS)

## test-acidrain: attack vouchers, inventory and carts with requests that arrive together, the database 0 and 200 ms away (minutes)
test-acidrain: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q tests/acidrain $(ARGS)

## test-event-delivery: deliver 2,000 events to two subscribers during twenty kill -9 (a minute)
test-event-delivery: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/shared/test_event_delivery.py tests/shared/test_redis_streams.py tests/shared/test_redis_stream_kills.py $(ARGS)

## test-relocation: extract a service under load, without faults and with a kill -9 in each step (minutes)
test-relocation: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/e2e/test_relocation.py $(ARGS)

## test-malformed-requests: send every hostile request to every route, in memory and on Postgres (minutes)
test-malformed-requests: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/e2e/test_malformed_requests.py $(ARGS)

## test-facets: compare the facets of 200 random filters of products, and of families, with an independent count, and follow every value (minutes)
test-facets: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q tests/inventory/test_facets.py $(ARGS)

## test-card-numbers: send the card numbers of eight brands in every position of every request (minutes)
test-card-numbers: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/e2e/test_card_numbers.py $(ARGS)

## test-example: test a context from another distribution (examples/reviews), in the monolith and as a service
test-example: $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e examples/reviews
	cd examples/reviews && ../../$(BIN)/python -m pytest -q; status=$$?; \
	  ../../$(BIN)/python -m pip uninstall --quiet --yes markethall-reviews; exit $$status

# the clients are generated from this document
client-document: $(DEV)
	@$(BIN)/markethall openapi >clients/openapi.json

clients/typescript/node_modules/.package-lock.json: clients/typescript/package-lock.json
	cd clients/typescript && npm ci --no-progress
	@touch $@

clients/python/.venv/dev.stamp: clients/python/requirements.txt
	@$(PYTHON) -m venv clients/python/.venv
	@clients/python/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

## clients: generate and build the clients of the API (needs node and npm)
clients: client-document clients/typescript/node_modules/.package-lock.json clients/python/.venv/dev.stamp
	cd clients/typescript && npm run --silent generate && npm run --silent build
	cd clients/python && .venv/bin/python generator/generate.py ../openapi.json && .venv/bin/hatchling build -t wheel

## test-client-typescript: compile the TypeScript client and run a customer's story through it (needs node and npm)
test-client-typescript: client-document clients/typescript/node_modules/.package-lock.json
	cd clients/typescript && npm run --silent generate && npm test --silent && npm run --silent check-bundle

# the tests use the installed wheel, so they also show that it has the generated code
## test-client-python: build the Python client, check its types and run a customer's story through it
test-client-python: client-document clients/python/.venv/dev.stamp
	cd clients/python && .venv/bin/python generator/generate.py ../openapi.json && .venv/bin/mypy
	cd clients/python && .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	cd clients/python && .venv/bin/python -m pytest -q $(ARGS)
